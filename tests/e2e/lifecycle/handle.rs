//! The methods of a handle, for a launched and for an attached bottle, under runc and runsc.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bottle::exec::engine::Exec;
use bottle::plan::Slug;
use bottle::{Bottle, Bottles, Verify};

use super::{Place, SMALL, options, plan, prefix};
use bottle_testing::lab::{docker, engine, example, figure, needs_runtime, run, sh};

pub(super) fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

/// Copies files and directories in and out, and checks owners and modes as the agent and as root.
fn copies(bottle: &Bottle, place: &Place) {
    let tree = place.root.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/run"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(tree.join("sub/run"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(tree.join("sub"), fs::Permissions::from_mode(0o711)).unwrap();
    symlink("sub/run", tree.join("link")).unwrap();
    let agent = sh(bottle, "id -u; id -g");
    let ids: Vec<u32> = agent.ok().lines().map(|line| line.parse().unwrap()).collect();
    bottle.cp_in(&tree, "/workspace", Some((ids[0], ids[1]))).unwrap();
    let seen = sh(
        bottle,
        "cd /workspace/tree && ./link && stat -c '%U %a' sub/run sub && readlink link && echo new > sub/more",
    );
    assert_eq!(seen.ok(), "ran\nagent 750\nagent 711\nsub/run");

    // Without an owner, everything belongs to the agent, including directories.
    bottle.cp_in(&tree, "/home/agent", None).unwrap();
    let seen = sh(bottle, "cd ~/tree && stat -c '%U:%G %a' . sub sub/run && echo new > sub/more && rm -r ~/tree");
    assert!(
        seen.ok().lines().all(|line| line.starts_with("agent:agent ")) && seen.stdout.lines().count() == 3,
        "{seen:?}"
    );

    bottle.write_file("/home/agent/note", b"for the agent\n", 0o600, (ids[0], ids[1])).unwrap();
    assert_eq!(sh(bottle, "cat ~/note; stat -c '%U %a' ~/note").ok(), "for the agent\nagent 600");
    bottle.write_file("/etc/note", b"from root\n", 0o644, (0, 0)).unwrap();
    assert_eq!(
        sh(bottle, "cat /etc/note; stat -c '%U %a' /etc/note; ! echo x 2>/dev/null > /etc/note").ok(),
        "from root\nroot 644"
    );

    let out = place.root.path().join("out");
    fs::create_dir(&out).unwrap();
    bottle.cp_out("/workspace/tree", &out).unwrap();
    bottle.cp_out("/home/agent/note", &out).unwrap();
    assert_eq!(fs::read_to_string(out.join("tree/sub/more")).unwrap(), "new\n");
    assert_eq!(fs::read_link(out.join("tree/link")).unwrap().to_str(), Some("sub/run"));
    assert_eq!(fs::metadata(out.join("tree/sub/run")).unwrap().permissions().mode() & 0o777, 0o750);
    assert_eq!(fs::read_to_string(out.join("note")).unwrap(), "for the agent\n");
    assert!(bottle.cp_out("/nowhere", &out).unwrap_err().to_string().contains("nowhere"));
    assert!(bottle.cp_in(&tree, "/nowhere", None).unwrap_err().to_string().contains("nowhere"));

    // Several copies at the same time.
    let big = place.root.path().join("big");
    fs::write(&big, vec![b'x'; 20 << 20]).unwrap();
    bottle.cp_in(&big, "/tmp", Some((ids[0], ids[1]))).unwrap();
    assert_eq!(sh(bottle, "wc -c < /tmp/big").ok(), (20 << 20).to_string());
    bottle.cp_out("/tmp/big", &out).unwrap();
    assert_eq!(fs::metadata(out.join("big")).unwrap().len(), 20 << 20);
}

