//! The agent's work, taken out of a bottle that is not trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bottle::workspace::{ChangeKind, WorkLimits};
use bottle::{Bottle, BottleError};

use super::{Place, SMALL, options, plan};
use bottle_testing::lab::{docker, engine, figure, run, scratch, sh};

/// A workspace on the host, a home directory for git, and a bottle with a copy of the workspace.
struct Site {
    dir: tempfile::TempDir,
    place: Place,
    slug: &'static str,
    manifest: &'static str,
}

impl Site {
    /// Creates a workspace with a script.
    fn new(slug: &'static str, script: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("work-").tempdir_in(scratch()).unwrap();
        let this = Self { dir, place: Place::new(), slug, manifest: SMALL };
        for name in ["home", "work", "out"] {
            fs::create_dir(this.path(name)).unwrap();
        }
        fs::write(this.path("home/.gitconfig"), "[user]\nname = Me\nemail = me@bottle.test\n[safe]\ndirectory = *\n")
            .unwrap();
        this.on_host("work", script);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn on_host(&self, directory: &str, script: &str) -> String {
        let mut shell = Command::new("sh");
        run(shell.args(["-ec", script]).current_dir(self.path(directory)).env("HOME", self.path("home")))
            .ok()
            .to_owned()
    }

    fn with_bottle(&self, test: impl FnOnce(Bottle)) {
        let manifest = format!("{}\nworkspace: {{path: '{}'}}", self.manifest, self.path("work").display());
        test(options(engine(), &self.place.state()).launch(plan(&manifest, self.slug)).unwrap());
        self.place.nothing_is_left(self.slug);
    }
}

const REPOSITORY: &str = "git init -q -b main; mkdir src; echo one > src/file; printf 'x\\000' > binary; echo old > old; ln -s old link; \
                          git add .; git commit -q -m Begin";

#[test]
#[ignore = "needs a container engine"]
fn work_comes_back_as_changes_a_patch_an_export_and_commits() {
    let site = Site::new("back", REPOSITORY);
    site.with_bottle(|bottle| {
        assert_eq!(bottle.changes().unwrap().files, []);
        assert_eq!((bottle.work_left().unwrap(), bottle.patch().unwrap()), (None, Vec::new()));
        let script = "cd /workspace; echo two >> src/file; printf 'y\\000' > binary; rm old; echo '#!/bin/sh' > run; chmod +x run; \
                      mkdir 'a b'; echo x > 'a b/é\n\"'; git add .; git commit -q -m Work; git branch side";
        sh(&bottle, script).ok();
        let changes = bottle.changes().unwrap();
        let named: Vec<_> = changes.files.iter().map(|it| (it.kind, it.path.to_str().unwrap())).collect();
        let expected = [
            (ChangeKind::Added, "a b/é\n\""),
            (ChangeKind::Modified, "binary"),
            (ChangeKind::Deleted, "old"),
            (ChangeKind::Added, "run"),
            (ChangeKind::Modified, "src/file"),
        ];
        assert_eq!(named, expected);
        let added = changes.files[3].after.unwrap();
        assert_eq!((added.mode, added.size), (0o755, 10));

        let exported = bottle.export(&site.path("out")).unwrap();
        assert_eq!((exported.files, exported.refused.count()), (4, 1), "{exported:?}");
        let branches = bottle.fetch_into(&site.path("work"), "refs/bottle/back").unwrap();
        let fetched: Vec<_> = branches.iter().map(|branch| branch.name.as_str()).collect();
        assert_eq!(fetched, ["refs/bottle/back/main", "refs/bottle/back/side"]);
        let log = "git log --format=%s refs/bottle/back/main; git status --short; git rev-parse --abbrev-ref HEAD";
        assert_eq!(site.on_host("work", log), "Work\nBegin\nmain");

        bottle.write_patch(&site.path("patch")).unwrap();
        assert_eq!(bottle.work_left().unwrap(), None);
        sh(&bottle, "cd /workspace; echo later >> src/file; echo later >> run").ok();
        let left = bottle.work_left().unwrap().unwrap();
        assert_eq!(left, "2 files were changed in the workspace of the bottle and not taken out");
        site.on_host("work", "git apply --index ../patch; git diff --cached --exit-code refs/bottle/back/main");
        bottle.close().unwrap();
    });
}

/// Script of an agent so that a host that looks at its work runs a program or follows a link. `@` is a directory of the host
/// that the programs write to.
const POISON: &str = r#"
cd /workspace
printf '#!/bin/sh\necho ran > @/marker\n' > evil; chmod +x evil
for hook in post-checkout reference-transaction post-merge pre-commit; do cp evil .git/hooks/$hook; done
for key in core.fsmonitor core.sshCommand core.gitProxy diff.external core.pager uploadpack.packObjectsHook; do
    git config $key /workspace/evil; git config --add $key @/work/evil
done
git config filter.evil.clean @/out/workspace/evil; git config diff.evil.textconv @/out/workspace/evil
git config core.fsmonitor @/out/workspace/evil
echo '* filter=evil diff=evil working-tree-encoding=UTF-16' > .gitattributes
echo @/work/.git/objects > .git/objects/info/alternates
rm -r src; ln -s / src; ln -sfn @/secret link; ln -s ../../../.. up
mkdir -p nested/.git/hooks d/.GIT; cp .git/config nested/.git/config; cp .git/config d/.GIT/config
mkfifo pipe; perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("socket"))' || true
echo x > "$(printf 'new\nline\n20 path=../../out')"; echo x > '-o --exec=evil'; echo x > '../..' 2>/dev/null || true
echo more >> old
"#;

