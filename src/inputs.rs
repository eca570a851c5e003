//! Inputs of a plan from the host: variables and files. All mistakes in them are found before anything is created.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bottle_exec::chain;
use bottle_plan::manifest::{SecretsMode, WorkspaceMode};
use bottle_plan::plan::{GitAuth, PromptSource, WantedVariable};
use bottle_plan::value::EnvName;
use bottle_plan::{BottlePlan, ManifestError, PlanError, PlanRequest, SecretValue, Secrets};
use bottle_tls::TlsError;

use crate::Host;
use crate::lifecycle::Secret;
use bottle_compose::env_file::{self, Content};

impl Host {
    /// Reads a manifest and makes the plan of one bottle. All mistakes are in one error: those of the manifest, variables
    /// that are not set, and files that cannot be used.
    ///
    /// ```no_run
    /// use bottle::prelude::*;
    ///
    /// let bottles = Bottles::local()?;
    /// let plan = bottles.host().read_plan("bottle.yaml", &bottles)?;
    /// # Ok::<(), bottle::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`BottlePlan::read`] and [`check`](Self::check).
    pub fn read_plan<'a>(
        &self,
        manifest: impl AsRef<Path>,
        request: impl Into<PlanRequest<'a>>,
    ) -> Result<BottlePlan, PlanError> {
        BottlePlan::read(manifest, request, |plan| Inputs::read(plan, self).1)
    }

    /// Checks that this host has every variable and file that a plan names. An environment file may be absent. A launch
    /// checks the same.
    ///
    /// # Errors
    ///
    /// If a variable is not set, or a file cannot be used. The error holds each of them with the line and key of the
    /// manifest.
    pub fn check(&self, plan: &BottlePlan) -> Result<(), ManifestError> {
        let (_, mistakes) = Inputs::read(plan, self);
        if mistakes.is_empty() { Ok(()) } else { Err(plan.error_at(mistakes)) }
    }
}

/// Inputs of a plan from the host, as a launch needs them.
#[derive(Default)]
pub(crate) struct Inputs {
    /// Every value that Compose must find in its environment.
    pub(crate) compose_environment: Secrets,
    /// Every credential of a sidecar, by its slot.
    pub(crate) credentials: Secrets,
    /// Variables whose values come from a source.
    sourced: Vec<WantedVariable>,
    /// Slots whose values expire, by the name of their source.
    pub(crate) renewed: BTreeMap<String, (SystemTime, Vec<EnvName>)>,
    /// The environment file, if it has content.
    pub(crate) env_file: Option<PathBuf>,
    /// Problems that do not prevent a launch.
    pub(crate) warnings: Vec<String>,
    /// The certificates of `tls.upstream_ca`.
    pub(crate) upstream_ca: Option<String>,
}

/// A key of the manifest, and what is wrong with what it names.
type Mistake = (String, String);

impl Inputs {
    /// Reads everything, and returns it with all mistakes.
    pub(crate) fn read(plan: &BottlePlan, host: &Host) -> (Self, Vec<Mistake>) {
        let (mut inputs, mut mistakes) = (Self::default(), Vec::new());
        inputs.read_variables(plan, host, &mut mistakes);
        inputs.read_files(plan, host, &mut mistakes);
        (inputs, mistakes)
    }

    /// Reads the credentials of these slots alone, and asks their sources.
    pub(crate) fn read_credentials(
        plan: &BottlePlan,
        host: &Host,
        is_wanted: impl Fn(&EnvName) -> bool,
    ) -> Result<Self, ManifestError> {
        let (mut inputs, mut mistakes) = (Self::default(), Vec::new());
        for wanted in plan.wanted_variables().into_iter().filter(|it| it.is_credential && is_wanted(&it.name)) {
            inputs.read_variable(wanted, host, &mut mistakes);
        }
        mistakes.extend(inputs.ask_sources(plan, host));
        if mistakes.is_empty() { Ok(inputs) } else { Err(plan.error_at(mistakes)) }
    }