/// Checks prompt, skills with their modes, git identity and authority, as the agent.
fn provisioned(bottle: &Bottle) {
    let seen = sh(
        bottle,
        "cat ~/.bottle/prompt.md; cat ~/.bottle/skills/greet/SKILL.md; ~/.bottle/skills/greet/run; \
         stat -c '%U %a' ~/.bottle/skills/greet/run ~/.bottle/prompt.md; git config --global user.name",
    );
    assert_eq!(seen.ok(), "Be brief.\nhow to greet\nhello\nagent 750\nagent 600\ntester");
    sh(
        bottle,
        "openssl version >/dev/null 2>&1 || true; grep -q BEGIN \"$SSL_CERT_FILE\" && test -r \"$NODE_EXTRA_CA_CERTS\"",
    )
    .ok();
}

fn life_under(runtime: &str) {
    needs_runtime(runtime);
    let place = Place::new();
    let name = format!("handle-{runtime}");
    let skill = place.root.path().join("greet");
    fs::create_dir(&skill).unwrap();
    fs::write(skill.join("SKILL.md"), "how to greet\n").unwrap();
    fs::write(skill.join("run"), "#!/bin/sh\necho hello\n").unwrap();
    fs::set_permissions(skill.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
    let mut plan = plan(&format!("runtime: {runtime}\n{SMALL}"), &name);
    plan.agent.skills = vec![skill];
    plan.agent.prompt = Some(bottle::plan::plan::PromptSource::Text("Be brief.\n".into()));
    let agent = bottle::agent_command(&plan);
    let bottle = options(engine(), &place.state()).launch(plan).unwrap_or_else(|error| panic!("{error}"));
    provisioned(&bottle);
    copies(&bottle, &place);

    // An attached handle has the same data as the first one, from the journal and from the labels alone.
    let site = place.site();
    let metadata = place.state().join(&name).join("metadata.json");
    let journal = fs::read(&metadata).unwrap();
    for has_journal in [true, false] {
        if !has_journal {
            fs::remove_file(&metadata).unwrap();
        }
        let attached = site.attach(&slug(&name)).unwrap();
        let mut handle = bottle.handle().clone();
        if !has_journal {
            // No label says which protections to expect, and in which order to start.
            assert!(handle.expected.take().is_some() && attached.verify(Verify::Quick).is_err());
            assert!(handle.restart.take().is_some() && attached.give_credentials().is_err());
        }
        assert_eq!(attached.handle(), &handle);
        assert_eq!(attached.agent().unwrap().argv, agent.argv);
        let output = attached.exec(attached.agent().unwrap()).unwrap();
        assert_eq!(output.stdout.text(), "the agent\nagent\n/workspace\n");
    }
    fs::write(&metadata, journal).unwrap();
    bottle.close().unwrap();
    place.nothing_is_left(&name);
    let gone = site.attach(&slug(&name)).unwrap_err().to_string();
    assert!(gone.contains("neither its journal nor its container is there"), "{gone}");
}

#[test]
#[ignore = "needs a container engine"]
fn every_method_of_a_handle_works() {
    life_under("runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn every_method_of_a_handle_works_under_gvisor() {
    life_under("runsc");
}

/// Returns the command of the example `bottles`, for the place's bottles.
pub(super) fn tool(place: &Place) -> Command {
    let mut tool = example("bottles");
    tool.arg("--state-dir").arg(place.state()).args(["--prefix", prefix().as_str()]);
    tool
}

#[test]
#[ignore = "needs a container engine"]
fn the_tool_lists_uses_and_removes_a_bottle_of_another_process() {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(SMALL, "tool")).unwrap();
    bottle.keep().unwrap();
    let listed = run(tool(&place).arg("list"));
    assert!(listed.ok().contains("tool") && listed.stdout.contains("kept"), "{listed:?}");
    let json: serde_json::Value = serde_json::from_str(run(tool(&place).args(["list", "--json"])).ok()).unwrap();
    assert_eq!(json["tool"]["containers"].as_array().unwrap().len(), 4);

    assert_eq!(run(tool(&place).args(["exec", "tool"])).ok(), "the agent\nagent\n/workspace");
    let status = run(tool(&place).args(["exec", "tool", "--", "sh", "-c", "echo out; echo err >&2; exit 9"]));
    assert_eq!((status.code, status.stdout.as_str(), status.stderr.as_str()), (9, "out\n", "err\n"));
    let file = place.root.path().join("file");
    fs::write(&file, "copied\n").unwrap();
    run(tool(&place).arg("cp").arg(&file).arg("tool:/workspace")).ok();
    let back = place.root.path().join("back");
    fs::create_dir(&back).unwrap();
    run(tool(&place).args(["cp", "tool:/workspace/file"]).arg(&back)).ok();
    assert_eq!(fs::read_to_string(back.join("file")).unwrap(), "copied\n");
    let refused = run(tool(&place).args(["cp", "a", "b"]));
    assert!(refused.code == 1 && refused.stderr.contains("SLUG:PATH"), "{refused:?}");

    let logs = run(tool(&place).args(["logs", "tool"]));
    assert!(logs.ok().contains("pipelock") && logs.stdout.contains("startup"), "{logs:?}");
    // Following ends with the bottle.
    let follower = tool(&place).args(["logs", "--follow", "tool"]).stdout(Stdio::piped()).spawn().unwrap();
    let none = {
        let _alone = super::alone();
        run(tool(&place).arg("recover"))
    };
    assert!(none.ok().contains("tool: left alone"), "{none:?}");
    let started = Instant::now();
    run(tool(&place).args(["down", "tool"])).ok();
    let log = follower.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(log.status.success() && String::from_utf8_lossy(&log.stdout).contains("startup"), "{log:?}");
    place.nothing_is_left("tool");
    let saved = run(tool(&place).args(["logs", "tool"]));
    assert!(saved.ok().contains("startup"), "{saved:?}");
    let gone = run(tool(&place).args(["down", "tool"]));
    assert!(gone.code == 1 && gone.stderr.contains("find bottle `tool`"), "{gone:?}");
    assert!(!run(tool(&place).args(["list", "--json"])).ok().contains("\"tool\""));
}

#[test]
#[ignore = "needs a container engine"]
fn the_tool_ends_when_its_reader_leaves_and_names_what_it_does_not_copy() {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(SMALL, "reader")).unwrap();
    bottle.keep().unwrap();
    // The bottle's services print nothing more: only the missing reader can end the following.
    for args in [&["exec", "reader", "--", "yes"][..], &["logs", "--follow", "reader"]] {
        let mut child = tool(&place).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let left = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if left.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{args:?} is still running after {line:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(141), "{args:?}");
        figure(format_args!("{} ends {:?} after its reader has left", args[0], left.elapsed()));
    }
    assert!(!sh(&bottle, "cat /proc/[0-9]*/comm").ok().contains("yes"));

    let tree = place.root.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "copied\n").unwrap();
    run(Command::new("mkfifo").arg(tree.join("pipe"))).ok();
    let copied = run(tool(&place).arg("cp").arg(&tree).arg("reader:/workspace"));
    let warning = "warning: not copied, since only files, directories and links are: `";
    assert!(copied.code == 0 && copied.stderr.contains(warning), "{copied:?}");
    assert!(copied.stderr.contains("/tree/pipe`"), "{copied:?}");
    sh(&bottle, "mkfifo /workspace/tree/other").ok();
    let back = place.root.path().join("back");
    fs::create_dir(&back).unwrap();
    let copied = run(tool(&place).args(["cp", "reader:/workspace/tree"]).arg(&back));
    assert!(copied.code == 0 && copied.stderr.contains(warning), "{copied:?}");
    assert!(copied.stderr.contains("tree/other`"), "{copied:?}");
    assert_eq!(fs::read_to_string(back.join("tree/file")).unwrap(), "copied\n");
    let missing = place.root.path().join("no/such");
    let refused = run(tool(&place).args(["cp", "reader:/workspace/tree"]).arg(&missing));
    let expected = format!("error: failed to copy `{}`: No such file or directory", missing.display());
    assert!(refused.code == 1 && refused.stderr.contains(&expected) && !refused.stderr.contains(".tmp"), "{refused:?}");

    // An unknown slug does not keep the other bottles up.
    let down = run(tool(&place).args(["down", "nosuch", "reader", "none"]));
    assert_eq!(down.code, 1, "{down:?}");
    for missing in ["nosuch", "none"] {
        assert!(down.stderr.contains(&format!("error: failed to find bottle `{missing}`")), "{down:?}");
    }
    place.nothing_is_left("reader");
}

