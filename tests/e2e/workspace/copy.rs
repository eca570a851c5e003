//! A copied workspace: the agent gets none of the credentials that are in it, and all ordinary files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use bottle_testing::lab::{Lab, run, sh};

/// Files that hold credentials. In each, a marker of its own is written.
const CREDENTIALS: &[&str] = &[
    ".env",
    ".env.local",
    ".env.production",
    "deploy/prod.env",
    ".envrc",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".htpasswd",
    ".npmrc",
    "web/.yarnrc.yml",
    ".pypirc",
    "pip.conf",
    "auth.json",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".gemini/oauth_creds.json",
    ".aws/credentials",
    ".aws/config",
    ".aws/sso/cache/0.json",
    ".config/gcloud/application_default_credentials.json",
    ".config/gcloud/access_tokens.db",
    ".azure/accessTokens.json",
    ".azure/msal_token_cache.json",
    ".kube/config",
    "deploy/kubeconfig",
    ".docker/config.json",
    ".config/gh/hosts.yml",
    ".config/glab-cli/config.yml",
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".gem/credentials",
    ".m2/settings.xml",
    ".gradle/gradle.properties",
    ".terraform.d/credentials.tfrc.json",
    ".terraformrc",
    "infra/prod.tfvars",
    "infra/terraform.tfstate",
    "infra/terraform.tfstate.backup",
    ".pgpass",
    ".my.cnf",
    ".s3cfg",
    ".boto",
    ".vault-token",
    ".ssh/config",
    ".ssh/work",
    "id_rsa",
    "id_ed25519_work",
    "tls/server.key",
    "tls/key.pem",
    "tls/store.p12",
    "tls/store.pfx",
    "tls/store.jks",
    "tls/release.keystore",
    "passwords.kdbx",
    "office.ovpn",
    "my-service-account.json",
    "config/secrets.yml",
    "config/secrets.prod.yaml",
    "db-credentials.json",
    ".bash_history",
    ".python_history",
    ".psql_history",
    ".git/credentials",
];