    fn read_variable(&mut self, wanted: WantedVariable, host: &Host, mistakes: &mut Vec<Mistake>) {
        if wanted.is_credential && host.source(wanted.source.as_str()).is_some() {
            self.sourced.push(wanted);
            return;
        }
        match variable(host, wanted.source.as_str(), wanted.is_credential) {
            Ok(value) if wanted.is_credential => self.credentials.insert(wanted.name, value),
            Ok(value) => self.compose_environment.insert(wanted.name, value),
            Err(problem) => mistakes.push((wanted.key, format!("{problem}; {}", wanted.purpose))),
        }
    }

    fn read_variables(&mut self, plan: &BottlePlan, host: &Host, mistakes: &mut Vec<Mistake>) {
        for wanted in plan.wanted_variables() {
            self.read_variable(wanted, host, mistakes);
        }
        // The launcher itself sends the requests to the forge, so Compose does not need its token.
        for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
            let GitAuth::DeployKey(key) = &upstream.auth else { continue };
            if let Err(problem) = variable(host, key.token.as_str(), true) {
                let purpose = format!("git upstream `{}` registers its deploy key with it", upstream.name);
                mistakes.push((format!("{}.deploy_key.token", upstream.key), format!("{problem}; {purpose}")));
            }
        }
        // A placeholder is not a secret, but it enters the container the same way: by a bare name.
        for (name, dummy) in &plan.agent.placeholders {
            self.compose_environment.insert(name.clone(), SecretValue::new(dummy));
        }
    }

    /// Asks the sources for their values, each once.
    pub(crate) fn ask_sources(&mut self, plan: &BottlePlan, host: &Host) -> Vec<Mistake> {
        let (mut mistakes, mut values) = (Vec::new(), BTreeMap::new());
        for wanted in std::mem::take(&mut self.sourced) {
            let name = wanted.source.as_str();
            let Some(source) = host.source(name) else { continue };
            let answer = values.entry(name.to_owned()).or_insert_with(|| match source.value() {
                Ok(secret) if secret.is_usable() => Ok(secret),
                Ok(_) => Err(Secret::UNUSABLE.to_owned()),
                Err(error) => Err(format!("failed: {}", chain(&*error))),
            });
            match answer {
                Err(problem) => {
                    mistakes.push((wanted.key, format!("the source of `{name}` {problem}; {}", wanted.purpose)));
                }
                Ok(secret) => {
                    self.credentials.insert(wanted.name.clone(), secret.value.clone());
                    let Some(expires) = secret.expires else { continue };
                    if plan.secrets == SecretsMode::Environment {
                        let problem = format!("the value of `{name}` expires, and `environment` cannot replace it");
                        mistakes.push((plan.bottle_key("secrets"), format!("{problem}; accepted: `memory`")));
                    }
                    self.renewed.entry(name.to_owned()).or_insert((expires, Vec::new())).1.push(wanted.name);
                }
            }
        }
        mistakes
    }

    fn read_files(&mut self, plan: &BottlePlan, host: &Host, mistakes: &mut Vec<Mistake>) {
        let agent = &plan.agent_name;
        let mut add = |key: String, path: &Path, checked: Result<(), String>| {
            mistakes.extend(checked.err().map(|problem| (key, format!("`{}` {problem}", path.display()))));
        };
        if plan.workspace.mode != WorkspaceMode::None {
            let path = &plan.workspace.source;
            let is_written = plan.workspace.mode == WorkspaceMode::BindRw;
            let checked = || bottle_workspace::check(&plan.workspace, &host.user_git());
            let protected = || if is_written { checked() } else { Ok(()) };
            add(plan.bottle_key("workspace.path"), path, directory(path).and_then(|()| protected()));
        }
        if let Some(path) = &plan.tls.upstream_ca {
            let read = upstream_ca(path).map(|certificates| self.upstream_ca = Some(certificates));
            add(plan.bottle_key("tls.upstream_ca"), path, read);
        }
        if let Some(path) = &plan.agent.env_file {
            let key = plan.bottle_key("env_file");
            let read = env_file::check(path).map(|content| match content {
                Content::Absent => self
                    .warnings
                    .push(format!("{key}: `{}` does not exist; no variable is read from it", path.display())),
                Content::Empty => {}
                Content::Lines => self.env_file = Some(path.clone()),
            });
            add(key, path, read);
        }
        for upstream in plan.git_gate.iter().flat_map(|gate| &gate.upstreams) {
            if let GitAuth::IdentityFile(path) = &upstream.auth {
                add(format!("{}.identity_file", upstream.key), path, identity(path, plan.user.uid));
            }
        }
        if let Some(PromptSource::File(path)) = &plan.agent.prompt {
            add(format!("agents.{agent}.prompt_file"), path, file(path).map(drop));
        }
        for (index, path) in plan.agent.skills.iter().enumerate() {
            add(format!("agents.{agent}.skills[{index}]"), path, directory(path));
        }
    }
}