#[test]
#[ignore = "needs a container engine"]
fn a_hostile_workspace_runs_nothing_and_reaches_nothing_of_the_host() {
    let site = Site::new("hostile", REPOSITORY);
    fs::write(site.path("secret"), "the host's secret").unwrap();
    let host = site.dir.path().display().to_string();
    let marker = site.path("marker");
    site.with_bottle(|bottle| {
        sh(&bottle, &POISON.replace('@', &host)).ok();
        let before = site.on_host("work", "git rev-parse HEAD; cat .git/config; ls -a . .git");

        let changes = bottle.changes().unwrap();
        assert!(changes.files.iter().all(|change| !has_dots_or_git(&change.path)), "{changes:?}");
        assert_eq!(changes.skipped.count(), 2, "{:?}", changes.skipped);
        let patch = bottle.patch().unwrap();
        fs::write(site.path("patch"), &patch).unwrap();
        let patch = String::from_utf8_lossy(&patch).into_owned();
        assert!(patch.contains("+more") && !patch.contains("host's secret") && !patch.contains("fsmonitor"), "{patch}");
        bottle.export(&site.path("out")).unwrap();
        let odd = site.on_host("out", "find . ! -type f ! -type d -o -iname .git; grep -r \"host's secret\" . || true");
        assert_eq!(odd, "");
        // The agent's own git follows its configuration, inside. Nothing of that is taken.
        drop(bottle.fetch_into(&site.path("work"), "refs/bottle/hostile"));
        site.on_host("work", "git apply --check ../patch; git status --short");
        assert_eq!(site.on_host("work", "git rev-parse HEAD; cat .git/config; ls -a . .git"), before);
        assert!(!marker.exists());

        // The same workspace, copied with its repository, runs a program at once.
        fs::remove_dir_all(site.path("out")).unwrap();
        fs::create_dir(site.path("out")).unwrap();
        bottle.cp_out("/workspace", &site.path("out")).unwrap();
        site.on_host("out/workspace", "git status --short || true");
        assert!(marker.exists());
        fs::remove_file(&marker).unwrap();
        bottle.close().unwrap();
    });
}