#[test]
#[ignore = "needs a container engine"]
fn a_bottle_whose_state_is_lost_is_listed_followed_and_removed_by_its_labels() {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(super::FULL, "lost")).unwrap();
    bottle.keep().unwrap();
    fs::remove_dir_all(place.state()).unwrap();
    let site: Bottles = place.site();
    let listed = site.list().unwrap();
    let lost = &listed[&slug("lost")];
    assert_eq!((lost.status, lost.agent.as_deref(), lost.containers.len()), (None, Some("tester"), 7));
    assert!(lost.is_owned, "this process made it, and lives");
    let attached = site.attach(&slug("lost")).unwrap();
    assert_eq!(attached.exec(Exec::new(["id", "-un"])).unwrap().stdout.text(), "agent\n");
    let logs = run(tool(&place).args(["logs", "lost"]));
    assert!(logs.ok().contains("startup"), "{logs:?}");
    // Its owner is alive, so recovery leaves it alone.
    let _alone = super::alone();
    assert!(site.recover().unwrap().live.contains(&slug("lost")));
    assert!(docker(["ps", "--format", "{{.Names}}"]).stdout.contains("bottle-life-lost"));
    assert!(site.down(&slug("lost")).unwrap().is_clean());
    place.nothing_is_left("lost");
}

