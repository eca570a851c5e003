//! The protection of the host's git from an agent that writes the workspace.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bottle_plan::UserIds;
use bottle_plan::manifest::WorkspaceMode;
use bottle_plan::plan::WorkspacePlan;
use bottle_plan::resolved::WorkspaceMount;
use bottle_workspace::{UserGit, check, leave, protect};

struct Place {
    _dir: tempfile::TempDir,
    plan: WorkspacePlan,
    /// The agent's state directory.
    state: PathBuf,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let state = base.join("state/demo-1/agent");
        fs::create_dir_all(&state).unwrap();
        let source = base.join("work");
        fs::create_dir(&source).unwrap();
        let plan = WorkspacePlan {
            mode: WorkspaceMode::BindRw,
            source,
            target: "/workspace".parse().unwrap(),
            include_credential_files: false,
        };
        let this = Self { _dir: dir, plan, state };
        for (name, content) in files {
            this.write(name, content.as_bytes());
        }
        this
    }

    fn with_repository(config: &str) -> Self {
        Self::new(&[(".git/HEAD", "ref: refs/heads/main\n"), (".git/config", config)])
    }

    fn at(&self, name: &str) -> PathBuf {
        self.plan.source.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Returns the mounts as `+path` if writable, else `-path`.
    fn mounts(&self) -> Vec<String> {
        let shown =
            |mount: WorkspaceMount| format!("{}{}", if mount.writable { '+' } else { '-' }, mount.below.display());
        self.protect().into_iter().map(shown).collect()
    }

    fn protect(&self) -> Vec<WorkspaceMount> {
        protect(&self.plan, owner(), &self.state, &self.user()).unwrap()
    }

    /// Returns the configurations of a user whose home directory is beside the workspace.
    fn user(&self) -> UserGit {
        UserGit::new(&self.at("../home"), |name| (name == "GIT_CONFIG_SYSTEM").then(|| "/dev/null".into()))
    }

    fn leave(&self) -> Vec<String> {
        leave(&self.plan.source, &self.state).unwrap()
    }

    #[track_caller]
    fn refused(&self, problem: &str) {
        let said = check(&self.plan, &self.user()).unwrap_err();
        assert!(said.contains(problem) && said.contains("`mode: copy` works with any"), "{said}");
    }
}

fn owner() -> UserIds {
    let own = fs::metadata("/proc/self").unwrap();
    UserIds { uid: own.uid(), gid: own.gid() }
}

