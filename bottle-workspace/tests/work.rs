//! Work that comes back from an agent that is not trusted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bottle_exec::{Control, Subprocess, chain};
use bottle_workspace::{Changes, Git, Tree, WorkError, WorkLimits, export};

/// A host with the workspace that was copied, the agent's one, and a repository.
struct Host {
    dir: tempfile::TempDir,
    limits: WorkLimits,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["before/work", "after/work", "scratch"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Self { dir, limits: WorkLimits::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a shell script in a directory, without any configuration of git but a name.
    fn sh(&self, directory: &str, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(self.path(directory))
            .env("HOME", self.path("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "me")))
            .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "me@bottle.test")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes the state of a side as a tar, and returns its path.
    fn packed(&self, side: &str) -> PathBuf {
        self.sh(side, &format!("tar --create --file=../{side}.tar work"));
        self.path(&format!("{side}.tar"))
    }

    fn tree(&self, side: &str) -> Tree {
        Tree::read(File::open(self.packed(side)).unwrap(), &self.limits).unwrap()
    }

    fn changes(&self) -> Changes {
        self.tree("after").changes_since(&self.tree("before"), &self.limits).unwrap()
    }

    fn git<T>(&self, action: impl FnOnce(&Git<'_>) -> T) -> T {
        #[expect(clippy::disallowed_methods, reason = "the backend of a test")]
        let (backend, control) = (Subprocess::new(std::env::vars_os()), Control::default());
        let done = action(&Git::new(&backend, &control, &self.limits, &self.path("scratch")).unwrap());
        assert_eq!(fs::read_dir(self.path("scratch")).unwrap().count(), 0, "the private directory stays");
        done
    }

    fn patch(&self) -> Result<Vec<u8>, WorkError> {
        let (before, after) = (self.tree("before"), self.tree("after"));
        let changes = after.changes_since(&before, &self.limits)?;
        let (base, tar) = (File::open(self.path("before.tar")).unwrap(), File::open(self.path("after.tar")).unwrap());
        self.git(|git| git.patch(&base, &before, &after, &changes, tar))
    }

    fn fetch(&self, bundle: &str) -> Result<Vec<String>, WorkError> {
        let fetched = self.git(|git| git.fetch(&self.path(bundle), &self.path("repository"), "refs/bottle/demo"))?;
        Ok(fetched.into_iter().map(|branch| branch.name).collect())
    }
}

/// Rules that a pattern matcher builds gigabytes for, and a deep directory that would be judged again for each file.
const COSTLY: &str = r#"mkdir g; (cd g; perl -e 'srand 1; my @c=("a".."z"); open F,">.gitignore"; for(1..7800){print F join("",map{$c[rand 26]."*"}1..3)."\n"}
                     close F; for(1..500){my $n=join "",map{$c[rand 26]}1..120; open F,">$n"; close F}')
                     perl -e 'for(1..1950){mkdir q(a);chdir q(a)} open F,q(>.gitignore); print F q(q); close F; for(1..500){open F,qq(>f$_); close F}'"#;

#[test]
fn rules_of_the_agent_cost_nothing_and_those_of_its_caches_are_obeyed() {
    let host = Host::new();
    host.sh("before/work", BEFORE);
    let caches = "for dir in venv src sub/cache; do mkdir -p $dir; printf '# made by a tool\\n*\\n' > $dir/.gitignore; : > $dir/new; done
                  echo '*' >> .gitignore; : > seen; mkdir target; : > target/x";
    host.sh("after/work", &format!("{BEFORE}; {caches}; {COSTLY}"));
    let (before, after) = (host.tree("before"), host.tree("after"));
    let started = Instant::now();
    let changes = after.changes_since(&before, &host.limits).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let names = named(&changes);
    // Only what was there before, or in a directory that the agent made, excludes anything.
    for seen in ["Added seen", "Added src/new", "Modified .gitignore"] {
        assert!(names.iter().any(|name| name == seen), "{seen}: {:?}", &names[..20]);
    }
    assert!(!names.iter().any(|name| name.contains("venv") || name.contains("cache") || name.contains("target")));
    assert_eq!((changes.ignored, changes.files.len()), (5, 1 + 2 + 1 + 501 + 501));
    let none = WorkLimits { time: Duration::ZERO, ..host.limits };
    assert!(chain(&after.changes_since(&before, &none).unwrap_err()).contains("does not end in time"));
}

/// Returns the changes as `kind path`.
fn named(changes: &Changes) -> Vec<String> {
    changes.files.iter().map(|change| format!("{:?} {}", change.kind, change.path.display())).collect()
}

/// Files before, and what the agent does to them.
const BEFORE: &str = "mkdir src; echo one > src/a; printf 'x\\000y' > binary; echo gone > gone; echo run > run; ln -s src link; \
                      echo same > same; echo 'target/' > .gitignore; echo text > becomes-link; mkdir d; echo x > d/file";
const AGENT: &str =
    "echo two >> src/a; printf 'x\\000z' > binary; rm gone; chmod +x run; ln -sfn /etc link; mkdir -p target new; \
                     echo out > target/out; echo 'na\"me' > \"new/a
b\\\\c\"; echo é > new/é; rm becomes-link; ln -s src/a becomes-link; rm -r d; echo y > d; ln src/a hard; mkfifo pipe; \
                     mkdir -p .git/hooks sub/.GIT; echo evil > .git/config; echo evil > sub/.GIT/config; : > empty";

#[test]
fn changes_are_found_whatever_they_are() {
    let host = Host::new();
    host.sh("before/work", BEFORE);
    host.sh("after/work", &format!("{BEFORE}; {AGENT}"));
    let changes = host.changes();
    let expected = [
        "Modified becomes-link",
        "Modified binary",
        "Added d",
        "Deleted d/file",
        "Added empty",
        "Deleted gone",
        "Added hard",
        "Modified link",
        "Added new/a\nb\\c",
        "Added new/é",
        "Modified run",
        "Modified src/a",
    ];
    assert_eq!(named(&changes), expected);
    assert_eq!((changes.ignored, changes.skipped.count()), (1, 2));
    let run = changes.files.iter().find(|change| change.path == Path::new("run")).unwrap();
    let (before, after) = (run.before.unwrap(), run.after.unwrap());
    assert_eq!((before.mode, after.mode, after.size, before.sha256 == after.sha256), (0o644, 0o755, 4, true));
    // The rules are those that were copied in. Without one, the file counts.
    fs::remove_file(host.path("after/work/.gitignore")).unwrap();
    assert!(!named(&host.changes()).contains(&"Added target/out".to_owned()));
    fs::remove_file(host.path("before/work/.gitignore")).unwrap();
    assert!(named(&host.changes()).contains(&"Added target/out".to_owned()));
}

#[test]
fn a_patch_makes_the_agents_files_of_what_was_copied() {
    let host = Host::new();
    host.sh("before/work", BEFORE);
    host.sh("after/work", &format!("{BEFORE}; {AGENT}"));
    let patch = host.patch().unwrap();
    fs::write(host.path("patch"), &patch).unwrap();
    host.sh("before/work", "git apply --binary ../../patch");
    host.sh("after/work", "rm -rf .git sub target pipe");
    host.sh(".", "diff -r --no-dereference before/work after/work; [ -x before/work/run ]");
    assert!(!String::from_utf8_lossy(&patch).contains("evil"));
    let host = Host::new();
    assert_eq!(host.patch().unwrap(), b"");
}

#[test]
fn attributes_and_files_of_the_agent_start_no_program_for_a_patch() {
    let host = Host::new();
    let evil = "printf '#!/bin/sh\\necho ran > '$PWD'/../../marker\\n' > evil; chmod +x evil";
    let attributes =
        "printf '* diff=evil filter=evil text eol=crlf working-tree-encoding=UTF-16 ident\\n' > .gitattributes";
    let config = "mkdir -p .git; printf '[diff \"evil\"]\\ncommand = '$PWD'/evil\\n[core]\\nfsmonitor = '$PWD'/evil\\n' > .git/config";
    host.sh("before/work", "echo '$Id$ one' > file");
    host.sh("after/work", &format!("echo '$Id$ two' > file; {evil}; {attributes}; {config}"));
    let patch = String::from_utf8(host.patch().unwrap()).unwrap();
    assert!(patch.contains("\n-$Id$ one\n+$Id$ two\n") && !host.path("marker").exists(), "{patch}");
}

#[test]
fn more_changes_than_allowed_are_refused() {
    let mut host = Host::new();
    host.limits.taken = 1000;
    fs::write(host.path("after/work/large"), vec![b'x'; 1001]).unwrap();
    assert!(matches!(host.patch().unwrap_err(), WorkError::TooMuch { .. }));
    let into = host.path("export");
    fs::create_dir(&into).unwrap();
    let tar = File::open(host.packed("after")).unwrap();
    assert!(matches!(export(&tar, &into, &host.limits).unwrap_err(), WorkError::TooMuch { .. }));
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
    fs::write(host.path("after/work/large"), vec![b'x'; 900]).unwrap();
    assert!(host.patch().is_ok());
}

#[test]
fn an_export_has_files_only() {
    let host = Host::new();
    host.sh("after/work", &format!("{BEFORE}; {AGENT}; chmod 4755 same; ln -s ../../.. up; mkdir none"));
    let into = host.path("export");
    fs::create_dir(&into).unwrap();
    let tar = host.packed("after");
    let exported = export(File::open(&tar).unwrap(), &into, &host.limits).unwrap();
    assert_eq!((exported.files, exported.refused.count()), (11, 5), "{exported:?}");
    let listed = host.sh("export", "find . ! -type f ! -type d; find . -iname .git; cat hard; test -d none");
    assert_eq!(listed, "one\ntwo\n");
    assert_eq!(fs::metadata(into.join("same")).unwrap().permissions().mode() & 0o7000, 0);
    let error = export(File::open(&tar).unwrap(), &into, &host.limits).unwrap_err();
    assert!(chain(&error).contains("not empty"), "{error}");
    // A directory that is a link to one is used, but nothing follows a link in it.
    symlink("export", host.path("link")).unwrap();
    assert!(export(File::open(&tar).unwrap(), &host.path("link"), &host.limits).is_err());
}

/// A repository of the host with hooks, and one of the agent with a commit.
fn repositories(host: &Host) {
    fs::create_dir(host.path("home")).unwrap();
    host.sh(".", "git init -q -b main repository; git init -q -b main agent");
    host.sh("repository", "echo a > a; git add a; git commit -q -m Begin");
    host.sh(
        "repository",
        "for hook in reference-transaction post-checkout post-merge pre-auto-gc post-index-change; do
            printf '#!/bin/sh\\necho $0 >> '$PWD'/../marker\\n' > .git/hooks/$hook; chmod +x .git/hooks/$hook; done",
    );
    host.sh("agent", "echo b > b; git add b; git commit -q -m Work; git branch side; git tag v1");
}

#[test]
fn branches_are_fetched_and_nothing_else_of_the_repository_changes() {
    let host = Host::new();
    repositories(&host);
    host.sh("agent", "git bundle create -q ../bundle --all HEAD");
    let state = "git -c core.hooksPath=/dev/null status --short; git rev-parse HEAD; ls .git; cat .git/config; git for-each-ref | grep -v refs/bottle || true";
    let before = host.sh("repository", state);
    assert_eq!(host.fetch("bundle").unwrap(), ["refs/bottle/demo/main", "refs/bottle/demo/side"]);
    assert_eq!(host.sh("repository", state), before);
    assert_eq!(host.sh("repository", "git show refs/bottle/demo/main:b"), "b\n");
    // A second time, with a branch less and another history.
    host.sh(
        "agent",
        "git branch -q -D side; git commit -q --amend -m Other; git bundle create -q ../bundle --branches",
    );
    assert_eq!(host.fetch("bundle").unwrap(), ["refs/bottle/demo/main"]);
    assert!(!host.path("marker").exists(), "{}", fs::read_to_string(host.path("marker")).unwrap());
    // Git gives advice after the error, which names the file.
    let lock = "repository/.git/refs/bottle/demo/main.lock";
    host.sh("agent", "git commit -q --amend -m Third; git bundle create -q ../bundle --branches");
    fs::write(host.path(lock), "").unwrap();
    let error = host.fetch("bundle").unwrap_err().to_string();
    assert!(error.contains(lock) && error.contains("remove the file"), "{error}");
    fs::remove_file(host.path(lock)).unwrap();
    for prefix in ["refs/heads", "refs/heads/main", "refs/bottle/", "refs/bottle/../heads", "refs/bottle/a b", "main"] {
        let bundle = host.path("bundle");
        let error = host.git(|git| git.fetch(&bundle, &host.path("repository"), prefix)).unwrap_err();
        assert!(matches!(error, WorkError::Prefix { .. }), "{prefix}: {error}");
    }
}

#[test]
fn objects_that_git_does_not_trust_are_refused() {
    let host = Host::new();
    repositories(&host);
    let entry = |mode: &str, name: &str| {
        format!(
            "blob=$(echo x | git hash-object -w --stdin)
             octal=$(for byte in $(echo $blob | sed 's/../0x& /g'); do printf '\\\\%03o' $byte; done)
             tree=$(printf \"{mode} {name}\\0$octal\" | git hash-object -w -t tree --literally --stdin)
             git update-ref refs/heads/evil $(git commit-tree $tree -m Evil)"
        )
    };
    for (what, script) in [
        (".git in a tree", entry("100644", ".git")),
        (".. in a tree", entry("100644", "..")),
        ("a slash in a tree", entry("100644", "a/b")),
    ] {
        host.sh(
            "agent",
            &format!("git update-ref -d refs/heads/evil; {script}; git bundle create -q ../bundle --branches"),
        );
        let error = host.fetch("bundle").unwrap_err();
        assert!(matches!(&error, WorkError::Git { doing: "check the agent's commits", .. }), "{what}: {error}");
        assert_eq!(host.sh("repository", "git for-each-ref refs/bottle"), "", "{what}");
    }
    // An option in the URL of a submodule (CVE-2018-17456).
    host.sh(
        "agent",
        "git update-ref -d refs/heads/evil; printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = --upload-pack=evil\\n' > .gitmodules
         git add .gitmodules; git commit -q -m Evil; git bundle create -q ../bundle --branches",
    );
    assert!(host.fetch("bundle").unwrap_err().to_string().contains("gitmodulesUrl"));
    // The same objects are taken if nobody asks git to check them.
    host.sh("repository", "git -c core.hooksPath=/dev/null fetch -q ../bundle main:refs/unchecked");
    let other = format!("gitdir: {}\n", host.path("agent/.git").display());
    let bundle = fs::read(host.path("bundle")).unwrap();
    for (what, bytes) in
        [("no bundle", &b"garbage"[..]), ("nothing", b""), ("cut", &bundle[..300]), ("another place", other.as_bytes())]
    {
        fs::write(host.path("broken"), bytes).unwrap();
        assert!(matches!(host.fetch("broken").unwrap_err(), WorkError::Git { .. }), "{what}");
        assert_eq!(host.sh("repository", "git for-each-ref refs/bottle"), "", "{what}");
    }
    // Git itself follows that file.
    host.sh("repository", "git -c core.hooksPath=/dev/null fetch -q ../broken side:refs/followed");
}
