//! The one printer of errors.

use std::error::Error as StdError;
use std::fmt;

use bottle_plan::{ManifestError, PlanError};

use crate::{Error, LaunchError};

/// Reports an error to a person: "failed to", the error, and every cause behind it. A mistake of a manifest is drawn below
/// its source line, and a launch that could not be undone says what is left.
///
/// ```
/// use bottle::Manifest;
///
/// let error = Manifest::parse("bottles: {dev: {egres: {}}}\nagents: {demo: {bottle: dev, command: [id]}}").unwrap_err();
/// let text = bottle::report(&error).to_string();
/// assert!(text.starts_with("failed to read manifest: 1 mistake\n"), "{text}");
/// assert!(text.contains("did you mean `egress`?"), "{text}");
/// ```
pub fn report<'a>(error: &'a (dyn StdError + 'static)) -> Report<'a> {
    Report { error, color: false }
}

/// An error as [`report`] prints it.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    error: &'a (dyn StdError + 'static),
    color: bool,
}

impl Report<'_> {
    /// Sets whether source lines are drawn in color, as on a terminal. Default: no.
    #[must_use]
    pub const fn with_color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.error;
        let mut said = String::new();
        f.write_str("failed to ")?;
        loop {
            if let Some(manifest) = manifest_error(error) {
                let drawn = manifest.drawn(self.color);
                let between = if said.is_empty() { "" } else { ": " };
                return write!(f, "{between}{}\n\n{}", manifest.summary(), drawn.trim_end());
            }
            // What an error already says of its cause is not said again.
            let text = error.to_string();
            if !said.contains(&text) {
                let between = if said.is_empty() { "" } else { ": " };
                write!(f, "{between}{text}")?;
                said += &text;
            }
            match error.source() {
                Some(source) => error = source,
                None => break,
            }
        }
        match launch_error(self.error).and_then(|error| error.teardown.as_ref()) {
            Some(report) if !report.is_clean() => write!(f, "\nnot everything could be undone: {report}"),
            _ => Ok(()),
        }
    }
}

fn manifest_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ManifestError> {
    let of_plan = |error: &'a PlanError| match error {
        PlanError::Manifest(error) => Some(error),
        _ => None,
    };
    match error.downcast_ref::<Error>() {
        Some(Error::Manifest(error)) => return Some(error),
        Some(Error::Plan(error)) => return of_plan(error),
        _ => {}
    }
    error.downcast_ref::<ManifestError>().or_else(|| error.downcast_ref::<PlanError>().and_then(of_plan))
}

