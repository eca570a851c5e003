//! Git configuration that redirects the agent's git to git-gate. Its rules rewrite every spelling of an upstream's URL,
//! for fetch and push alike. The remotes in the workspace are not changed.
//!
//! Git matches URLs by prefix, and the longest match wins. The rule for `…/app` also matches `…/app2`, another
//! repository. A longer rule for each character that can follow leaves such URLs unchanged. These rules exist for two
//! spellings, `https://host/path` and the upstream's SSH URL, and for the characters of repository names. Not covered
//! are:
//!
//! - Neighbours in other spellings: `http:`, a user name before the host, the port 443, or another form of an SSH URL.
//! - Names with other characters than letters, digits, `.`, `_`, `-`, `~` and `+`.
//! - Names that begin with the upstream's name and `.git`, except `app.github…` and `app.gitlab…`, the repositories of
//!   pages.
//! - Repositories below an upstream's path (`…/app/docs`), which the usual forges do not have.
//!
//! Git sends such a URL to git-gate, which refuses it, unless it is an upstream itself.

use std::collections::BTreeSet;

use bottle_plan::Service;
use bottle_plan::plan::{GitAuth, GitGatePlan, Upstream};
use bottle_plan::value::{GitTransport, GitUrl};

/// Returns the URL under which the agent reaches an upstream.
pub fn served_url(upstream: &Upstream) -> String {
    format!("git://{}/{}.git", Service::GitGate, upstream.name)
}

/// Characters of a repository's name.
const NAME: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~+";
/// Endings of a name that begin with `.git`: those of the repositories of pages, `app.github.io` and `app.gitlab.io`.
const PAGES: [&str; 2] = [".github", ".gitlab"];

/// Returns the rules for every upstream, as a git configuration file: some 180 rules per upstream, with which
/// `git remote -v` takes some 4 ms more.
pub fn agent_git_config(plan: &GitGatePlan) -> String {
    let mut text = String::new();
    let mut served = BTreeSet::new();
    let mut neighbours = BTreeSet::new();
    for upstream in &plan.upstreams {
        let mut spellings = BTreeSet::from([upstream.url.as_str().to_owned()]);
        for base in bases(upstream) {
            spellings.extend(["", "/", ".git", ".git/"].map(|ending| format!("{base}{ending}")));
        }
        for base in usual_bases(upstream) {
            neighbours.extend(NAME.chars().map(|next| format!("{base}{next}")));
            neighbours.extend(PAGES.map(|ending| format!("{base}{ending}")));
        }
        section(&mut text, &served_url(upstream), &spellings);
        served.extend(spellings);
    }
    for neighbour in neighbours.difference(&served) {
        section(&mut text, neighbour, [neighbour]);
    }
    text
}

/// Writes a value of a git configuration file between quotes.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Appends one section.
fn section<'a>(text: &mut String, url: &str, instead_of: impl IntoIterator<Item = &'a String>) {
    text.extend(["[url ", &quoted(url), "]\n"]);
    for spelling in instead_of {
        text.extend(["\tinsteadOf = ", &quoted(spelling), "\n"]);
    }
}

/// Returns the upstream's path without `.git`.
fn bare_path(upstream: &Upstream) -> &str {
    let path = upstream.url.path();
    path.strip_suffix(".git").unwrap_or(path)
}

/// Returns the port of the upstream's SSH URL.
fn ssh_port(url: &GitUrl) -> u16 {
    url.port().filter(|_| url.transport() == GitTransport::Ssh).unwrap_or(22)
}

/// Returns the two spellings of an upstream's URL that people use most, without `.git` or a trailing slash.
fn usual_bases(upstream: &Upstream) -> [String; 2] {
    let (url, path) = (&upstream.url, bare_path(upstream));
    let (host, user) = (url.host(), url.user().unwrap_or("git"));
    let ssh = match ssh_port(url) {
        22 => format!("{user}@{host}:{path}"),
        port => format!("ssh://{user}@{host}:{port}/{path}"),
    };
    let port = url.port().filter(|_| url.transport() == GitTransport::Https);
    [ssh, format!("https://{host}{}/{path}", port.map(|port| format!(":{port}")).unwrap_or_default())]
}

