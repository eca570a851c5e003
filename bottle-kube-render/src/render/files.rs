//! The files of a bottle's Pods.

use std::path::{Path, PathBuf};

use bottle_compose::document::Bind;
use bottle_plan::{ResolvedPlan, Service as Name};
use bottle_sidecars::git_gate;

use super::parts::{Bottle, Delivery};
use crate::object::{Item, Items, Projected, Source};

/// Directory of the agent's own files in its container.
pub(crate) const AGENT_FILES: &str = "/run/bottle";

/// A file of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The Pod.
    pub pod: String,
    /// Path in the Pod's container.
    pub target: String,
    /// The content.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
    /// `true` for a key or a credential.
    pub is_secret: bool,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of the launch, by its path in the launch's facts.
    Of(PathBuf),
    /// This text.
    Text(String),
    /// The value of a credential, by its slot.
    Credential(String),
}

impl File {
    /// Returns the file's key in a `ConfigMap` or a Secret.
    pub fn key(&self) -> String {
        self.target.trim_start_matches('/').replace('/', "_")
    }

    /// Returns the name of the `ConfigMap` or Secret that has the file.
    pub fn object(&self) -> String {
        format!("{}-{}", self.pod, if self.is_secret { "secret" } else { "config" })
    }

    /// Returns the path in the volume of the Pod's files, which is the path in the container without the first `/`.
    pub fn path(&self) -> &str {
        self.target.trim_start_matches('/')
    }
}

impl Bottle<'_> {
    /// Returns the file of a bind mount, or `None` for a directory, which is a volume of its own.
    pub(super) fn file(&self, pod: &str, bind: &Bind) -> Option<File> {
        let source = Path::new(&bind.source);
        if is_directory(self.plan, source) {
            return None;
        }
        let (is_secret, mode) = (is_secret(self.plan, source), mode(self.plan, source));
        let content = Content::Of(source.to_owned());
        Some(File { pod: pod.to_owned(), target: bind.target.clone(), content, mode, is_secret })
    }

    /// Returns the files that only the agent's Pod on a cluster has: what its init container makes the bundle of
    /// certificates from, and the git rules. A container without root cannot change the image's files.
    pub(super) fn agent_files(&self) -> Vec<File> {
        let launch = self.plan.launch();
        let file = |name: &str, content| File {
            pod: Name::Agent.to_string(),
            target: format!("{AGENT_FILES}/{name}"),
            content,
            mode: 0o644,
            is_secret: false,
        };
        let authority = launch.egress.as_ref().map_or(&launch.pipelock.ca_cert, |egress| &egress.ca_cert);
        let mut files = vec![file("authority.pem", Content::Of(authority.clone()))];
        if let (None, Some(bundle)) = (&launch.egress, &launch.upstream_ca) {
            files.push(file("upstream.pem", Content::Of(bundle.clone())));
        }
        if let Some(gate) = &self.plan.plan().git_gate {
            let rules = format!("[include]\n\tpath = /etc/gitconfig\n{}", git_gate::agent_git_config(gate));
            files.push(file("gitconfig", Content::Text(rules)));
        }
        files
    }

    /// Returns the volume with a Pod's files as `ConfigMap` and Secret, or `None` if they are handed over.
    pub(super) fn projected(&self, files: &[File]) -> Option<Projected> {
        if self.delivery == Delivery::HandOver {
            return None;
        }
        let items = |is_secret: bool| {
            let mut found = files.iter().filter(|file| file.is_secret == is_secret).peekable();
            let name = found.peek()?.object();
            // Without its group, which the kubelet makes that of the Pod, the container could not read a key.
            let mode = |file: &File| if is_secret { 0o440 } else { file.mode };
            let item = |file: &File| Item { key: file.key(), path: file.path().to_owned(), mode: mode(file) };
            Some(Items { name, items: found.map(item).collect() })
        };
        let sources = [items(false).map(Source::ConfigMap), items(true).map(Source::Secret)];
        Some(Projected { sources: sources.into_iter().flatten().collect() })
    }
}

/// Returns true for the directories of supervise, which change while the bottle runs.
fn is_directory(plan: &ResolvedPlan, source: &Path) -> bool {
    let supervise = plan.launch().supervise.as_ref();
    supervise.is_some_and(|facts| [&facts.queue, &facts.decisions, &facts.current_config].contains(&&source.to_owned()))
}

fn is_secret(plan: &ResolvedPlan, source: &Path) -> bool {
    let launch = plan.launch();
    source == launch.pipelock.ca_key
        || launch.egress.as_ref().is_some_and(|egress| source == egress.ca_combined)
        || launch.git_gate.as_ref().is_some_and(|gate| gate.identities.values().any(|path| path == source))
}

fn mode(plan: &ResolvedPlan, source: &Path) -> u32 {
    let scripts = plan.launch().git_gate.as_ref().and_then(|gate| source.strip_prefix(&gate.scripts).ok());
    let is_program =
        |path: &Path| git_gate::SCRIPTS.iter().any(|script| script.executable && Path::new(script.path) == path);
    match scripts {
        _ if is_secret(plan, source) => 0o600,
        Some(path) if is_program(path) => 0o755,
        _ => 0o644,
    }
}
