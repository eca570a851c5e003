//! Pushes that must be refused. The outside repository is unchanged after each.

use std::time::{Duration, Instant};

use bottle::Bottle;
use bottle::exec::engine::Exec;
use bottle::plan::Service;
use bottle::sidecars::audit::{AuditLine, AuditOutcome, AuditSource};

use super::{git_section, lab_with, launch, refs, ssh_upstream};
use bottle_testing::lab::{FORBIDDEN, Finished, Lab, OUTSIDE, docker, figure, sh};

/// Returns a text that gitleaks reports as a token. It is assembled here, so that no file of this repository contains
/// it.
pub(crate) fn secret() -> String {
    format!("gh{}_{}", 'p', "R7mZ2kQx9LwT4vB8nYc3HsJ6dFgA1uEoPiX5")
}

struct Case<'a> {
    lab: &'a Lab,
    bottle: &'a Bottle,
    repository: &'static str,
}

impl Case<'_> {
    fn clone_anew(&self) {
        let repository = self.repository;
        sh(self.bottle, &format!("rm -rf /tmp/case; git clone -q git@{OUTSIDE}:{repository}.git /tmp/case")).ok();
    }

    /// Runs a script in the clone of the repository. Its last command is the push.
    fn attempt(&self, script: &str) -> Finished {
        sh(self.bottle, &format!("set -e; cd /tmp/case; {script}"))
    }

    /// Asserts that a script's push is refused with `reason`, has no effect, and that the message does not contain the
    /// secret.
    fn refused(&self, what: &str, reason: &str, script: &str) {
        self.clone_anew();
        let before = (refs(self.lab, self.repository), self.mirror());
        let pushed = self.attempt(script);
        assert_ne!(pushed.code, 0, "{what} went through: {pushed:?}");
        let said = pushed.stderr.replace("remote: ", "").split_whitespace().collect::<Vec<_>>().join(" ");
        let reasoned = said.to_lowercase().contains(&reason.to_lowercase());
        assert!(
            said.contains("git-gate refused this push. The upstream received nothing.") && reasoned,
            "{what}: {}",
            pushed.stderr
        );
        // The agent's own git repeats ref names, so only lines of the remote count.
        let mut shown = pushed.stderr.lines().filter(|line| line.starts_with("remote:"));
        assert!(!shown.any(|line| line.contains(&secret())), "{what}: the secret is shown");
        assert_eq!((refs(self.lab, self.repository), self.mirror()), before, "{what}: something changed");
    }

    fn accepted(&self, script: &str) {
        self.clone_anew();
        self.attempt(script).ok();
    }

    /// Returns the refs of git-gate's mirror.
    fn mirror(&self) -> String {
        let container = self.bottle.names().container(Service::GitGate);
        let directory = format!("/mirrors/{}.git", self.repository);
        let trust = format!("safe.directory={directory}");
        docker(["exec", &container, "git", "-c", &trust, "--git-dir", &directory, "for-each-ref"]).stdout
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_forbidden_push_is_refused_and_leaves_the_remote_unchanged() {
    let (lab, key) = lab_with("refuse", "app,tagged,declines");
    lab.outside.as_git(
        "printf '#!/bin/sh\\necho the host has its own rules >&2\\nexit 1\\n' > declines.git/hooks/pre-receive; \
         chmod +x declines.git/hooks/pre-receive",
    );
    let stranger_key = bottle::deploy_keys::KeyPair::generate(|seed| {
        bottle::tls::RandomSource::fill(&mut bottle::tls::SystemRandom, seed)
    })
    .unwrap();
    let upstreams = [
        ssh_upstream(&lab, "app", &key, ", push: {branches: [main, \"agent/**\"]}"),
        ssh_upstream(&lab, "tagged", &key, ", push: {tags: true, branches: [\"**\", \"refs/notes/*\"]}"),
        ssh_upstream(&lab, "declines", &key, ""),
        format!(
            "    - {{name: stranger, url: \"git@{FORBIDDEN}:app.git\", identity_file: \"{}\", known_hosts: [\"{FORBIDDEN} {}\"]}}\n",
            key.display(),
            stranger_key.public(),
        ),
    ];
    let bottle = launch(&lab, &git_section(&upstreams.concat()));
    let on = |repository| Case { lab: &lab, bottle: &bottle, repository };
    let (app, tagged) = (on("app"), on("tagged"));
    let secret = secret();
    let found = "it contains what looks like a secret (rule `github-pat`";

    app.accepted("echo ok > ok; git add ok; git commit -qm ok; git push -q origin HEAD:agent/one");
    app.refused(
        "a secret in the tip",
        found,
        &format!("echo 'key = \"{secret}\"' > conf; git add conf; git commit -qm tip; git push -q origin HEAD:main"),
    );
    app.refused(
        "a secret in a commit that a later one removes",
        found,
        &format!(
            "echo '{secret}' > conf; git add conf; git commit -qm middle; git rm -q conf; git commit -qm gone; git push -q origin HEAD:main"
        ),
    );
    app.refused(
        "a secret in a merge's second parent",
        found,
        &format!(
            "git checkout -qb side; echo '{secret}' > conf; git add conf; git commit -qm side; git rm -q conf; git commit -qm gone; \
             git checkout -q main; echo main > main; git add main; git commit -qm main; git merge -q --no-ff -m merge side; \
             git push -q origin HEAD:main"
        ),
    );
    app.refused(
        "a secret in a file's name",
        found,
        &format!("echo x > '{secret}.txt'; git add .; git commit -qm name; git push -q origin HEAD:main"),
    );
    app.refused(
        "a secret in a commit's message",
        found,
        &format!("git commit -q --allow-empty -m 'use {secret}'; git push -q origin HEAD:main"),
    );
    app.refused(
        "a secret in a branch's name",
        found,
        &format!("git commit -q --allow-empty -m x; git push -q origin HEAD:'agent/{secret}'"),
    );
    tagged.refused(
        "a secret in a tag's message",
        found,
        &format!("git tag -a -m 'key {secret}' v1; git push -q origin v1"),
    );
    tagged.refused(
        "a secret in a note",
        found,
        &format!("git notes add -m '{secret}' HEAD; git push -q origin refs/notes/commits"),
    );
    app.refused(
        "a forced push",
        "branch `agent/one` would be rewritten",
        "git checkout -q agent/one; git commit -q --amend -m other; git push -q --force origin HEAD:agent/one",
    );
    app.refused("a deletion", "branch `agent/one` may not be deleted", "git push -q origin :agent/one");
    app.refused(
        "a workflow",
        "changes `.github/workflows/ci.yml`, which is protected",
        "mkdir -p .github/workflows; echo 'on: push' > .github/workflows/ci.yml; git add .; git commit -qm ci; git push -q origin HEAD:main",
    );
    app.refused(
        "a branch outside the pattern",
        "branch `release` is outside what may be pushed (main, agent/**)",
        "git commit -q --allow-empty -m x; git push -q origin HEAD:release",
    );
    app.refused("a tag", "tags may not be pushed", "git tag v1; git push -q origin v1");
    app.refused(
        "one bad ref among good ones",
        "branch `release` is outside",
        "git commit -q --allow-empty -m x; git push -q origin HEAD:main HEAD:agent/two HEAD:release",
    );
    on("declines").refused(
        "a push that the real remote declines",
        "the upstream declined: `main`",
        "echo x > x; git add x; git commit -qm x; git push -q origin HEAD:main",
    );

    let logins = |lab: &Lab| lab.outside.events().iter().filter(|event| event["kind"] == "ssh").count();
    let before = logins(&lab);
    let cloned = sh(&bottle, &format!("cd /tmp; git clone -q git@{FORBIDDEN}:app.git stranger"));
    assert_ne!(cloned.code, 0);
    assert!(cloned.stderr.contains("git-gate") && cloned.stderr.contains("Host key verification failed"), "{cloned:?}");
    assert_eq!(logins(&lab), before, "git-gate logged in at a host that it does not know");

    // Git daemon refuses a repository that no upstream has, before git-gate's hook.
    assert_ne!(sh(&bottle, "git ls-remote git://git-gate/none.git").code, 0);

    // A valid push still passes.
    app.accepted("echo last > last; git add last; git commit -qm last; git push -q origin HEAD:main");
    tagged.accepted("git tag -a -m fine v2; git push -q origin v2");
    assert!(refs(&lab, "tagged").contains("refs/tags/v2"));
    let state = lab.state();
    lab.close(&bottle);
    let log = std::fs::read_to_string(state.join("compose.log")).unwrap();
    assert!(log.contains("github-pat") && !log.contains(&secret), "the audit log names rules and no secret");
    let lines: Vec<AuditLine> =
        log.lines().filter_map(|line| serde_json::from_str(line.get(line.find('{')?..)?).ok()).collect();
    let has = |event, outcome| {
        lines
            .iter()
            .any(|line| line.sidecar == AuditSource::GitGate && line.event == event && line.outcome == Some(outcome))
    };
    for (event, outcome) in [
        ("fetch", AuditOutcome::Done),
        ("push", AuditOutcome::Done),
        ("push", AuditOutcome::Refused),
        ("lookup", AuditOutcome::Refused),
    ] {
        assert!(has(event, outcome), "{event} {outcome:?}: {lines:?}");
    }
    let why = lab.options().refusals(&lab.slug.parse().unwrap()).unwrap();
    assert!(why.iter().any(|refusal| refusal.tried == "git repository none"), "{why:?}");
}

/// Sends the pack that `bombs.py` makes for this case from inside the agent, and returns what it prints. `arguments` is a
/// time in seconds after which the client leaves, or empty.
fn bomb(bottle: &Bottle, case: &str, arguments: &str) -> serde_json::Value {
    bottle.write_file("/tmp/bombs.py", include_bytes!("bombs.py"), 0o644, (0, 0)).unwrap();
    let command = format!("exec python3 /tmp/bombs.py {case} git-gate {arguments}");
    let output = bottle.exec(Exec::new(["sh", "-c", &command]).with_timeout(Duration::from_secs(300))).unwrap();
    assert!(output.status.is_success(), "{case}: {output:?}");
    serde_json::from_str(&output.stdout.text()).unwrap()
}

/// Returns the command lines in git-gate's container that belong to a push.
fn push_processes(bottle: &Bottle) -> Vec<String> {
    let list = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    let listed = docker(["exec", &bottle.names().container(Service::GitGate), "sh", "-c", list]).stdout;
    let of_a_push = ["receive-pack", "pre-receive", "index-pack", "rev-list", "cat-file", "gitleaks"];
    let belongs = |line: &&str| of_a_push.iter().any(|word| line.contains(word)) && !line.contains("--enable=");
    listed.lines().filter(belongs).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a container engine"]
fn a_push_that_takes_much_more_than_it_sends_is_refused_at_a_limit() {
    let (lab, key) = lab_with("bombs", "app");
    let upstream = ssh_upstream(&lab, "app", &key, ", push: {branches: [\"**\"]}");
    let bottle = launch(&lab, &git_section(&upstream));
    let before = refs(&lab, "app");
    for (case, reason) in [
        ("empty_paths", "more than 250,000 paths"),
        ("shared_blob", "more than 250,000 paths"),
        ("two_to_the_40", "more than 250,000 paths"),
        ("back_and_forth", "more than 250,000 paths"),
        ("deep", "more than 128 directories"),
        ("too_deep_for_git", "exceeded maximum allowed tree depth"),
        ("wide", "more than 16,777,216 bytes of entries"),
        ("twice", "duplicateEntries"),
        ("many_refs", "updates 10,000 refs; the limit is 1,000"),
        ("deltas", "Out of memory"),
    ] {
        let told = bomb(&bottle, case, "");
        let said = told["said"].as_str().unwrap().replace('\n', " ");
        assert!(said.contains(reason), "{case}: {told}");
        // Git-gate needs two to ten seconds, and the machine may do other things.
        assert!(told["seconds"].as_f64().unwrap() < 60.0, "{case}: {told}");
        figure(format_args!("{case}: {} bytes, {} s", told["bytes"], told["seconds"]));
    }
    for (what, script, reason) in [
        ("a ref called HEAD", "git push -q origin HEAD:refs/heads/HEAD", "git reads this name as another object"),
        ("an option as a ref", "git push -q origin HEAD:refs/heads/-x", "is read as an option"),
        ("a command in a ref", "git push -q origin 'HEAD:refs/heads/a$(id)'", "which a shell interprets"),
        (
            "an option as a path",
            "echo > ./-rf; git add -A; git commit -qm x; git push -q origin HEAD:main",
            "read as an option",
        ),
        (
            "a command in a path",
            "echo > 'a;id'; git add -A; git commit -qm x; git push -q origin HEAD:main",
            "a shell interprets",
        ),
        (
            "a workflow in another case",
            "mkdir -p .GitHub/Workflows; echo > .GitHub/Workflows/ci.yml; git add -A; git commit -qm x; git push -q origin HEAD:main",
            "which is protected",
        ),
    ] {
        Case { lab: &lab, bottle: &bottle, repository: "app" }.refused(what, reason, script);
    }

    // The client leaves while git unpacks, and while the scanner runs. Nothing is left running.
    for case in ["many_deltas", "hits"] {
        bomb(&bottle, case, "5");
        let left = Instant::now();
        while !push_processes(&bottle).is_empty() {
            assert!(left.elapsed() < Duration::from_secs(20), "{case}: {:?}", push_processes(&bottle));
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    assert_eq!(refs(&lab, "app"), before);
    let ordinary = bomb(&bottle, "ordinary", "");
    assert!(ordinary["said"].as_str().unwrap().contains("ok refs/heads/agent/ordinary"), "{ordinary}");
    figure(format_args!("5,000 files, {} bytes: {} s", ordinary["bytes"], ordinary["seconds"]));
    lab.close(&bottle);
}
