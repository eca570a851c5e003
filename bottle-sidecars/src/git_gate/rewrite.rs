//! Git configuration that redirects the agent's git to git-gate. Its rules rewrite every spelling of an upstream's URL,
//! for fetch and push alike. The remotes in the workspace are not changed.
//!
//! Git matches URLs by prefix, and the longest match wins.

use std::collections::BTreeSet;

use bottle_plan::Service;
use bottle_plan::plan::{GitAuth, GitGatePlan, Upstream};
use bottle_plan::value::GitTransport;

/// Returns the URL under which the agent reaches an upstream.
pub fn served_url(upstream: &Upstream) -> String {
    format!("git://{}/{}.git", Service::GitGate, upstream.name)
}

/// Returns the rules for every upstream, as a git configuration file.
pub fn agent_git_config(plan: &GitGatePlan) -> String {
    let mut text = String::new();
    for upstream in &plan.upstreams {
        let bases = bases(upstream);
        let mut spellings: Vec<String> = Vec::new();
        for base in &bases {
            spellings.extend(["", "/", ".git", ".git/"].map(|ending| format!("{base}{ending}")));
        }
        let as_written = upstream.url.as_str();
        if !spellings.iter().any(|spelling| spelling == as_written) {
            spellings.push(as_written.to_owned());
        }
        section(&mut text, &served_url(upstream), &spellings);
        // `…/app` is also a prefix of `…/app-docs`. For such neighbours, these longer rules win and leave the URL
        // unchanged.
        for base in &bases {
            for next in ["-", "_", "."] {
                let neighbour = format!("{base}{next}");
                section(&mut text, &neighbour, std::slice::from_ref(&neighbour));
            }
        }
    }
    text
}

/// Appends one section. A `GitUrl` contains no character that needs escaping between quotes.
fn section(text: &mut String, url: &str, instead_of: &[String]) {
    text.extend(["[url \"", url, "\"]\n"]);
    for spelling in instead_of {
        text.extend(["\tinsteadOf = \"", spelling, "\"\n"]);
    }
}

/// Returns every spelling of an upstream's URL, without `.git` or a trailing slash.
fn bases(upstream: &Upstream) -> BTreeSet<String> {
    let url = &upstream.url;
    let (host, path) = (url.host(), url.path());
    let path = path.strip_suffix(".git").unwrap_or(path);
    let ssh_upstream = url.transport() == GitTransport::Ssh;
    let user = url.user().unwrap_or("git");
    let mut bases = BTreeSet::new();

    let ssh_port = if ssh_upstream { url.port().unwrap_or(22) } else { 22 };
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
        insta::assert_snapshot!(agent_git_config(&plan()));
    }

    /// Checks the rules with git itself. Skipped if git is not installed.
    #[test]
    fn git_rewrites_each_upstream_and_leaves_similar_urls_unchanged() {
        if Command::new("git").arg("version").output().is_err() {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), agent_git_config(&plan())).unwrap();
        let resolved = |url: &str| {
            let mut git = Command::new("git");
            git.args(["ls-remote", "--get-url", url]).current_dir("/");
            git.env("GIT_CONFIG_GLOBAL", file.path()).env("GIT_CONFIG_NOSYSTEM", "1");
            String::from_utf8(git.output().unwrap().stdout).unwrap().trim().to_owned()
        };
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
            "git@git.example.com:team/app_x",
            "https://git.example.com/other.git",
            "https://web.example.com/team/port.git",
            "ssh://git@git.example.com:2222/team/app.git",
        ] {
            assert_eq!(resolved(neighbour), neighbour);
        }
    }
}
