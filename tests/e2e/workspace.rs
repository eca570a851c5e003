//! A workspace that the agent may write, and the git of the person who works in it.

mod below;
mod copy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bottle::{Bottle, Verify};
use bottle_testing::lab::{Finished, Lab, needs_runtime, run, sh};

/// Commands that a person runs after the agent.
const HOST_COMMANDS: &[&str] = &[
    "git status",
    "git diff",
    "git checkout -q -B again",
    "date +%s%N > mine && git add mine && git commit -q -m Mine",
    "git checkout -q -",
    "cd src && git status",
];

/// A directory on the host with the git of a person, who has a configuration of their own.
struct Workspace {
    path: PathBuf,
    home: PathBuf,
    runtime: String,
}

impl Workspace {
    fn new(lab: &Lab, script: &str) -> Self {
        let (path, home) = (lab.root.path().join("work"), lab.root.path().join("home"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&path).unwrap();
        fs::write(home.join(".gitconfig"), "[safe]\n\tdirectory = *\n[user]\n\tname = Me\n\temail = me@bottle.test\n")
            .unwrap();
        let this = Self { path, home, runtime: "runc".into() };
        let made = this.on_host(script);
        assert_eq!(made.code, 0, "{made:?}");
        this
    }

    /// Gives the files to the agent's user, as if that user had launched the bottle.
    fn give(&self) {
        run(Command::new("chown").args(["-R", "1000:1000"]).arg(&self.path));
    }

    fn on_host(&self, script: &str) -> Finished {
        run(Command::new("sh")
            .args(["-c", script])
            .current_dir(&self.path)
            .env("HOME", &self.home)
            .env("GIT_CEILING_DIRECTORIES", self.path.parent().unwrap()))
    }

    fn manifest(&self) -> String {
        format!("runtime: {}\nworkspace: {{mode: bind-rw, path: \"{}\"}}\n", self.runtime, self.path.display())
    }

    fn launch(&self, lab: &Lab) -> Bottle {
        self.give();
        let bottle = lab.launch(&self.manifest(), "");
        identify(&bottle);
        bottle
    }

    /// Launches the bottle in a process that is killed, and returns a handle to what is left.
    fn launch_and_kill(&self, lab: &Lab) -> Bottle {
        self.give();
        lab.launch_and_kill(&self.manifest(), &[]);
        let bottle = lab.options().attach(&lab.slug.parse().unwrap()).unwrap();
        identify(&bottle);
        bottle
    }

    /// Every command of the agent would write to the marker.
    fn assert_runs_nothing_of_the_agent(&self, what: &str) {
        for command in HOST_COMMANDS {
            let ended = self.on_host(command);
            let marker = self.path.join("marker");
            assert!(!marker.exists(), "{what}: `{command}` ran {}", fs::read_to_string(marker).unwrap());
            assert_eq!(ended.code, 0, "{what}: {command}: {ended:?}");
        }
    }
}

/// Gives the agent's git a name.
fn identify(bottle: &Bottle) {
    sh(bottle, "cd / && git config --global user.name Agent && git config --global user.email agent@bottle.test").ok();
}

/// Returns the shell command that writes a program of the agent, which leaves a marker in the workspace.
fn program(workspace: &Path, name: &str) -> String {
    let marker = workspace.join("marker").display().to_string();
    format!("printf '#!/bin/sh\\necho {name} >> {marker}\\n' > {name}; chmod +x {name}; ")
}

/// Effect of an attack on a directory that nothing protects.
enum Effect {
    /// A git on the host runs the program `evil`.
    Runs,
    /// This command of the host succeeds.
    Shows(&'static str),
}

use Effect::{Runs, Shows};

/// Attacks of an agent on the host's git and editor: a name, a script in the workspace `@`, and the effect.
const ATTACKS: &[(&str, &str, Effect)] = &[
    ("core.fsmonitor", "git config core.fsmonitor @/evil", Runs),
    ("a hook", "cp evil .git/hooks/post-checkout; cp evil .git/hooks/pre-commit", Runs),
    ("hooksPath", "mkdir -p hooks; cp evil hooks/pre-commit; git config core.hooksPath @/hooks", Runs),
    (
        "a filter",
        "echo '* filter=x' > .git/info/attributes; git config filter.x.clean @/evil; touch src/file; echo more >> src/file",
        Runs,
    ),
    ("another common directory", "echo ../copy > .git/commondir", Runs),
    (
        "another object store",
        "git init -q store; echo borrowed | git -C store hash-object -w --stdin; echo @/store/.git/objects > .git/objects/info/alternates",
        Shows("git cat-file -e $(echo borrowed | git hash-object --stdin)"),
    ),
    ("a moved directory", "mv .git gone && cp -r copy .git", Runs),
    ("a removed directory", "rm -rf .git; cp -r copy .git; true", Runs),
    ("a link", "mv .git gone2; ln -sfn copy .git", Runs),
    ("a file", "rm -rf .git; echo 'gitdir: copy' > .git", Runs),
    (
        "an exchange",
        "cp -r copy new; python3 -c \"import ctypes; ctypes.CDLL(None).renameat2(-100, b'new', -100, b'.git', 2)\"",
        Runs,
    ),
    (
        "a nested repository that the index names",
        "git init -q nested; git -C nested commit -q --allow-empty -m x; git -C nested config core.fsmonitor @/evil; git add nested",
        Runs,
    ),
    (
        "an editor's tasks",
        "mv .vscode away; rm -rf .vscode; mkdir -p .vscode; echo '{\"command\": \"@/evil\"}' > .vscode/tasks.json",
        Shows("grep -q evil .vscode/tasks.json"),
    ),
];

/// Returns the script that writes the program, and a repository that names it.
fn prepared(workspace: &Path) -> String {
    let place = workspace.display();
    format!("set -e; {} cp -r .git copy; git -C copy config core.fsmonitor {place}/evil", program(workspace, "evil"))
}

#[test]
#[ignore = "needs a container engine"]
fn each_attack_works_where_nothing_protects_git() {
    let lab = Lab::new("bindrw-open");
    for (what, attack, effect) in ATTACKS {
        let workspace = Workspace::new(&lab, &format!("rm -rf .git *; {REPOSITORY}"));
        let place = workspace.path.display().to_string();
        workspace.on_host(&prepared(&workspace.path)).ok();
        workspace.on_host(&attack.replace('@', &place));
        let works = match effect {
            Runs => HOST_COMMANDS.iter().any(|command| {
                workspace.on_host(command);
                workspace.path.join("marker").exists()
            }),
            Shows(command) => workspace.on_host(command).code == 0,
        };
        assert!(works, "{what}");
    }
}

const REPOSITORY: &str = "git init -q -b main . && mkdir src && echo text > src/file && echo x > Makefile && git add . && git commit -q -m Begin";

#[test]
#[ignore = "needs a container engine"]
fn git_on_the_host_runs_no_command_of_an_agent_that_writes_the_workspace() {
    attacked_under("runc");
}

#[test]
#[ignore = "needs a container engine with the runtime runsc"]
fn git_on_the_host_runs_no_command_of_an_agent_under_gvisor() {
    attacked_under("runsc");
}

fn attacked_under(runtime: &str) {
    needs_runtime(runtime);
    let lab = Lab::new(&format!("bindrw-{runtime}"));
    let mut workspace =
        Workspace::new(&lab, &format!("mkdir .vscode && echo '{{}}' > .vscode/settings.json && {REPOSITORY}"));
    workspace.runtime = runtime.into();
    let before = workspace.on_host("git rev-parse HEAD; git config --list --local; ls .git/hooks").stdout;
    let bottle = workspace.launch(&lab);
    let place = workspace.path.display().to_string();

    // The agent's own git works.
    let own = sh(
        &bottle,
        "git status --short && git log --format=%s && echo made > made && git add made && git commit -q -m Made && git branch other",
    );
    assert_eq!(own.ok(), "Begin");
    sh(&bottle, &prepared(&workspace.path)).ok();
    for (what, attack, effect) in ATTACKS {
        sh(&bottle, &attack.replace('@', &place));
        workspace.assert_runs_nothing_of_the_agent(what);
        if let Shows(command) = effect {
            assert_ne!(workspace.on_host(command).code, 0, "{what}");
        }
        assert_eq!(fs::read_to_string(workspace.path.join(".vscode/settings.json")).unwrap(), "{}\n", "{what}");
        assert!(!workspace.path.join(".vscode/tasks.json").exists(), "{what}");
    }
    assert_ne!(sh(&bottle, "mv .git gone").code, 0);
    assert_ne!(sh(&bottle, "mv .vscode away").code, 0);

    lab.close(&bottle);
    workspace.assert_runs_nothing_of_the_agent("after the end");
    let after = workspace.on_host("git rev-parse main; git config --list --local; ls .git/hooks").stdout;
    let settings = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(settings(&before), settings(&after));
}

#[test]
#[ignore = "needs a container engine"]
fn a_workspace_without_a_repository_gets_none() {
    let lab = Lab::new("bindrw-none");
    let workspace = Workspace::new(&lab, "mkdir src && echo text > src/file");
    for killed in [false, true] {
        let bottle = if killed { workspace.launch_and_kill(&lab) } else { workspace.launch(&lab) };
        let marker = workspace.path.join("marker").display().to_string();
        let script = format!(
            "{} git init -q . && git config core.fsmonitor {}/evil && git add -A && git commit -q -m Inside",
            program(&workspace.path, "evil"),
            workspace.path.display()
        );
        sh(&bottle, &script).ok();
        assert_ne!(sh(&bottle, "mv .git away").code, 0);
        let outside = workspace.on_host("git status; cd src && git status");
        assert!(outside.stderr.contains("not a git repository") && !Path::new(&marker).exists(), "{outside:?}");
        if killed {
            let report = lab.options().recover().unwrap();
            assert!(report.is_clean() && report.recovered.len() == 1, "{report:?}");
            lab.assert_nothing_left();
        } else {
            lab.close(&bottle);
        }
        assert!(!workspace.path.join(".git").exists());
        fs::remove_file(workspace.path.join("evil")).unwrap();
    }
}

#[test]
#[ignore = "needs a container engine"]
fn hooks_in_the_workspace_are_read_only_and_a_git_file_cannot_be_replaced() {
    let lab = Lab::new("bindrw-hooks");
    let hook = "printf '#!/bin/sh\\nexit 0\\n' > tools/hooks/pre-commit && chmod +x tools/hooks/pre-commit";
    let workspace = Workspace::new(
        &lab,
        &format!("{REPOSITORY} && mkdir -p tools/hooks && {hook} && git config core.hooksPath tools/hooks"),
    );
    let bottle = workspace.launch(&lab);
    let evil = program(&workspace.path, "evil");
    for attack in [
        format!("{evil} cp evil tools/hooks/pre-commit; cp evil tools/hooks/post-checkout"),
        "mv tools/hooks aside; mkdir -p tools/hooks; cp evil tools/hooks/pre-commit".to_owned(),
        "mv tools aside; mkdir -p tools/hooks; cp evil tools/hooks/pre-commit".to_owned(),
    ] {
        sh(&bottle, &attack);
        workspace.assert_runs_nothing_of_the_agent(&attack);
    }
    sh(&bottle, "echo new > tools/other").ok();
    lab.close(&bottle);

    // A linked worktree: its `.git` is a file.
    run(Command::new("mv").arg(&workspace.path).arg(lab.root.path().join("main")));
    let main = lab.root.path().join("main");
    let linked = run(Command::new("git")
        .args(["-c", "safe.directory=*", "worktree", "add", "-q", "-b", "linked"])
        .arg(&workspace.path)
        .current_dir(&main));
    assert_eq!(linked.code, 0, "{linked:?}");
    workspace.on_host("mkdir -p tools/hooks; git config core.hooksPath tools/hooks");
    let bottle = workspace.launch(&lab);
    let attack = format!(
        "{evil} git init -q copy; git -C copy config core.fsmonitor {}/evil; echo 'gitdir: copy/.git' > .git; mv .git x; \
         rm -f .git; cp -r copy/.git .git; true",
        workspace.path.display()
    );
    sh(&bottle, &attack);
    workspace.assert_runs_nothing_of_the_agent("a replaced `.git` file");
    lab.close(&bottle);
}

#[test]
#[ignore = "needs a container engine"]
fn a_repository_whose_git_cannot_be_protected_is_refused() {
    let lab = Lab::new("bindrw-refused");
    let module = "git init -q ../module && git -C ../module commit -q --allow-empty -m x && git -c protocol.file.allow=always submodule --quiet add \
                  ../module lib";
    for (problem, script) in [
        ("has the submodule `lib`, whose `.git` the agent could replace", module),
        ("has a `.git` that is neither a directory nor a file", "mv .git repo && ln -s repo .git"),
        ("where the agent could write", "mv .git repo && echo 'gitdir: repo' > .git"),
        ("takes commands from `config/git`", "git config include.path ../config/git"),
    ] {
        let workspace = Workspace::new(&lab, &format!("rm -rf .git * ../module; {REPOSITORY} && {script}"));
        workspace.give();
        let error = lab.options().launch(lab.plan(&workspace.manifest(), "")).map(drop).unwrap_err();
        let text = bottle::report(&error).to_string();
        assert!(text.contains(problem) && text.contains("`mode: copy` works with any"), "{problem}: {text}");
        lab.assert_nothing_left();
    }
}

/// A program of the host that replaces a protected file takes its protection away. The next verification finds that, and the
/// next start follows no link that the agent left there.
#[test]
#[ignore = "needs a container engine"]
fn a_protected_file_that_the_host_replaced_is_found() {
    let lab = Lab::new("replaced");
    let workspace =
        Workspace::new(&lab, "git init -q -b main . && echo one > .envrc && git add -A && git commit -q -m Begin");
    let secret = lab.root.path().join("elsewhere");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join(".envrc"), "export OF_THE_HOST=1\n").unwrap();
    let bottle = workspace.launch(&lab);
    assert!(bottle.verify(Verify::Quick).unwrap().holds());
    assert_ne!(sh(&bottle, "echo evil > .envrc").code, 0);

    let replaced = workspace.on_host("echo two > .envrc.new && chown 1000:1000 .envrc.new && mv .envrc.new .envrc");
    assert_eq!(replaced.code, 0, "{replaced:?}");
    let found = bottle.verify(Verify::Quick).unwrap();
    let told: Vec<String> = found.failed().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].starts_with("mounts, from inside: nothing is mounted at `/"), "{told:?}");
    assert!(told[0].ends_with("/.envrc`; planned: a mount"), "{told:?}");

    let link = format!("ln -sf {}/.envrc .envrc", secret.display());
    sh(&bottle, &link).ok();
    bottle.stop().unwrap();
    let refused = bottle::report(&bottle.start().unwrap_err()).to_string();
    assert!(refused.contains("work/.envrc` was protected at the launch and is a link now"), "{refused}");
    assert_eq!(workspace.on_host("rm .envrc && echo three > .envrc").code, 0);
    bottle.start().unwrap();
    assert!(bottle.verify(Verify::Quick).unwrap().holds());
    assert_ne!(sh(&bottle, "echo evil > .envrc").code, 0);
    lab.close(&bottle);
}