fn has_dots_or_git(path: &Path) -> bool {
    path.is_absolute() || path.iter().any(|part| part == ".." || part.eq_ignore_ascii_case(".git"))
}

#[test]
#[ignore = "needs a container engine"]
fn a_replaced_git_and_files_without_end_are_bounded() {
    // The agent is not paused, although a file has a size of 1 TiB.
    let site = Site {
        manifest: "egress: {allow: [example.com]}\nlimits: {agent: {disk: 2TiB}}",
        ..Site::new("bounded", REPOSITORY)
    };
    site.with_bottle(|bottle| {
        let limits =
            WorkLimits { taken: 1 << 20, read: 64 << 20, time: Duration::from_secs(5), ..WorkLimits::default() };
        let bottle = bottle.with_work_limits(limits);
        let fetch = || match bottle.fetch_into(&site.path("work"), "refs/bottle/bounded").unwrap_err() {
            BottleError::Work(error) => bottle::exec::chain(&error),
            other => panic!("{other}"),
        };
        let container = bottle.handle().container.clone();
        for (script, expected) in [
            ("echo garbage", "does not look like"),
            ("echo gitdir: /", "does not look like"),
            ("exit 3", ""),
            ("echo 'evil\\033[2J words' >&2; exit 3", "evil words"),
            ("cat /dev/zero", "more than 1048576 bytes"),
            ("sleep 60", "does not end in time"),
        ] {
            let replace = format!(
                "rm -f /usr/bin/git; printf '%s\\n' '#!/bin/sh' \"{script}\" > /usr/bin/git; chmod 755 /usr/bin/git"
            );
            docker(["exec", "--user", "0", "--privileged", &container, "sh", "-ec", &replace]).ok();
            let started = Instant::now();
            let error = fetch();
            assert!(error.contains(expected) && !error.contains('\u{1b}'), "{script}: {error}");
            assert!(started.elapsed() < Duration::from_secs(15), "{script}: {:?}", started.elapsed());
        }
        assert_eq!(site.on_host("work", "git for-each-ref refs/bottle"), "");
        for (size, expected) in [("1T", "more than 8 GiB"), ("4G", "more than 67108864 bytes")] {
            sh(&bottle, &format!("cd /workspace; truncate -s {size} huge")).ok();
            let started = Instant::now();
            let error = bottle::exec::chain(&bottle.changes().unwrap_err());
            assert!(error.contains(expected), "{size}: {error}");
            assert!(bottle.export(&site.path("out")).is_err());
            assert_eq!(fs::read_dir(site.path("out")).unwrap().count(), 0);
            assert!(started.elapsed() < Duration::from_secs(20), "{size}: {:?}", started.elapsed());
        }
        sh(&bottle, "cd /workspace; rm huge; head -c 2000000 /dev/urandom > large").ok();
        assert!(bottle.patch().unwrap_err().to_string().contains("at most 1048576 bytes"));
        assert_eq!(
            bottle.work_left().unwrap().unwrap(),
            "1 file was changed in the workspace of the bottle and not taken out"
        );
        bottle.close().unwrap();
    });
}

#[test]
#[ignore = "needs a container engine"]
fn the_changes_of_10_000_files_take_less_than_a_second() {
    let make = "for directory in $(seq 100); do mkdir d$directory; for file in $(seq 100); do
                    head -c 1000 /dev/urandom > d$directory/f$file; done; done";
    let site = Site::new("many", make);
    site.with_bottle(|bottle| {
        sh(&bottle, "cd /workspace; for directory in $(seq 100); do echo more >> d$directory/f1; done").ok();
        let mut times = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            assert_eq!(bottle.changes().unwrap().files.len(), 100);
            times.push(started.elapsed());
        }
        times.sort_unstable();
        figure(format_args!("100 changes in 10,000 files: {:?} (fastest of 5), {:?} (median)", times[0], times[2]));
        assert!(times[0] < Duration::from_secs(1), "{times:?}");
        bottle.close().unwrap();
    });
}