fn launch_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a LaunchError> {
    match error.downcast_ref::<Error>() {
        Some(Error::Launch(error)) => Some(error),
        _ => error.downcast_ref::<LaunchError>(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io;
    use std::path::PathBuf;

    use bottle_compose::RenderError;
    use bottle_plan::{Manifest, ResolveError, Service, Slug};
    use bottle_tls::{BundleInput, TlsError};

    use super::*;
    use crate::env_file::EnvFileError;
    use crate::launch::{LaunchCause, Step};
    use crate::workspace::WorkspaceError;

    /// Every variant of the error types of plan, renderer and launch preparation.
    fn every() -> Vec<(&'static str, Box<dyn StdError>)> {
        fn path() -> PathBuf {
            "/home/me/file".into()
        }
        fn denied() -> io::Error {
            io::Error::from(io::ErrorKind::PermissionDenied)
        }
        let bundle =
            || TlsError::Bundle { input: BundleInput::ExtraRoots, line: 7, problem: "certificate 2: …".into() };
        let text = "bottles: {dev: {runtime: kata, egres: {}}}\nagents: {demo: {bottle: dev, command: [id]}}";
        let manifest = || Manifest::parse(text).unwrap_err();
        let name = || "No".parse::<Slug>().unwrap_err();
        let (known, what, variable, purpose) = ("`demo`", "the workspace", "TOKEN", "route `a` injects it (key)");
        let launch = |cause| Box::new(LaunchError::new(Step::Prepare, cause)) as Box<dyn StdError>;
        let mut all: Vec<(&str, Box<dyn StdError>)> = vec![
            ("ManifestError", Box::new(manifest())),
            ("NameError", Box::new(Error::from(name()))),
            ("PlanError", Box::new(PlanError::UnknownAgent { wanted: "x".into(), known: known.into() })),
            ("PlanError", Box::new(PlanError::AgentNotChosen { known: known.into() })),
            ("PlanError", Box::new(PlanError::Manifest(manifest()))),
            ("PlanError", Box::new(PlanError::RelativePath { what: "the home directory", path: "x".into() })),
            ("ResolveError", Box::new(ResolveError::Sidecar { service: Service::Egress, planned: true })),
            ("ResolveError", Box::new(ResolveError::Sidecar { service: Service::Egress, planned: false })),
            ("ResolveError", Box::new(ResolveError::RelativePath { what: what.into(), path: "x".into() })),
            ("ResolveError", Box::new(ResolveError::NotUnicode { what: what.into(), path: path() })),
            ("ResolveError", Box::new(ResolveError::NoIdentity { name: "app".parse().unwrap() })),
            ("ResolveError", Box::new(ResolveError::UpstreamCa)),
            ("RenderError", Box::new(RenderError::DuplicateService { name: "agent".into() })),
            ("RenderError", Box::new(RenderError::Dangling { service: "clock".into(), missing: "moon".into() })),
            ("RenderError", Box::new(RenderError::NoPorts { sidecar: "clock".into(), given: "its proxy".into() })),
            ("EnvFileError", Box::new(EnvFileError::Read { path: path(), source: denied() })),
            ("EnvFileError", Box::new(EnvFileError::NotText { path: path() })),
            ("EnvFileError", Box::new(EnvFileError::Reaches { path: path(), line: 2, what: "a `$`" })),
            ("WorkspaceError", Box::new(WorkspaceError::NotADirectory { path: path() })),
            ("WorkspaceError", Box::new(WorkspaceError::Read { path: path(), source: denied() })),
            ("WorkspaceError", Box::new(WorkspaceError::Write(denied()))),
        ];
        let (variable, purpose) = (variable.to_owned(), purpose.to_owned());
        let causes = [
            LaunchCause::Cancelled,
            LaunchCause::Variable { variable: variable.clone(), empty: true, purpose: purpose.clone() },
            LaunchCause::Variable { variable: variable.clone(), empty: false, purpose: purpose.clone() },
            LaunchCause::VariableNotText { variable: variable.clone(), purpose: purpose.clone() },
            LaunchCause::VariableNotToken { variable, purpose },
            LaunchCause::Unusable { what: what.into(), path: path(), problem: "is not a directory".into() },
            LaunchCause::Files {
                problems: vec![
                    ("workspace.path".into(), "`/home/me/file` is not a directory; accepted: a directory".into()),
                    ("agents.demo.skills[0]".into(), "`/home/me/x` cannot be used: …; accepted: a directory".into()),
                ],
            },
            LaunchCause::ImageDigest {
                key: "images.pipelock".into(),
                wanted: "images.example.com/a:2@sha256:0123".into(),
                found: "`images.example.com/a:2` is `images.example.com/a@sha256:4567`".into(),
                program: "docker".into(),
            },
            LaunchCause::UpstreamCa { path: path(), source: bundle() },
            LaunchCause::Write { path: path(), source: denied() },
            LaunchCause::EnvFile(EnvFileError::Read { path: path(), source: denied() }),
            LaunchCause::Workspace(WorkspaceError::Write(denied())),
            LaunchCause::Tls(bundle()),
            LaunchCause::Resolve(ResolveError::UpstreamCa),
            LaunchCause::Render(RenderError::DuplicateService { name: "agent".into() }),
        ];
        all.extend(causes.into_iter().map(|cause| ("LaunchError", launch(cause))));
        all
    }

    #[test]
    fn every_error_follows_failed_to() {
        let mut shown = String::new();
        for (family, error) in every() {
            writeln!(shown, "{family}: {}", report(&*error)).unwrap();
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_chain_says_nothing_twice() {
        for (family, error) in every() {
            let mut said: Vec<String> = Vec::new();
            let mut next: Option<&dyn StdError> = Some(&*error);
            while let Some(error) = next {
                let text = error.to_string();
                assert!(said.iter().all(|earlier| !earlier.contains(&text)), "{family}: {said:?} say `{text}` already");
                said.push(text);
                next = error.source();
            }
        }
    }
}