/// Files with a private key, which only their content shows.
const KEYS: &[(&str, &str)] = &[
    ("notes.txt", "the key:\n-----BEGIN OPENSSH PRIVATE KEY-----\n"),
    ("deploy/host", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n"),
    ("deploy/values.yaml", "tls:\n  key: |\n    -----BEGIN PRIVATE KEY-----\n    "),
    ("robot.json", "{\"type\": \"service_account\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\n"),
    ("signing.txt", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n"),
    (".git/deploy", "-----BEGIN EC PRIVATE KEY-----\n"),
];

/// Files that an agent needs.
const ORDINARY: &[&str] = &[
    ".env.example",
    ".env.sample",
    "deploy/prod.env.template",
    ".claude/settings.json",
    ".cargo/config.toml",
    ".docker/Dockerfile",
    ".github/workflows/ci.yml",
    ".vscode/settings.json",
    "Cargo.toml",
    "Makefile",
    "chart/templates/secrets.yaml",
    "config/credentials.yml.enc",
    "docs/history.md",
    "docs/secrets.md",
    "gradle.properties",
    "id_rsa.pub",
    "infra/main.tf",
    "infra/prod.tfvars.example",
    "package.json",
    "scripts/gcloud/deploy.sh",
    "secrets/readme.md",
    "src/credentials.rs",
    "src/credentials/mod.rs",
    "src/env.d.ts",
    "src/token.rs",
    "tests/fixtures/cert.pem",
];

/// Commands of real git, after which repositories of every kind have credentials. `MARK` becomes a marker.
const REPOSITORIES: &str = "
git init -q -b main . && git commit -q --allow-empty -m Begin
git remote add origin https://me:MARK@h.example/a.git
git remote set-url --push origin https://MARK@h.example/a.git
git config http.https://h.example/.extraHeader 'Authorization: Basic MARK'
git config credential.helper 'store --file MARK'
git config remote.query.url 'https://h.example/a?private_token=MARK'
git config extensions.worktreeConfig true && git config --worktree http.extraHeader MARK
git worktree add -q linked && git -C linked config --worktree http.extraHeader MARK
git init -q nested && git -C nested config remote.o.url https://me:MARK@h.example/a.git
git init -q --bare store && git -C store config remote.o.url https://me:MARK@h.example/a.git
git init -q --separate-git-dir=deep/repository apart && git -C apart config remote.o.url ftp://me:MARK@h.example/a
git init -q .git/modules/lib && git --git-dir=.git/modules/lib/.git config http.extraHeader MARK
printf '%s\\n' '0 1 Me <m@h.example> 1 +0000\tclone: from https://me:MARK@h.example/a.git' >> .git/logs/HEAD
printf '%s\\n' '0 1 Me <m@h.example> 1 +0000\tclone: from https://MARK@h.example/a.git' >> .git/logs/refs/heads/main
printf '%s\\n' '0 1 Me <m@h.example> 1 +0000\tclone: from https://me:MARK@h.example/a.git' > store/FETCH_HEAD
printf '%s\\n' \"0\t\tbranch 'main' of https://me:MARK@h.example/a\" > .git/FETCH_HEAD
printf '%s\\n' \"Merge branch 'main' of https://me:MARK@h.example/a\" > .git/MERGE_MSG
mkdir -p .git/remotes && echo 'URL: https://me:MARK@h.example/a' > .git/remotes/old
printf '[submodule \"a\"]\\n\\tpath = a\\n\\turl = https://me:MARK@h.example/a\\n' > .gitmodules
printf '[http]\\n\\textraHeader = MARK\\n' > .gitconfig
";

/// Writes credentials and ordinary files, and returns the number of markers.
fn plant(root: &Path, home: &Path) -> usize {
    let mut count = 0;
    let mut marker = || {
        count += 1;
        format!("PLANTED{count}Z")
    };
    let write = |name: &str, content: String| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mut script = String::from("set -e\n");
    let mut parts = REPOSITORIES.split("MARK");
    script.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let _ = write!(script, "{}{part}", marker());
    }
    fs::create_dir_all(root).unwrap();
    fs::create_dir_all(home).unwrap();
    fs::write(home.join(".gitconfig"), "[user]\n\tname = Me\n\temail = me@bottle.test\n").unwrap();
    run(Command::new("sh").args(["-c", &script]).current_dir(root).env("HOME", home)).ok();
    for name in CREDENTIALS {
        write(name, format!("value={}\n", marker()));
    }
    for (name, before) in KEYS {
        write(name, format!("{before}{}{}\n", marker(), "A".repeat(60)));
    }
    for name in ORDINARY {
        write(name, format!("ordinary {name}\n"));
    }
    count
}

#[test]
#[ignore = "needs a container engine"]
fn an_agent_gets_none_of_the_planted_credentials_and_all_ordinary_files() {
    let lab = Lab::new("copied");
    let root = lab.root.path().join("work");
    let planted = plant(&root, &lab.root.path().join("home"));
    assert!(planted >= 80, "{planted}");
    let arrived = |include: bool| {
        let manifest = format!("workspace: {{path: \"{}\", include_credential_files: {include}}}", root.display());
        let bottle = lab.launch(&manifest, "");
        let found = sh(&bottle, "tar -cf - . | grep -ao 'PLANTED[0-9]*Z' | sort -u").stdout;
        let files = sh(&bottle, "find . -type f -o -type l").ok().to_owned();
        let ordinary = ORDINARY.iter().filter(|name| files.lines().any(|line| line == format!("./{name}"))).count();
        // The repositories still work.
        sh(
            &bottle,
            "git log --oneline && git status --short >/dev/null && git -C nested status && git -C store branch",
        )
        .ok();
        sh(
            &bottle,
            "git remote get-url origin | grep -x https://h.example/a.git && grep -F 'from https://h.example/a.git' .git/logs/HEAD",
        )
        .ok();
        lab.close(&bottle);
        (found.lines().map(str::to_owned).collect::<Vec<_>>(), ordinary)
    };
    // The search finds what a user asks for.
    let (found, _) = arrived(true);
    assert!(found.len() >= CREDENTIALS.len() + KEYS.len(), "{} of {planted}: {found:?}", found.len());
    let (found, ordinary) = arrived(false);
    assert_eq!((found, ordinary), (Vec::new(), ORDINARY.len()), "of {planted} credentials");
}
