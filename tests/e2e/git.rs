//! Git-gate: fetch and push, refusals, and keys.

pub(crate) mod deploy_keys;
pub(crate) mod refusals;
mod throughput;

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bottle::deploy_keys::KeyPair;
use bottle::exec::Stdin;
use bottle::exec::engine::Exec;
use bottle::plan::Service;
use bottle::{Bottle, Bottles, Host};

use bottle_testing::lab::{Lab, OUTSIDE, docker, engine, host, run, sh};

/// The token of the https git host, and the variable that holds it.
pub(crate) const HTTPS_TOKEN: &str = "https-token-that-the-agent-never-sees";
pub(crate) const HTTPS_VARIABLE: &str = "E2E_GIT_TOKEN";

/// Returns a lab whose outside host has these repositories and accepts one key, and the path of that key.
pub(crate) fn lab_with(test: &str, repositories: &str) -> (Lab, PathBuf) {
    let repositories = format!("OUTSIDE_REPOS={repositories}");
    let token = format!("OUTSIDE_GIT_TOKEN={HTTPS_TOKEN}");
    let lab = Lab::with_outside(test, &["--env", &repositories, "--env", &token]);
    let key = identity(&lab);
    (lab, key)
}

/// Creates a key of the host's user that the outside host accepts.
fn identity(lab: &Lab) -> PathBuf {
    let pair = KeyPair::generate(|seed| bottle::tls::RandomSource::fill(&mut bottle::tls::SystemRandom, seed)).unwrap();
    let path = lab.root.path().join("identity");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, pair.private().as_bytes()).unwrap();
    lab.outside.authorize(&[pair.public().to_owned()]);
    path
}

/// Returns the outside host's public key, as a `known_hosts` line for this name.
pub(crate) fn known_host(lab: &Lab, name: &str) -> String {
    let lines = lab.outside.read("/data/known_hosts");
    lines.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned()
}

/// Returns an ssh upstream for a manifest, with additional lines.
pub(crate) fn ssh_upstream(lab: &Lab, name: &str, key: &Path, more: &str) -> String {
    format!(
        "    - {{name: {name}, url: \"git@{OUTSIDE}:{name}.git\", identity_file: \"{}\", known_hosts: [\"{}\"]{more}}}\n",
        key.display(),
        known_host(lab, OUTSIDE),
    )
}

pub(crate) fn git_section(upstreams: &str) -> String {
    format!("git:\n  user: {{name: The Agent, email: agent@bottle.test}}\n  upstreams:\n{upstreams}")
}

/// Returns the host with the https token in its environment.
fn host_with_token() -> Host {
    let host = host();
    let token = (OsString::from(HTTPS_VARIABLE), OsString::from(HTTPS_TOKEN));
    Host::new(host.facts.clone(), host.environment().chain([token]).collect::<Vec<_>>())
}

fn options(lab: &Lab) -> Bottles {
    Bottles::new(engine(), host_with_token()).with_state_root(lab.state_root())
}

fn launch(lab: &Lab, manifest: &str) -> Bottle {
    let bottle = options(lab).launch(lab.plan(manifest, "")).unwrap_or_else(|error| panic!("{error}"));
    lab.outside.connect(&bottle.names().egress_network());
    bottle
}

/// Returns every ref of an outside repository with its object.
pub(crate) fn refs(lab: &Lab, repository: &str) -> String {
    lab.outside.as_git(&format!("git -C {repository}.git for-each-ref --format='%(refname) %(objectname)'"))
}

