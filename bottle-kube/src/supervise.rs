//! Supervision of a bottle on a cluster: what the agent proposes is decided by a person, and applied while the bottle runs.
//!
//! Everything that the decisions need is in memory of the supervise Pod: the proposals, the decisions, both logs and the plan
//! in effect. A process that decides copies it into a private directory for the time of one call and writes its own part
//! back, so any process that can reach the cluster may decide. Its container, the keeper, is the only one of the Pod that can
//! write the decisions. A lock there makes the calls of several processes follow one another.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bottle_exec::{Child, Stdin, chain};
use bottle_files::tar::{Packer, unpack};
use bottle_kube_render::{FILES, KEEPER, MAIN, STATE};
use bottle_plan::value::Subnet;
use bottle_plan::{BottlePlan, Service, Slug, StateLayout, StateRoot};
use bottle_sidecars::{egress, pipelock, supervise};
use bottle_supervise::{Decision, Proxies, ProxyFailure, Review, Scope, SuperviseError, Supervisor, Verified};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bottle::{KubeBottle, read_all, succeed};
use crate::client::{Kubectl, Target};
use crate::error::KubeError;

/// Time limit of one command in a keeper.
const LIMIT: Duration = Duration::from_secs(60);

/// Most bytes of the state of a bottle's supervision. The volume is smaller.
const MOST: u64 = 128 << 20;

/// Directory of the state that no other container mounts.
const OWN: &str = "launcher";

/// Rewrites the file in its first argument from standard input. A reader in between sees the old or the new text: it is
/// padded with newlines to the old length and written in one call, and then the file is truncated.
const REWRITE: &str = r#"set -e
new="$0/.new"; cat >"$new"; size=$(stat -c %s "$new"); old=$(stat -c %s "$1")
[ "$old" -le "$size" ] || head -c "$((old - size))" /dev/zero | tr '\0' '\n' >>"$new"
dd if="$new" of="$1" bs=16M conv=notrunc status=none
truncate -s "$size" "$1"; rm -f "$new""#;

/// Unpacks the launcher's part of the state from standard input. Each file is replaced at once, the decisions last.
const STORE: &str = r#"set -e
cd "$0"; rm -rf .new; mkdir -p .new launcher
tar --extract --no-same-owner --file - --directory .new
for file in launcher/plan.json config/posture.json config/posture.txt decisions/audit.jsonl; do
  [ ! -e ".new/$file" ] || mv -f ".new/$file" "$file"