/// Reads a variable of the host. A token must not be empty, and it goes into a header.
fn variable(host: &Host, name: &str, is_token: bool) -> Result<SecretValue, String> {
    let problem = |what: &str| Err(format!("the variable `{name}` {what}"));
    let Some(value) = host.variable(name) else { return problem("is not set") };
    if is_token && value.as_bytes().trim_ascii().is_empty() {
        return problem("is empty");
    }
    match value.to_str() {
        None => problem("is not UTF-8"),
        Some(value) => match SecretValue::new(value) {
            // A careless copy may add a newline.
            value if is_token && !value.is_header_text() => {
                problem("begins or ends with a space or line end, or holds a character that no header can carry")
            }
            value => Ok(value),
        },
    }
}

fn directory(path: &Path) -> Result<(), String> {
    let accepted = "accepted: a directory";
    match fs::metadata(path)
        .and_then(|metadata| if metadata.is_dir() { fs::read_dir(path).map(Some) } else { Ok(None) })
    {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("is not a directory; {accepted}")),
        Err(error) => Err(format!("cannot be used: {error}; {accepted}")),
    }
}

/// Opens a regular file.
fn file(path: &Path) -> Result<fs::File, String> {
    let accepted = "accepted: a regular file";
    let unusable = |error: io::Error| format!("cannot be used: {error}; {accepted}");
    // Asked first, since opening a named pipe would wait for its writer.
    if !fs::metadata(path).map_err(unusable)?.is_file() {
        return Err(format!("is not a regular file; {accepted}"));
    }
    fs::File::open(path).map_err(unusable)
}

/// Checks a private key. One that others can read is no secret, and ssh itself refuses it. Git-gate runs as the user `uid`
/// and without the capability to read files of another user.
fn identity(path: &Path, uid: u32) -> Result<(), String> {
    let metadata = file(path)?.metadata().map_err(|error| format!("cannot be used: {error}"))?;
    // No bit for group or others.
    if metadata.permissions().mode().trailing_zeros() < 6 {
        return Err("can be read by others; accepted: mode 0600 or 0400".into());
    }
    if metadata.uid() != uid {
        return Err(format!("belongs to another user; git-gate runs as user {uid} and cannot read it"));
    }
    Ok(())
}

/// The largest `tls.upstream_ca` that is read. The public web's own roots are a twentieth of it.
const MAX_UPSTREAM_CA_BYTES: u64 = 4 << 20;