#[test]
#[ignore = "needs a container engine"]
fn the_agent_uses_its_remotes_as_usual_and_holds_no_key() {
    let (lab, key) = lab_with("git", "app,web,second");
    // A workspace that was cloned before the bottle was launched.
    let workspace = lab.root.path().join("work");
    let seed = format!(
        "git init -q -b main {0} && cd {0} && \
         git remote add origin git@{OUTSIDE}:app.git && git remote add web https://{OUTSIDE}/web.git && \
         git remote set-url --push web https://{OUTSIDE}/web && echo text > file && git add file && git -c user.name=Seed -c user.email=seed@bottle.test commit -qm Seed",
        workspace.display()
    );
    assert_eq!(run(std::process::Command::new("sh").args(["-c", &seed])).code, 0);
    let before = std::fs::metadata(&key).unwrap();
    let manifest = format!(
        "workspace: {{path: \"{}\"}}\n{}",
        workspace.display(),
        git_section(&format!(
            "{}{}    - {{name: web, url: \"https://{OUTSIDE}/web.git\", token: {HTTPS_VARIABLE}}}\n",
            ssh_upstream(&lab, "app", &key, ""),
            ssh_upstream(&lab, "second", &key, ""),
        ))
    );
    let bottle = launch(&lab, &manifest);

    // The remotes are unchanged. Only the rewritten URLs differ.
    let remotes = "git config --get-regexp '^remote\\..*url$'";
    assert_eq!(
        sh(&bottle, remotes).ok(),
        format!(
            "remote.origin.url git@{OUTSIDE}:app.git\nremote.web.url https://{OUTSIDE}/web.git\nremote.web.pushurl https://{OUTSIDE}/web"
        )
    );
    for (remote, repository) in [("origin", "app"), ("web", "web")] {
        sh(
            &bottle,
            &format!(
                "set -e; git fetch -q {remote}; git checkout -q -B work {remote}/main; echo {repository} > made; git add made; \
                 git commit -qm 'Made by the agent'; git push -q {remote} HEAD:main"
            ),
        )
        .ok();
        let inside = sh(&bottle, "git log --format='%H %an <%ae> %s'").stdout;
        let outside = lab.outside.as_git(&format!("git -C {repository}.git log --format='%H %an <%ae> %s' main"));
        assert_eq!(inside, outside);
        assert!(outside.contains("The Agent <agent@bottle.test> Made by the agent"), "{outside}");
        // The agent sees commits that others push.
        let commit = format!(
            "cd {repository}.git; new=$(git -c user.name=Other -c user.email=o@outside.test commit-tree -p main -m Other main^{{tree}}); \
             git update-ref refs/heads/main $new; echo $new"
        );
        let new = lab.outside.as_git(&commit);
        let fetched = sh(&bottle, &format!("git fetch -q {remote} && git rev-parse {remote}/main"));
        assert_eq!(fetched.ok(), new.trim());
    }
    // Another upstream of the plan, in another spelling of its URL.
    let cloned = sh(
        &bottle,
        &format!("cd /tmp && git clone -q https://{OUTSIDE}/second second && git -C second log --format=%s"),
    );
    assert_eq!(cloned.ok(), "Begin");
    // A repository that is not an upstream cannot be reached over ssh.
    assert_ne!(sh(&bottle, &format!("cd /tmp && git clone -q git@{OUTSIDE}:demo.git")).code, 0);

    assert_no_secret_inside(&bottle, &key);
    let after = std::fs::metadata(&key).unwrap();
    assert_eq!(
        (before.mode(), before.uid(), before.gid(), before.mtime(), before.ino()),
        (after.mode(), after.uid(), after.gid(), after.mtime(), after.ino())
    );
    let state = lab.state();
    lab.close(&bottle);
    let private = std::fs::read_to_string(&key).unwrap();
    for file in ["compose.log", "docker-compose.yml", "metadata.json"] {
        let text = std::fs::read_to_string(state.join(file)).unwrap();
        assert!(
            !text.contains(HTTPS_TOKEN) && !text.contains(private.lines().nth(2).unwrap()),
            "{file} holds a secret"
        );
    }
    let log = std::fs::read_to_string(state.join("compose.log")).unwrap();
    assert_eq!(log.matches("\"event\": \"push\"").count() + log.matches("\"event\":\"push\"").count(), 2, "{log}");
}

/// Searches for the private key and the token in the agent's files, and in every environment and command line that
/// agent or root can read. It must find only a file with the same text that was put there on purpose.
fn assert_no_secret_inside(bottle: &Bottle, key: &Path) {
    let private = std::fs::read_to_string(key).unwrap();
    // Lines of the key without the first one, which is the same for every key.
    let lines: Vec<&str> = private.lines().filter(|line| !line.starts_with("---")).skip(1).collect();
    let needles = format!("{}\n{HTTPS_TOKEN}\nPRIVATE KEY-----\n", lines.join("\n"));
    bottle.write_file("/tmp/planted", needles.as_bytes(), 0o644, (0, 0)).unwrap();
    for user in ["agent", "0"] {
        // The search texts are passed on standard input. On the command line they would match themselves.
        let script = "grep -rlsF --devices=skip -f - /etc /home /opt /root /run /srv /tmp /var /workspace /dev/shm; \
                      true";
        let found = search(bottle, user, script, &needles);
        let found: Vec<&str> = found.lines().filter(|path| !is_part_of_the_image(path)).collect();
        assert_eq!(found, ["/tmp/planted"], "as {user}");
        let script = "cat > /dev/null; echo looked; grep -lsF -e '' /proc/self/environ; true";
        assert!(search(bottle, user, script, "").starts_with("looked\n/proc/self/environ"));
        let processes = search(
            bottle,
            user,
            "grep -lsaF -f - /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo; true",
            &needles,
        );
        assert_eq!(processes, "", "as {user}");
    }
    let mounts = docker(["inspect", "--format", "{{json .Mounts}}", &bottle.names().container(Service::Agent)]).stdout;
    assert!(!mounts.contains("git-gate") && !mounts.contains("identity"), "{mounts}");
}

/// Returns true for test data and documentation of Debian and npm packages, which contain example keys.
fn is_part_of_the_image(path: &str) -> bool {
    path.starts_with("/usr/") || path.starts_with("/opt/")
}

fn search(bottle: &Bottle, user: &str, script: &str, needles: &str) -> String {
    let exec = Exec::new(["sh", "-c", script])
        .with_user(user)
        .with_stdin(Stdin::Bytes(needles.as_bytes().to_vec()))
        .with_timeout(std::time::Duration::from_secs(300));
    bottle.exec(exec).unwrap().stdout.text()
}
