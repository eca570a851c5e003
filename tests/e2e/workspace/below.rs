//! Repositories below a workspace, programs in it that the host's git starts, and configurations that others include.

use bottle::Host;
use bottle_testing::lab::{Lab, host, sh};

use super::Effect::{Runs, Shows};
use super::{Effect, Workspace, identify, prepared};

/// A workspace of a person whose own configuration names programs, hooks and files in it. `@` is its path.
const SETUP: &str = "set -e
git init -q -b main .
mkdir -p src tools conf/hooks app/.vscode
printf '#!/bin/sh\\ncat\\n' > tools/clean
printf '#!/bin/sh\\nexit 0\\n' > tools/diff
cp tools/diff tools/alias
chmod +x tools/*
printf '[include]\\n\\tpath = more\\n' > conf/included
printf '[core]\\n\\thooksPath = @/conf/hooks\\n' > conf/more
echo none > conf/hooks/readme
git config filter.x.clean tools/clean
git config --global diff.external @/tools/diff
git config --global alias.st '!@/tools/alias'
git config --global include.path @/conf/included
echo '*.txt filter=x' > .gitattributes
printf '/sub\\n/wt\\n/store\\n/copy\\n' > .gitignore
echo text > src/a.txt; echo x > Makefile; echo '{}' > app/.vscode/tasks.json; echo x > app/.envrc
git add -A && git commit -q -m Begin
git init -q -b main sub && git -C sub commit -q --allow-empty -m Sub
git worktree add -q wt
git init -q --bare store
";

/// Attacks as in [`super::ATTACKS`], each with the command of the host that would run the program.
const ATTACKS: &[(&str, &str, &str, Effect)] = &[
    ("a filter's program", "cp evil tools/clean; touch src/a.txt", "git status", Runs),
    (
        "a directory with a filter's program",
        "mv tools gone; mkdir -p tools; cp evil tools/clean; touch src/a.txt",
        "git status",
        Runs,
    ),
    ("a program for differences", "cp evil tools/diff; echo c >> Makefile", "git diff", Runs),
    ("an alias's program", "cp evil tools/alias", "git st", Runs),
    ("an included configuration", "printf '[core]\\n\\tfsmonitor = @/evil\\n' > conf/included", "git status", Runs),
    (
        "a configuration that an included one includes",
        "rm -f conf/more; printf '[core]\\n\\tfsmonitor = @/evil\\n' > conf/more",
        "git status",
        Runs,
    ),
    ("hooks of an included configuration", "cp evil conf/hooks/post-checkout", "git checkout -q -B again", Runs),
    ("a nested repository's configuration", "git -C sub config core.fsmonitor @/evil", "cd sub; git status", Runs),
    ("a nested repository's place", "mv sub/.git sub/gone; cp -r copy sub/.git", "cd sub; git status", Runs),
    ("a nested repository's directory", "mv sub away; mkdir -p sub; cp -r copy sub/.git", "cd sub; git status", Runs),
    ("a nested repository's common directory", "echo ../../copy > sub/.git/commondir", "cd sub; git status", Runs),
    ("a linked worktree's file", "echo 'gitdir: ../copy' > wt/.git", "cd wt; git status", Runs),
    ("a linked worktree's repository", "rm -f wt/.git; cp -r copy wt/.git", "cd wt; git status", Runs),
    (
        "a bare repository's configuration",
        "printf '[alias]\\n\\tx = !@/evil\\n' >> store/config",
        "git -C store x",
        Runs,
    ),
    (
        "an editor's tasks below the root",
        "mv app/.vscode app/gone; mkdir -p app/.vscode; echo evil > app/.vscode/tasks.json",
        "true",
        Shows("grep -q evil app/.vscode/tasks.json"),
    ),
    (
        "a shell's file below the root",
        "rm -f app/.envrc; echo evil > app/.envrc",
        "true",
        Shows("grep -q evil app/.envrc"),
    ),
];

fn workspace(lab: &Lab) -> Workspace {
    let place = lab.root.path().join("work");
    let _ = std::fs::remove_dir_all(&place);
    Workspace::new(lab, &SETUP.replace('@', &place.display().to_string()))
}

#[test]
#[ignore = "needs a container engine"]
fn each_attack_below_the_root_works_where_nothing_protects_it() {
    let lab = Lab::new("below-open");
    for (what, attack, command, effect) in ATTACKS {
        let workspace = workspace(&lab);
        let place = workspace.path.display().to_string();
        workspace.on_host(&prepared(&workspace.path)).ok();
        workspace.on_host(&attack.replace('@', &place));
        let ended = workspace.on_host(command);
        let works = match effect {
            Runs => workspace.path.join("marker").exists(),
            Shows(command) => workspace.on_host(command).code == 0,
        };
        assert!(works, "{what}: {ended:?}");
    }
}

#[test]
#[ignore = "needs a container engine"]
fn git_on_the_host_runs_nothing_of_an_agent_that_is_below_the_root_or_named_by_a_configuration() {
    let lab = Lab::new("below");
    let workspace = workspace(&lab);
    workspace.give();
    let own = host();
    let mut facts = own.facts.clone();
    facts.home.clone_from(&workspace.home);
    let environment = own.environment().filter(|(name, _)| name != "XDG_CONFIG_HOME" && name != "GIT_CONFIG_GLOBAL");
    let person = Host::new(facts, environment.collect::<Vec<_>>());
    let bottle = lab.options().with_host(person).launch(lab.plan(&workspace.manifest(), "")).unwrap();
    lab.outside.connect(&bottle.names().egress_network());
    identify(&bottle);
    let place = workspace.path.display().to_string();

    // What an agent does in such a workspace works.
    let own = "git status --short && echo made > src/made && git add src/made && git commit -q -m Made && git -C sub log --format=%s";
    assert_eq!(sh(&bottle, own).ok(), "Sub");
    sh(&bottle, &prepared(&workspace.path)).ok();
    for (what, attack, command, effect) in ATTACKS {
        sh(&bottle, &attack.replace('@', &place));
        workspace.on_host(command);
        workspace.assert_runs_nothing_of_the_agent(what);
        if let Shows(command) = effect {
            assert_ne!(workspace.on_host(command).code, 0, "{what}");
        }
    }
    lab.close(&bottle);
    for (_, _, command, _) in ATTACKS {
        workspace.on_host(command);
    }
    workspace.assert_runs_nothing_of_the_agent("after the end");
}