/// Reads `tls.upstream_ca` and returns its certificates, without whatever stands between them. A private key or anything
/// else that is no certificate is an error, before a container sees it.
fn upstream_ca(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = file(path)?.take(MAX_UPSTREAM_CA_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_UPSTREAM_CA_BYTES {
        return Err(format!("is larger than {} MiB", MAX_UPSTREAM_CA_BYTES >> 20));
    }
    // Comments may be in any encoding; certificates are ASCII.
    bottle_tls::extra_roots(&String::from_utf8_lossy(&bytes)).map_err(|error| match error {
        TlsError::Bundle { line, problem, .. } => format!("is no list of certificates: line {line}: {problem}"),
        other => format!("is no list of certificates: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use bottle_plan::{HostFacts, UserIds};

    use std::ffi::OsString;

    use bottle_tls::{CaRole, CaSpec, CertificateAuthority, SystemRandom};

    use super::*;

    /// Reads the plan of a manifest in a directory. The host has the variables `EMPTY` and `LINES`, which hold no token.
    fn read(dir: &Path, text: &str) -> Result<BottlePlan, PlanError> {
        let path = dir.join("bottle.yaml");
        fs::write(&path, text).unwrap();
        let user = UserIds { uid: rustix::process::geteuid().as_raw(), gid: 0 };
        let facts = HostFacts { home: "/home/me".into(), cwd: dir.to_owned(), user };
        let variables = [("EMPTY", " "), ("LINES", "a\n"), ("GOOD", "x")];
        let host = Host::new(facts, variables.map(|(name, value)| (OsString::from(name), OsString::from(value))));
        host.read_plan(&path, host.plan_request())
    }

    #[test]
    fn every_mistake_of_a_manifest_and_of_what_it_names_is_in_one_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        fs::write(dir.path().join("roots.pem"), "# none\nnothing\n").unwrap();
        fs::write(dir.path().join("open-key"), "key").unwrap();
        fs::set_permissions(dir.path().join("open-key"), fs::Permissions::from_mode(0o644)).unwrap();
        let text = "bottles:
  dev:
    env: {A: {forward: ABSENT}, B: $GOOD, C: 1.5}
    env_file: there
    workspace: {path: nowhere}
    tls: {upstream_ca: roots.pem, lifetime: 1s}
    egress:
      routes:
        - {host: a.example.com, inject: {token: EMPTY}}
        - {host: b.example.com, inject: {token: LINES}, prot: 443}
        - {host: c.example.com, inject: {token: sk-ant-api03-Zm9vYmFyYmF6cXV4}}
    git:
      upstreams:
        - {name: app, url: 'git@git.example.com:a/b', identity_file: open-key, known_hosts: [git.example.com ssh-ed25519 AAAA]}
        - {name: lib, url: 'git@git.example.com:a/c', deploy_key: {forge: github, token: ABSENT_TOO}, known_hosts: [git.example.com ssh-ed25519 AAAA]}
        - {name: doc, url: 'https://git.example.com/a/d', token: ABSENT_AS_WELL}
agents:
  demo: {bottle: dev, command: [id], prompt_file: there, skills: [there, no-skill, 5]}
";
        let error = read(dir.path(), text).unwrap_err();
        let shown = crate::report(&error).to_string().replace(&*dir.path().to_string_lossy(), "<directory>");
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_source_is_asked_once_and_its_mistakes_name_no_value() {
        use crate::lifecycle::CallbackSource;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};

        let dir = tempfile::tempdir().unwrap();
        let user = UserIds { uid: rustix::process::geteuid().as_raw(), gid: 0 };
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let good = CallbackSource(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Secret::new("good-value", Some(std::time::Duration::from_secs(60))))
        });
        let host = Host::new(HostFacts { home: "/home/me".into(), cwd: dir.path().to_owned(), user }, [])
            .with_secret(&"GOOD".parse().unwrap(), Arc::new(good))
            .with_secret(&"BAD".parse().unwrap(), Arc::new(CallbackSource(|| Ok(Secret::new("bad\nvalue", None)))))
            .with_secret(&"DOWN".parse().unwrap(), Arc::new(CallbackSource(|| Err("no answer".into()))));
        let read = |secrets: &str, tokens: &[&str]| {
            let routes = tokens.iter().enumerate();
            let routes: Vec<String> =
                routes.map(|(at, token)| format!("{{host: {at}.example.com, inject: {{token: {token}}}}}")).collect();
            let bottle = format!("{{secrets: {secrets}, egress: {{routes: [{}]}}}}", routes.join(", "));
            let text = format!("bottles: {{dev: {bottle}}}\nagents: {{demo: {{bottle: dev, command: [id]}}}}");
            let plan = bottle_plan::Manifest::parse(&text).unwrap().plan(host.plan_request()).unwrap();
            host.check(&plan).unwrap();
            let (mut inputs, mistakes) = Inputs::read(&plan, &host);
            assert_eq!((mistakes.len(), asked.swap(0, Ordering::Relaxed)), (0, 0), "a check asks no source");
            let mistakes = inputs.ask_sources(&plan, &host);
            (inputs, mistakes)
        };
        let (inputs, mistakes) = read("memory", &["GOOD", "GOOD"]);
        assert_eq!((mistakes.len(), asked.swap(0, Ordering::Relaxed)), (0, 1));
        let (_, slots) = &inputs.renewed["GOOD"];
        assert_eq!(slots.len(), inputs.credentials.iter().count());
        assert!(inputs.credentials.iter().all(|(_, value)| value.expose() == "good-value"));
        let problems = |(_, mistakes): (Inputs, Vec<Mistake>)| {
            let lines: Vec<String> = mistakes.into_iter().map(|(key, problem)| format!("{key}: {problem}")).collect();
            lines.join("\n")
        };
        insta::assert_snapshot!(problems(read("memory", &["BAD", "DOWN"])), @"
        bottles.dev.egress.routes[0].inject.token: the source of `BAD` gave an empty value, or one that no header can carry; route `0.example.com` injects it
        bottles.dev.egress.routes[1].inject.token: the source of `DOWN` failed: no answer; route `1.example.com` injects it
        ");
        insta::assert_snapshot!(problems(read("environment", &["GOOD"])), @"bottles.dev.secrets: the value of `GOOD` expires, and `environment` cannot replace it; accepted: `memory`");
    }

    #[test]
    fn a_launch_draws_what_a_host_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let manifest =
            "bottles: {dev: {env: {A: $ABSENT}}}\nagents: {demo: {bottle: dev, command: [id], skills: [no]}}";
        let path = dir.path().join("bottle.yaml");
        fs::write(&path, manifest).unwrap();
        let facts = HostFacts { home: "/home/me".into(), cwd: dir.path().to_owned(), user: UserIds { uid: 0, gid: 0 } };
        let host = Host::new(facts, []);
        let plan = bottle_plan::Manifest::read(&path).unwrap().plan(host.plan_request()).unwrap();
        let error = host.check(&plan).unwrap_err();
        let places: Vec<_> = error.mistakes.iter().map(|mistake| (mistake.key.as_str(), mistake.line)).collect();
        assert_eq!(places, [("bottles.dev.env.A", Some(1)), ("agents.demo.skills[0]", Some(2))]);
    }

    #[test]
    fn what_a_host_has_is_no_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let text = "bottles: {dev: {env_file: absent, env: {A: $GOOD}}}\nagents: {demo: {bottle: dev, command: [id]}}";
        assert_eq!(read(dir.path(), text).map(drop), Ok(()));
    }

    fn certificate() -> String {
        let spec = CaSpec::new("demo", CaRole::Egress, std::time::SystemTime::now());
        CertificateAuthority::mint(&spec, &mut SystemRandom).unwrap().certificate_pem().to_owned()
    }

    #[test]
    fn a_company_bundle_of_several_certificates_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("company.pem");
        let (one, two) = (certificate(), certificate());
        // A comment in Latin-1, and the line ends of Windows.
        let mut bytes = b"# M\xfcller Root\r\n".to_vec();
        bytes.extend(format!("{one}\n# second\n{two}").replace('\n', "\r\n").into_bytes());
        fs::write(&path, bytes).unwrap();
        assert_eq!(upstream_ca(&path).unwrap(), format!("{one}{two}"));
    }
}