/// Returns every spelling of an upstream's URL, without `.git` or a trailing slash.
fn bases(upstream: &Upstream) -> BTreeSet<String> {
    let (url, path) = (&upstream.url, bare_path(upstream));
    let host = url.host();
    let ssh_upstream = url.transport() == GitTransport::Ssh;
    let user = url.user().unwrap_or("git");
    let mut bases = BTreeSet::new();

    let ssh_port = ssh_port(url);
    bases.insert(format!("ssh://{user}@{host}:{ssh_port}/{path}"));
    bases.insert(format!("ssh://{host}:{ssh_port}/{path}"));
    if ssh_port == 22 {
        bases.insert(format!("ssh://{user}@{host}/{path}"));
        bases.insert(format!("ssh://{host}/{path}"));
        bases.insert(format!("{user}@{host}:{path}"));
        bases.insert(format!("{user}@{host}:/{path}"));
        bases.insert(format!("{host}:{path}"));
    }

    let mut users = vec![user.to_owned()];
    if let GitAuth::Token { username, .. } = &upstream.auth
        && username.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    {
        users.push(username.clone());
    }
    if let Some(port) = url.port().filter(|_| !ssh_upstream) {
        bases.insert(format!("https://{host}:{port}/{path}"));
        bases.extend(users.iter().map(|user| format!("https://{user}@{host}:{port}/{path}")));
    } else {
        bases.insert(format!("https://{host}/{path}"));
        bases.insert(format!("https://{host}:443/{path}"));
        bases.insert(format!("http://{host}/{path}"));
        bases.extend(users.iter().map(|user| format!("https://{user}@{host}/{path}")));
    }
    bases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use bottle_plan::manifest::PushSpec;

    use super::*;

    fn upstream(name: &str, url: &str, auth: GitAuth) -> Upstream {
        Upstream {
            name: name.parse().unwrap(),
            key: String::new(),
            url: url.parse().unwrap(),
            auth,
            known_hosts: Vec::new(),
            extra_hosts: BTreeMap::new(),
            push: PushSpec::default(),
        }
    }

    fn plan() -> GitGatePlan {
        let token = GitAuth::Token {
            token: "FORGE".parse().unwrap(),
            slot: "GIT_GATE_TOKEN_FORGE".parse().unwrap(),
            username: "x-access-token".into(),
        };
        GitGatePlan {
            upstreams: vec![
                upstream("app", "git@git.example.com:team/app.git", GitAuth::IdentityFile("/k".into())),
                upstream("odd", "ssh://deploy@git.example.com:2222/team/odd", GitAuth::IdentityFile("/k".into())),
                upstream("web", "https://web.example.com/team/web.git", token),
                upstream("port", "https://web.example.com:8443/team/port", GitAuth::Anonymous),
            ],
        }
    }

    #[test]
    fn every_spelling_of_each_kind_of_upstream() {
        let config = agent_git_config(&plan());
        // The rules that leave a URL unchanged are tested with git.
        let (served, neighbours): (Vec<_>, Vec<_>) =
            config.split_inclusive("\n[").partition(|section| section.contains("git://git-gate/"));
        assert_eq!(neighbours.len(), 4 * 2 * (NAME.len() + PAGES.len()));
        assert!(config.matches("insteadOf").count() < 4 * 200);
        insta::assert_snapshot!(served.concat().trim_end_matches('['));
    }

    /// Checks the rules with git itself. Skipped if git is not installed.
    #[test]
    fn git_rewrites_each_upstream_and_leaves_similar_urls_unchanged() {
        if Command::new("git").arg("version").output().is_err() {
            return;
        }
        let git = Git::new(&plan());
        let resolved = |url: &str| git.resolve(&[url.to_owned()]).remove(0);
        for (name, urls) in [
            (
                "app",
                &[
                    "git@git.example.com:team/app.git",
                    "git@git.example.com:/team/app.git",
                    "git.example.com:team/app",
                    "ssh://git@git.example.com/team/app.git/",
                    "ssh://git.example.com:22/team/app",
                    "https://git.example.com/team/app",
                    "https://git.example.com:443/team/app.git",
                    "https://git@git.example.com/team/app/",
                    "http://git.example.com/team/app.git",
                ][..],
            ),
            ("odd", &["ssh://deploy@git.example.com:2222/team/odd.git", "https://git.example.com/team/odd"][..]),
            (
                "web",
                &[
                    "https://web.example.com/team/web",
                    "https://x-access-token@web.example.com/team/web.git",
                    "git@web.example.com:team/web.git",
                ][..],
            ),
            ("port", &["https://web.example.com:8443/team/port.git", "git@web.example.com:team/port"][..]),
        ] {
            for url in urls {
                assert_eq!(resolved(url), format!("git://git-gate/{name}.git"), "{url}");
            }
        }
        for neighbour in [
            "https://git.example.com/team/app-docs.git",
            "https://git.example.com/team/app.js.git",
            "https://git.example.com/team/app.github.io",
            "https://git.example.com/team/app2",
            "git@git.example.com:team/app_x",
            "ssh://deploy@git.example.com:2222/team/odd+.git",
            "https://web.example.com:8443/team/port~1.git",
            "https://git.example.com/other.git",
            "https://web.example.com/team/port.git",
            "ssh://git@git.example.com:2222/team/app.git",
        ] {
            assert_eq!(resolved(neighbour), neighbour);
        }
    }

    /// Git with the rules of a plan.
    struct Git {
        config: tempfile::NamedTempFile,
    }

    impl Git {
        fn new(plan: &GitGatePlan) -> Self {
            let config = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(config.path(), agent_git_config(plan)).unwrap();
            Self { config }
        }

        /// Returns what git makes of each URL. One process reads them all, as URLs of one remote.
        fn resolve(&self, urls: &[String]) -> Vec<String> {
            let dir = tempfile::tempdir().unwrap();
            let git = |args: &[&str]| {
                let mut git = Command::new("git");
                git.args(args).current_dir(dir.path());
                git.env("GIT_CONFIG_GLOBAL", self.config.path()).env("GIT_CONFIG_NOSYSTEM", "1");
                let output = git.output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            };
            git(&["init", "--quiet"]);
            let mut config = std::fs::read_to_string(dir.path().join(".git/config")).unwrap();
            config.push_str("[remote \"all\"]\n");
            for url in urls {
                config.extend(["\turl = ", &quoted(url), "\n"]);
            }
            std::fs::write(dir.path().join(".git/config"), config).unwrap();
            let resolved: Vec<_> = git(&["remote", "get-url", "--all", "all"]).lines().map(str::to_owned).collect();
            assert_eq!(resolved.len(), urls.len());
            resolved
        }
    }

    #[test]
    fn each_character_of_a_name_after_an_upstream_s_name_makes_another_repository() {
        if Command::new("git").arg("version").output().is_err() {
            return;
        }
        // One name begins with another: the rules of neither may hide the other.
        let names = [("app", "app.git"), ("app2", "app2.git"), ("docs", "app/docs"), ("io", "app.github.io")];
        let upstreams = names.map(|(name, path)| {
            upstream(name, &format!("https://git.example.com:8443/team/{path}"), GitAuth::Anonymous)
        });
        let plan = GitGatePlan { upstreams: upstreams.into() };
        let git = Git::new(&plan);
        let mut urls = Vec::new();
        for base in plan.upstreams.iter().flat_map(usual_bases) {
            urls.extend(NAME.chars().map(|next| format!("{base}{next}x/y.git")));
            urls.extend(PAGES.map(|ending| format!("{base}{ending}-x.git")));
        }
        assert_eq!(urls.len(), 4 * 2 * (NAME.len() + PAGES.len()));
        for (url, resolved) in urls.iter().zip(git.resolve(&urls)) {
            assert_eq!(*url, resolved);
        }
        for upstream in &plan.upstreams {
            for base in bases(upstream) {
                let urls = ["", "/", ".git", ".git/"].map(|ending| format!("{base}{ending}"));
                for (url, resolved) in urls.iter().zip(git.resolve(&urls)) {
                    assert_eq!(resolved, served_url(upstream), "{url}");
                }
            }
        }
    }
}