#[test]
#[ignore = "needs a container engine"]
fn recovery_under_another_state_root_leaves_a_kept_bottle_alone_and_says_why() {
    let place = Place::new();
    let bottle = options(engine(), &place.state()).launch(plan(SMALL, "theirs")).unwrap();
    let inspect = |what: &[&str]| docker(what.iter().copied().chain(["--format", "{{json .Labels}}"])).stdout;
    let labels = inspect(&["network", "inspect", &bottle.names().internal_network()]);
    assert!(labels.contains(&format!("{}.state", prefix())), "{labels}");
    bottle.keep().unwrap();
    // Simulates an owner from before a restart of the machine.
    let metadata = place.state().join("theirs/metadata.json");
    let mut journal: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    journal["owner"] = "999999:1:-".into();
    fs::write(&metadata, journal.to_string()).unwrap();

    let other = place.root.path().join("other");
    let other_tool = || {
        let mut tool = example("bottles");
        tool.arg("--state-dir").arg(&other).args(["--prefix", prefix().as_str()]);
        tool
    };
    let recovered = {
        let _alone = super::alone();
        run(other_tool().arg("recover"))
    };
    assert!(recovered.ok().contains("theirs: left alone, it belongs to another state root"), "{recovered:?}");
    assert!(!run(other_tool().args(["list", "--json"])).ok().contains("theirs"));
    for action in [&["down", "theirs"][..], &["exec", "theirs", "--", "true"]] {
        let refused = run(other_tool().args(action));
        assert!(refused.code == 1 && refused.stderr.contains("another state root"), "{refused:?}");
        assert!(refused.stderr.contains(&*place.state().join("theirs").to_string_lossy()), "{refused:?}");
    }
    // Another spelling of the root's path is the same root, also by labels.
    fs::remove_file(&metadata).unwrap();
    symlink(place.state(), place.root.path().join("link")).unwrap();
    let site = super::site_at(&place.root.path().join("link"));
    assert!(site.list().unwrap().contains_key(&slug("theirs")));
    assert!(site.down(&slug("theirs")).unwrap().is_clean());
    place.nothing_is_left("theirs");
}