done
[ -e .new/launcher/unfinished ] || rm -f launcher/unfinished
for file in .new/decisions/*.json; do
  [ ! -e "$file" ] || mv -f "$file" decisions/
done
rm -rf .new"#;

/// Sends SIGHUP to pipelock, whose Pod shares its process namespace. Health checks run for a moment and have larger numbers.
const SIGNAL: &str = r#"for process in $(ls /proc | grep -x '[0-9]*' | sort -n); do
  [ "$(cat "/proc/$process/comm" 2>/dev/null)" != pipelock ] || { kill -HUP "$process"; exit; }
done
echo 'there is no process of pipelock' >&2; exit 1"#;

/// Supervision of a bottle on a cluster, from any process.
#[derive(Debug, Clone)]
pub struct KubeSupervisor {
    proxies: Arc<KubeProxies>,
    slug: Slug,
}

impl KubeBottle {
    /// Opens the bottle for supervision.
    ///
    /// # Errors
    ///
    /// Returns an error if the bottle is not supervised.
    pub fn supervise(&self) -> Result<KubeSupervisor, KubeError> {
        let supervisor = KubeSupervisor::new(self);
        let pod = self.cluster.get(["pod", Service::Supervise.as_str(), "--namespace", &self.namespace])?;
        if pod.is_none() {
            return Err(SuperviseError::NotSupervised(supervisor.slug).into());
        }
        Ok(supervisor)
    }
}

impl KubeSupervisor {
    fn new(bottle: &KubeBottle) -> Self {
        let proxies = KubeProxies { cluster: bottle.cluster.clone(), namespace: bottle.namespace.clone() };
        Self { proxies: Arc::new(proxies), slug: bottle.journal.slug.clone() }
    }

    /// Writes the plan of a launch, before the bottle is handed out.
    pub(crate) fn write_launched(bottle: &KubeBottle, plan: &BottlePlan) -> Result<(), KubeError> {
        let this = Self::new(bottle);
        let (_root, layout) = this.directory()?;
        for directory in [layout.supervise_decisions(), layout.current_config()] {
            fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        }
        bottle_supervise::write_launched_plan(plan, &layout)?;
        this.store(&layout)
    }

    /// Returns the proposals that wait for a decision, oldest first.
    ///
    /// # Errors
    ///
    /// Returns an error if the state cannot be read.
    pub fn pending(&self) -> Result<Vec<Review>, KubeError> {
        self.read(Supervisor::pending)
    }

    /// Returns the plan in effect: the launched plan with every change that was approved and applied since.
    ///
    /// # Errors
    ///
    /// Returns an error if the state cannot be read.
    pub fn plan(&self) -> Result<BottlePlan, KubeError> {
        self.read(Supervisor::plan)
    }

    /// Checks both audit logs against each other and against the decisions.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::verify`].
    pub fn verify(&self) -> Result<Verified, KubeError> {
        self.read(Supervisor::verify)
    }

    /// Approves a proposal and applies its change, as [`Supervisor::approve_for`] does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn approve(&self, review: &Review, scope: Scope, reason: &str) -> Result<Decision, KubeError> {
        self.change(|supervisor| supervisor.approve_for(review, scope, reason))
    }

    /// Denies a proposal. The agent reads the reason.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::deny`].
    pub fn deny(&self, review: &Review, reason: &str) -> Result<Decision, KubeError> {
        self.change(|supervisor| supervisor.deny(review, reason))
    }

    fn read<T>(&self, run: impl FnOnce(&Supervisor) -> Result<T, SuperviseError>) -> Result<T, KubeError> {
        let (root, layout) = self.directory()?;
        self.fetch(&layout)?;
        Ok(run(&self.open(root.path())?)?)
    }

    fn change<T>(&self, run: impl FnOnce(&Supervisor) -> Result<T, SuperviseError>) -> Result<T, KubeError> {
        let _lock = self.lock()?;
        let (root, layout) = self.directory()?;
        self.fetch(&layout)?;
        let result = run(&self.open(root.path())?);
        // A decision that failed may have changed the log.
        self.store(&layout)?;
        Ok(result?)
    }

    fn open(&self, root: &Path) -> Result<Supervisor, KubeError> {
        let proxies = Arc::clone(&self.proxies) as Arc<dyn Proxies>;
        Ok(Supervisor::with_proxies(proxies, &StateRoot::at(root), &self.slug)?)
    }

    /// Returns a directory for one call, which is removed with the first value, and the layout in it.
    fn directory(&self) -> Result<(tempfile::TempDir, StateLayout), KubeError> {
        let root = tempfile::tempdir().map_err(|error| failed(&error))?;
        let layout = StateRoot::at(root.path()).bottle(&self.slug);
        Ok((root, layout))
    }

    /// Copies the state. The queue is what a sidecar wrote, so that it is unpacked by itself.
    fn fetch(&self, layout: &StateLayout) -> Result<(), KubeError> {
        let make = |path: &Path| fs::create_dir_all(path).map_err(|error| failed(&error));
        let own = layout.service_dir(Service::Supervise);
        let (queue, config) = (layout.supervise_queue(), layout.current_config());
        [&own, &queue].into_iter().try_for_each(|path| make(path))?;
        self.copy(&format!("{STATE}{}", supervise::QUEUE), ".", &queue)?;
        self.copy(STATE, &format!("{OWN} decisions config"), &own)?;
        let rename = |from: &Path, to: &Path| match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&error)),
            _ => Ok(()),
        };
        make(&layout.service_dir(Service::Agent))?;
        rename(&own.join("config"), &config)?;
        rename(&own.join(OWN).join("plan.json"), &layout.plan())?;
        rename(&own.join(OWN).join("unfinished"), &own.join("unfinished"))
    }

    fn copy(&self, directory: &str, names: &str, into: &Path) -> Result<(), KubeError> {
        // Status 1: a file has become longer meanwhile.
        let script = "cd \"$0\" || exit 2; tar --create --file - -- $1; [ $? -le 1 ]";
        let argv = ["sh", "-c", script, directory, names].map(String::from);
        let tar = read_all(&self.proxies.cluster, &self.proxies.keeper(Service::Supervise), &argv, directory, MOST)?;
        let unpacked = tempfile::tempfile().and_then(|mut file: File| {
            file.write_all(&tar)?;
            file.seek(SeekFrom::Start(0))?;
            unpack(&file, into)
        });
        unpacked.map(drop).map_err(|error| failed(&error))
    }

    /// Writes the launcher's part of the state, first for the agent and then for the sidecar.
    fn store(&self, layout: &StateLayout) -> Result<(), KubeError> {
        let proxies = &self.proxies;
        let own = layout.service_dir(Service::Supervise);
        let config = pack(|packer| {
            ["posture.json", "posture.txt"].into_iter().try_for_each(|name| {
                packer.add_bytes(Path::new(name), &fs::read(layout.current_config().join(name))?, 0o644)
            })
        })?;
        let directory = format!("{STATE}{}", supervise::CURRENT_CONFIG_IN_AGENT);
        let argv = ["tar", "--extract", "--no-same-owner", "--touch", "--file", "-", "--directory", &directory];
        proxies.run(&proxies.keeper(Service::Agent), &argv, Stdin::Bytes(config))?;
        let mark = own.join("unfinished");
        let state = pack(|packer| {
            packer.add_tree(&layout.current_config(), Path::new("config"))?;
            packer.add_tree(&layout.supervise_decisions(), Path::new("decisions"))?;
            packer.add_bytes(&Path::new(OWN).join("plan.json"), &fs::read(layout.plan())?, 0o600)?;
            if mark.exists() {
                packer.add_bytes(&Path::new(OWN).join("unfinished"), b"", 0o600)?;
            }
            Ok(())
        })?;
        proxies.run(&proxies.keeper(Service::Supervise), &["sh", "-c", STORE, STATE], Stdin::Bytes(state))
    }

    fn lock(&self) -> Result<Lock, KubeError> {
        let script = "cd \"$0\" && exec 9>launcher/lock && flock -w 60 9 && echo locked && exec cat >/dev/null";
        let argv = ["sh", "-c", script, STATE].map(String::from);
        let mut child = self.proxies.cluster.spawn(&self.proxies.keeper(Service::Supervise), &argv, None)?;
        let mut line = String::new();
        if let Some(output) = &mut child.stdout {
            BufReader::new(output).read_line(&mut line).map_err(|error| failed(&error))?;
        }
        let lock = Lock(child);
        if line.trim() == "locked" { Ok(lock) } else { Err(KubeError::input("another process decides at this moment")) }
    }
}

/// A lock that ends when this is dropped, or with this process.
struct Lock(Child);

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            tracing::warn!(error = chain(&error), "the lock of a bottle's supervision may still be held");
        }
    }
}

fn failed(error: &io::Error) -> KubeError {
    KubeError::input(format!("the state of the bottle's supervision cannot be copied: {error}"))
}

fn pack(add: impl FnOnce(&mut Packer<Vec<u8>>) -> io::Result<()>) -> Result<Vec<u8>, KubeError> {
    let mut packer = Packer::new(Vec::new());
    add(&mut packer).and_then(|()| packer.finish()).map_err(|error| failed(&error))
}

/// The proxies of a bottle on a cluster.
#[derive(Debug)]
struct KubeProxies {
    cluster: Kubectl,
    namespace: String,
}

impl KubeProxies {
    fn target<'a>(&'a self, pod: Service, container: &'a str) -> Target<'a> {
        Target { namespace: &self.namespace, pod: pod.as_str(), container }
    }

    fn keeper(&self, pod: Service) -> Target<'_> {
        self.target(pod, KEEPER)
    }

    fn run(&self, target: &Target<'_>, argv: &[&str], stdin: Stdin) -> Result<(), KubeError> {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        succeed(&argv, self.cluster.exec(target, &argv, stdin, LIMIT)?).map(drop)
    }
}

impl Proxies for KubeProxies {
    fn stopped(&self, proxy: Service) -> Result<Option<String>, ProxyFailure> {
        let pod = self.cluster.get(["pod", proxy.as_str(), "--namespace", &self.namespace])?;
        let Some(pod) = pod else { return Ok(Some("was removed".to_owned())) };
        let containers = pod["status"]["containerStatuses"].as_array();
        let main = containers.into_iter().flatten().find(|container| container["name"] == MAIN);
        let is_running = main.is_some_and(|main| main["state"].get("running").is_some());
        let reason = |state: &str| main.and_then(|main| main["state"][state]["reason"].as_str());
        let state = reason("waiting").or_else(|| reason("terminated")).unwrap_or("is starting");
        Ok((!is_running).then(|| state.to_owned()))
    }

    fn write(&self, proxy: Service, text: &str) -> io::Result<()> {
        // An approval that is interrupted from here on is finished by the next one.
        let mark = format!(": >{STATE}/{OWN}/unfinished");
        let path = match proxy {
            Service::Egress => egress::ROUTES,
            _ => pipelock::CONFIG,
        };
        let marked = self.run(&self.keeper(Service::Supervise), &["sh", "-c", &mark], Stdin::Null);
        let argv = ["sh", "-c", REWRITE, FILES, &format!("{FILES}{path}")];
        let written = marked.and_then(|()| self.run(&self.keeper(proxy), &argv, Stdin::Bytes(text.into())));
        written.map_err(|error| io::Error::other(chain(&error)))
    }

    fn signal(&self, proxy: Service) -> Result<(), ProxyFailure> {
        let (target, script) = match proxy {
            Service::Pipelock => (self.keeper(proxy), SIGNAL),
            _ => (self.target(proxy, MAIN), "kill -HUP 1"),
        };
        Ok(self.run(&target, &["sh", "-c", script], Stdin::Null)?)
    }

    fn last_line(&self, proxy: Service) -> Result<Option<String>, ProxyFailure> {
        let text = self.cluster.log_lines(&self.target(proxy, MAIN), &["--tail", "1"])?;
        Ok(text.lines().next_back().and_then(|line| Some(line.split_once(' ')?.0.to_owned())))
    }

    fn log_since(&self, proxy: Service, time: Option<&str>) -> Result<[String; 2], ProxyFailure> {
        let since = time.map(|time| format!("--since-time={time}"));
        let text =
            self.cluster.log_lines(&self.target(proxy, MAIN), &since.as_deref().into_iter().collect::<Vec<_>>())?;
        let text = time.map_or(text.clone(), |time| after(&text, time));
        Ok([text.clone(), text])
    }

    fn egress_status(&self) -> Result<String, ProxyFailure> {
        let argv = ["cat", egress::STATUS].map(String::from);
        let output = self.cluster.exec(&self.target(Service::Egress, MAIN), &argv, Stdin::Null, LIMIT)?;
        Ok(succeed(&argv, output)?.stdout_text())
    }

    fn internal_subnet(&self) -> Result<Option<Subnet>, ProxyFailure> {
        Ok(None)
    }
}

/// Returns the lines of a log that are later than a time. The API server looks at whole seconds only.
fn after(log: &str, time: &str) -> String {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let since = parse(time);
    let is_later = |line: &&str| match (line.split_once(' ').and_then(|(time, _)| parse(time)), since) {
        (Some(at), Some(since)) => at > since,
        _ => false,
    };
    log.lines().filter(is_later).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_later_lines_of_a_log_count() {
        let log = "2026-01-01T00:00:01.5Z a\n2026-01-01T00:00:01.50001Z b\n2026-01-01T00:00:02Z c\nno time\n";
        assert_eq!(after(log, "2026-01-01T00:00:01.5Z"), "2026-01-01T00:00:01.50001Z b\n2026-01-01T00:00:02Z c\n");
    }

    fn sh(script: &str, args: &[&Path], input: &[u8]) {
        let mut child = Command::new("sh").args(["-c", script]).args(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_file_is_rewritten_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "a long text\n").unwrap();
        let bound = File::open(&path).unwrap();
        for text in ["short\n", "a text that is longer than before\n"] {
            sh(REWRITE, &[dir.path(), &path], text.as_bytes());
            assert_eq!(io::read_to_string(&bound.try_clone().unwrap()).unwrap(), text, "the file is the same one");
            (&bound).seek(SeekFrom::Start(0)).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_state_is_replaced_file_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        for name in ["launcher", "config", "decisions", "queue"] {
            fs::create_dir(state.join(name)).unwrap();
        }
        fs::write(state.join("launcher/unfinished"), "").unwrap();
        fs::write(state.join("decisions/1-a.json"), "old").unwrap();
        let files = ["launcher/plan.json", "config/posture.json", "decisions/audit.jsonl", "decisions/2-b.json"];
        let tar = pack(|packer| files.iter().try_for_each(|name| packer.add_bytes(Path::new(name), b"new", 0o644)));
        sh(STORE, &[state], &tar.unwrap());
        for name in files {
            assert_eq!(fs::read_to_string(state.join(name)).unwrap(), "new", "{name}");
        }
        assert_eq!(fs::read_to_string(state.join("decisions/1-a.json")).unwrap(), "old");
        assert!(!state.join("launcher/unfinished").exists() && !state.join(".new").exists());
    }
}