#[test]
fn the_agent_gets_a_copy_of_the_repository_without_commands() {
    let place = Place::with_repository("[core]\n\tbare = false\n\tfsmonitor = true\n\tsshCommand = hunter2\n");
    place.write(".git/refs/heads/main", b"0123456789012345678901234567890123456789\n");
    place.write(".git/credentials", b"hunter2");
    let mounts = place.protect();
    let [mount] = mounts.as_slice() else { panic!("{mounts:?}") };
    assert_eq!((mount.below.as_path(), mount.writable), (Path::new(".git"), true));
    assert!(mount.source.starts_with(&place.state) && !mount.source.ends_with(".git"));
    let config = fs::read_to_string(mount.source.join("config")).unwrap();
    assert_eq!(config, "[core]\n\tbare = \"false\"\n");
    assert!(mount.source.join("refs/heads/main").exists() && !mount.source.join("credentials").exists());
    assert_eq!(fs::metadata(&mount.source).unwrap().uid(), owner().uid);
    let left: Vec<_> = fs::read_dir(&place.state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    // The agent commits, and changes what runs on the host.
    fs::write(mount.source.join("refs/heads/main"), "9".repeat(40)).unwrap();
    let packed = format!("# pack-refs\n{} refs/heads/other\n", "8".repeat(40));
    fs::write(mount.source.join("packed-refs"), packed).unwrap();
    place.write("Makefile", b"all:");
    place.write("sub/.git/config", b"[core]\n\tfsmonitor = x\n");
    place.write("src/text", b"harmless");
    place.write("tool", b"#!/bin/sh");
    fs::set_permissions(place.at("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let said = place.leave();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].ends_with("may run them: files `Makefile`, `sub/.git/config`, `tool`"), "{said:?}");
    assert!(said[1].contains("bundle: branches `main at 9999") && said[1].contains("`other at 8888"), "{said:?}");
    assert!(place.at(".git/HEAD").exists());
}

#[test]
fn a_workspace_without_a_repository_gets_mount_points_that_are_removed() {
    let place = Place::new(&[("src/file", "")]);
    assert_eq!(place.mounts(), ["-HEAD", "+.git"]);
    for point in [".git", "HEAD"] {
        let made: Vec<_> = fs::read_dir(place.at(point)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(made, ["bottle-demo-1"]);
    }
    // A second bottle in the same workspace needs the mount point longer.
    let second = place.state.parent().unwrap().with_file_name("demo-2").join("agent");
    fs::create_dir_all(&second).unwrap();
    protect(&place.plan, owner(), &second, &place.user()).unwrap();
    assert_eq!(place.leave(), Vec::<String>::new());
    assert!(place.at(".git").exists() && place.at("HEAD").exists());
    leave(&place.plan.source, &second).unwrap();
    assert!(!place.at(".git").exists() && !place.at("HEAD").exists());
    // Again, as after a launcher that was killed in between.
    assert_eq!(place.leave(), Vec::<String>::new());
}

/// Git takes a directory with `HEAD`, `objects` and `refs` for a bare repository, and runs what its `config` names.
#[test]
fn the_agent_cannot_make_a_bare_repository_of_the_workspace() {
    let git = |place: &Place| {
        let mut git = std::process::Command::new("git");
        git.args(["-C", place.plan.source.to_str().unwrap(), "status"]).env("HOME", place.at("../home"));
        git.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap()
    };
    let place = Place::new(&[]);
    place.protect();
    let config =
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n\tfsmonitor = \"touch ran; false\"\n";
    fs::create_dir(place.at("objects")).unwrap();
    fs::create_dir(place.at("refs")).unwrap();
    place.write("config", config.as_bytes());
    git(&place);
    assert!(!place.at("ran").exists());
    // Without the mount point it is one.
    fs::remove_dir_all(place.at("HEAD")).unwrap();
    place.write("HEAD", b"ref: refs/heads/main\n");
    git(&place);
    assert!(place.at("ran").exists());
    place.refused("is itself a bare repository");

    // A file of that name is not for the agent to write.
    let place = Place::new(&[("HEAD", "a text")]);
    assert_eq!(place.mounts(), ["-HEAD", "+.git"]);
    place.leave();
    assert_eq!(fs::read_to_string(place.at("HEAD")).unwrap(), "a text");
}

#[test]
fn another_name_of_a_protected_file_is_refused() {
    for (protected, other) in [
        (".git/config", "tools/copy"),
        (".git/hooks/post-checkout", "hook"),
        (".envrc", "env"),
        (".vscode/tasks.json", "a/b/tasks"),
    ] {
        let place = Place::with_repository("[core]\n\tbare = false\n");
        for name in [protected, "elsewhere/../src/file"] {
            if !place.at(name).exists() {
                place.write(name, b"");
            }
        }
        // Neither objects nor names outside the workspace count.
        place.write(".git/objects/00/11", b"");
        fs::hard_link(place.at(".git/objects/00/11"), place.at("src/object")).unwrap();
        fs::hard_link(place.at(protected), place.at("../outside")).unwrap();
        check(&place.plan, &place.user()).unwrap();
        fs::create_dir_all(place.at(other).parent().unwrap()).unwrap();
        fs::hard_link(place.at(protected), place.at(other)).unwrap();
        place.refused("a hard link");
    }
}

#[test]
fn a_repository_that_the_user_creates_meanwhile_stays() {
    let place = Place::new(&[]);
    place.protect();
    place.write(".git/HEAD", b"ref: refs/heads/main\n");
    place.leave();
    assert!(place.at(".git/HEAD").exists() && !place.at(".git/bottle-demo-1").exists());
}

#[test]
fn what_exists_and_names_commands_is_read_only() {
    let config = "[core]\n\thooksPath = tools/deep/hooks\n\tfsmonitor = true\n[include]\n\tpath = ../.gitconfig\n\tpath = ~/mine\n";
    let place = Place::with_repository(config);
    for name in
        [".envrc", ".vscode/tasks.json", ".idea/x", "tools/deep/hooks/pre-commit", ".gitconfig", "scripts/check"]
    {
        place.write(name, b"");
    }
    fs::create_dir(place.at(".git/hooks")).unwrap();
    symlink("../../scripts/check", place.at(".git/hooks/pre-push")).unwrap();
    let mounts = place.mounts().join(" ");
    assert_eq!(
        mounts,
        "-.envrc -.gitconfig -.idea -.vscode +scripts -scripts/check +tools +tools/deep -tools/deep/hooks +.git"
    );
    let husky = Place::with_repository("[core]\n\thooksPath = .husky/_\n");
    husky.write(".husky/_/pre-commit", b"");
    assert_eq!(husky.mounts(), ["-.husky", "+.git"]);
}

#[test]
fn programs_of_the_workspace_that_a_configuration_names_are_read_only() {
    let place = Place::with_repository(
        "[filter \"x\"]\n\tclean = python3 tools/clean.py %f\n[core]\n\tsshCommand = ssh -F conf/ssh\n",
    );
    let root = place.at("").display().to_string();
    let own = format!(
        "[diff]\n\texternal = {root}bin/diff\n[alias]\n\tx = \"!f() {{ tools/alias $1; }}; f\"\n\tl = log src\n\
         [credential]\n\thelper = store --file src/other\n[includeIf \"gitdir:~/never\"]\n\tpath = {root}conf/included\n"
    );
    place.write("../home/.gitconfig", own.as_bytes());
    place.write("conf/included", b"[include]\n\tpath = more\n");
    place.write("conf/more", b"[core]\n\thooksPath = hooks\n[remote \"a\"]\n\turl = src/url\n");
    for name in ["tools/clean.py", "tools/alias", "bin/diff", "conf/ssh", "hooks/pre-commit", "src/file", "src/url"] {
        place.write(name, b"");
    }
    assert_eq!(
        place.mounts().join(" "),
        "+bin -bin/diff +conf -conf/included -conf/more -conf/ssh -hooks +tools -tools/alias -tools/clean.py +.git"
    );
}

#[test]
fn programs_that_only_a_shell_finds_are_read_only() {
    for value in [
        r#""\"$(git rev-parse --show-toplevel)/tools/hook\"""#,
        r"cd tools && ./hook",
        r#""cd tools; exec ./hook""#,
        r"'tools'/hook",
        r"vim -Stools/hook",
        r"PATH=tools:$PATH hook",
        r"env -C tools sh hook",
    ] {
        let place = Place::with_repository(&format!("[core]\n\tpager = {value}\n"));
        place.write("tools/hook", b"");
        place.write("tools/other", b"");
        assert_eq!(place.mounts(), ["+tools", "-tools/hook", "+.git"], "{value}");
    }
    let place = Place::with_repository("[filter \"x\"]\n\tclean = python3 -m tools.hook\n");
    place.write("tools/hook.py", b"");
    assert_eq!(place.mounts(), ["+tools", "-tools/hook.py", "+.git"]);
}

#[test]
fn a_program_that_the_agent_could_create_is_refused() {
    for config in [
        "[filter \"x\"]\n\tclean = tools/clean\n",
        "[core]\n\tfsmonitor = ./tools/clean\n",
        "[include]\n\tpath = ../tools/clean\n",
    ] {
        Place::with_repository(config).refused("takes commands from `tools/clean`");
    }
    let place = Place::new(&[("../home/.config/git/config", "[core]\n\thooksPath = hooks\n")]);
    place.refused("takes commands from `hooks`");
    for accepted in ["[core]\n\tpager = less\n\tfsmonitor = true\n", "[gitflow \"prefix\"]\n\tfeature = feature/\n"] {
        let place = Place::with_repository(accepted);
        check(&place.plan, &place.user()).unwrap();
    }
}

#[test]
fn includes_that_never_end_are_refused() {
    Place::with_repository("[include]\n\tpath = config\n").refused("or 10 that include each other");
}

#[test]
fn repositories_and_files_of_editors_below_the_root_are_read_only() {
    let place = Place::with_repository("");
    for name in [
        "sub/.git/HEAD",
        "sub/.git/modules/x/HEAD",
        "sub/.vscode/tasks.json",
        "sub/.vscode/deep/.envrc",
        "store/HEAD",
        "store/objects/x",
        "node_modules/x/.vscode/settings.json",
        "node_modules/y/.git/HEAD",
        "deep/apart/HEAD",
        "deep/apart/objects/x",
        "hooks/pre-commit",
    ] {
        place.write(name, b"");
    }
    place.write("sub/.git/config", b"[core]\n\thooksPath = ../hooks\n");
    place.write("wt/.git", format!("gitdir: {}\n", place.at("../main/.git/worktrees/wt").display()).as_bytes());
    place.write("apart/.git", b"gitdir: ../deep/apart\n");
    assert_eq!(
        place.mounts().join(" "),
        "+apart -apart/.git +deep -deep/apart -hooks +node_modules +node_modules/y -node_modules/y/.git -store +sub -sub/.git \
         -sub/.vscode +wt -wt/.git +.git"
    );
}

#[test]
fn a_repository_below_the_root_that_cannot_be_protected_is_refused() {
    let place = Place::with_repository("");
    place.write("new/.git", b"gitdir: ../missing\n");
    place.refused("takes commands from `missing`");
    let place = Place::with_repository("");
    place.write("sub/.git/HEAD", b"");
    fs::create_dir(place.at("linked")).unwrap();
    symlink("../sub/.git", place.at("linked/.git")).unwrap();
    place.refused("takes commands from `linked/.git`");
    Place::new(&[("HEAD", ""), ("objects/x", "")]).refused("is itself a bare repository");
}

#[test]
fn more_repositories_than_can_be_mounted_are_refused() {
    let place = Place::with_repository("");
    (0..64).for_each(|number| place.write(&format!("{number}/.git/HEAD"), b""));
    assert_eq!(place.mounts().len(), 129);
    place.write("more/.envrc", b"");
    place.refused("has 65 nested repositories, files of editors and programs that git starts");
}

#[test]
fn a_git_file_is_read_only_if_its_repository_is_elsewhere() {
    let place = Place::new(&[
        ("../main/.git/worktrees/work/HEAD", "x"),
        ("../main/.git/config", "[core]\n\thooksPath = hooks\n"),
        ("../main/.git/worktrees/work/commondir", "../..\n"),
    ]);
    let named = format!("gitdir: {}\n", place.at("../main/.git/worktrees/work").display());
    place.write(".git", named.as_bytes());
    place.refused("takes commands from `hooks`");
    place.write("hooks/pre-commit", b"");
    assert_eq!(place.mounts(), ["-.git", "-hooks"]);
    fs::rename(place.at("../main"), place.at("inside")).unwrap();
    place.write(".git", b"gitdir: inside/.git/worktrees/work\n");
    place.refused("where the agent could write");
}

#[test]
fn what_cannot_be_protected_is_refused() {
    let place = Place::new(&[("repository/HEAD", "")]);
    symlink("repository", place.at(".git")).unwrap();
    place.refused("has a `.git` that is neither a directory nor a file");
    let place = Place::with_repository("[core]\n\thooksPath = .githooks\n");
    place.refused("takes commands from `.githooks`, which must be a file or a directory");
    let place = Place::with_repository("");
    symlink("elsewhere", place.at(".envrc")).unwrap();
    place.refused("takes commands from `.envrc`");
}

#[test]
fn a_submodule_in_an_index_of_any_version_is_refused() {
    for version in 2..=4 {
        let place = Place::with_repository("");
        place.write(".git/index", &index(version, &[("a/file", 0o100_644), ("b", 0o100_755)]));
        check(&place.plan, &place.user()).unwrap();
        place.write(".git/index", &index(version, &[("a/file", 0o100_644), ("a/lib", 0o160_000), ("b", 0o100_755)]));
        place.refused("has the submodule `a/lib`");
    }
    // Of the repository above, only the submodules in the workspace count.
    let mut place = Place::with_repository("");
    place.write("app/x", b"");
    place.write(".git/index", &index(2, &[("app/lib", 0o160_000)]));
    place.plan.source.push("app");
    place.refused("has the submodule `app/lib`");
    place.write("../.git/index", &index(2, &[("lib", 0o160_000)]));
    check(&place.plan, &place.user()).unwrap();
}

#[test]
fn an_index_that_cannot_be_searched_is_refused() {
    let whole = index(4, &[("a/file", 0o100_644), ("a/other", 0o100_644)]);
    let mut split = whole[..whole.len() - 20].to_vec();
    split.extend_from_slice(b"link\0\0\0\x14");
    split.extend_from_slice(&[0; 40]);
    let place = Place::with_repository("");
    for broken in [&whole[..30], &whole[..100], b"DIRC\0\0\0\x09\0\0\0\0", b"x", &split] {
        place.write(".git/index", broken);
        place.refused("has a git index that cannot be searched");
    }
}

/// Returns an index in git's format, without times and ids.
fn index(version: u8, entries: &[(&str, u32)]) -> Vec<u8> {
    let mut out = b"DIRC\0\0\0".to_vec();
    out.push(version);
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap().to_be_bytes());
    let mut last = "";
    for (name, mode) in entries {
        let start = out.len();
        out.extend_from_slice(&[0; 24]);
        out.extend_from_slice(&mode.to_be_bytes());
        out.extend_from_slice(&[0; 32]);
        // Version 3 has further flags for each entry that is marked so.
        out.extend_from_slice(if version == 3 { &[0x40, 0, 0, 0] } else { &[0, 0] });
        if version == 4 {
            let common = last.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
            out.push(u8::try_from(last.len() - common).unwrap());
            out.extend_from_slice(&name.as_bytes()[common..]);
            out.push(0);
        } else {
            out.extend_from_slice(name.as_bytes());
            out.resize(start + (out.len() - start + 8) / 8 * 8, 0);
        }
        last = name;
    }
    out.extend_from_slice(&[0; 20]);
    out
}
