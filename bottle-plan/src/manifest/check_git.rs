//! The rules of git upstreams.

use std::collections::{BTreeMap, BTreeSet};

use super::known_hosts::names_host;
use super::rule::{Check, Checked, check_username, err, need, one_line, usable_path};
use super::{DeployKeySpec, Forge, GitSpec, UpstreamSpec};
use crate::value::{ByteSize, GitTransport, HostName};

impl GitSpec {
    pub(super) fn check(&self, all: &mut Check, key: &str) {
        if let Some(user) = &self.user {
            for (what, text) in [("name", &user.name), ("email", &user.email)] {
                all.add(one_line(text, || format!("{key}.user.{what}")));
                all.add(need(
                    !text.contains(['<', '>']),
                    || format!("{key}.user.{what}"),
                    "git allows no `<` or `>` there",
                ));
            }
        }
        let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
        let mut addresses = BTreeMap::<&HostName, _>::new();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let key = format!("{key}.upstreams[{index}]");
            all.add(need(names.insert(&upstream.name), || format!("{key}.name"), "another upstream has this name"));
            // The agent may write one repository's URL in many ways. All of them must select one upstream.
            let path = upstream.url.path();
            let repository = (upstream.url.host(), path.strip_suffix(".git").unwrap_or(path));
            all.add(need(urls.insert(repository), || format!("{key}.url"), "another upstream is this repository too"));
            for (host, address) in &upstream.extra_hosts {
                if addresses.insert(host, address).is_some_and(|earlier| earlier != address) {
                    all.add(err(
                        format!("{key}.extra_hosts.{host}"),
                        "another upstream gives this host another address",
                    ));
                }
            }
            upstream.check(all, &key);
        }
    }
}

impl UpstreamSpec {
    fn check(&self, all: &mut Check, key: &str) {
        let ssh = self.url.transport() == GitTransport::Ssh;
        let only_https = "only an https upstream has it";
        let only_ssh = "only an ssh upstream has it";
        all.add(need(!ssh || self.token.is_none(), || format!("{key}.token"), only_https));
        all.add(need(!ssh || self.username.is_none(), || format!("{key}.username"), only_https));
        all.add(need(ssh || self.identity_file.is_none(), || format!("{key}.identity_file"), only_ssh));
        all.add(need(ssh || self.known_hosts.is_empty(), || format!("{key}.known_hosts"), only_ssh));
        all.add(need(ssh || self.deploy_key.is_none(), || format!("{key}.deploy_key"), only_ssh));
        all.add(need(
            self.identity_file.is_none() || self.deploy_key.is_none(),
            || format!("{key}.deploy_key"),
            "`identity_file` is given as well; give one of the two",
        ));
        all.add(need(
            !ssh || self.identity_file.is_some() || self.deploy_key.is_some(),
            || key.to_owned(),
            "an ssh upstream needs `identity_file` or `deploy_key`",
        ));
        all.add(need(
            !ssh || !self.known_hosts.is_empty(),
            || format!("{key}.known_hosts"),
            "an ssh upstream needs the host's public keys, as `ssh-keyscan` prints them",
        ));
        all.add(need(
            self.push.max_size >= ByteSize::kib(1),
            || format!("{key}.push.max_size"),
            "no push is that small; accepted: at least `1KiB`",
        ));
        for (index, line) in self.known_hosts.iter().enumerate() {
            all.add(check_known_host(line, &format!("{key}.known_hosts[{index}]")));
        }
        all.add(need(
            !ssh || self.known_hosts.iter().any(|line| names_host(line, &self.url)),
            || format!("{key}.known_hosts"),
            "no line of it names the URL's host; accepted: `host …`, with a port other than 22 `[host]:port …`",
        ));
        if let Some(path) = &self.identity_file {
            all.add(usable_path(path, || format!("{key}.identity_file")));
        }
        if let Some(username) = &self.username {
            all.add(check_username(username, &format!("{key}.username")));
            all.add(need(self.token.is_some(), || format!("{key}.username"), "it has no effect without `token`"));
        }
        if let Some(deploy_key) = &self.deploy_key {
            deploy_key.check(all, &format!("{key}.deploy_key"));
        }
    }
}

/// Checks a line of `known_hosts`: hosts, key type, key and an optional comment (sshd(8)).
fn check_known_host(line: &str, key: &str) -> Checked {
    one_line(line, || key.to_owned())?;
    let accepted = "accepted: `host key-type base64-key`, as `ssh-keyscan` prints it";
    let fields: Vec<_> = line.split_whitespace().skip_while(|field| *field == "@cert-authority").collect();
    let [hosts, kind, public, ..] = fields.as_slice() else {
        return err(key, format!("it has fewer than three fields; {accepted}"));
    };
    let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| kind.starts_with(start));
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    need(
        !hosts.starts_with(['#', '@']) && known && public.starts_with("AAAA") && public.chars().all(base64),
        || key.to_owned(),
        &format!("it is not such a line; {accepted}"),
    )
}

impl DeployKeySpec {
    fn check(&self, all: &mut Check, key: &str) {
        match &self.api_url {
            Some(url) => all.add(check_api_url(url, &format!("{key}.api_url"))),
            None => all.add(need(
                self.forge != Forge::Gitea,
                || format!("{key}.api_url"),
                "Gitea and Forgejo have no public API to fall back on; accepted: `https://host/api/v1`",
            )),
        }
        if let Some(repository) = &self.repository {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            all.add(one_line(repository, || format!("{key}.repository")));
            all.add(need(
                repository.chars().all(plain) && repository.contains('/') && !repository.contains(".."),
                || format!("{key}.repository"),
                "it is not a repository's name; accepted: `owner/name`",
            ));
        }
    }
}

fn check_api_url(url: &str, key: &str) -> Checked {
    one_line(url, || key.to_owned())?;
    let loopback = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let rest = loopback.iter().find_map(|start| url.strip_prefix(start));
    let loopback = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']));
    need(
        (url.starts_with("https://") || loopback) && !url.contains(['@', '?', '#', ' ']),
        || key.to_owned(),
        "it is not such an address; accepted: `https://host[:port][/path]` without credentials, query or fragment",
    )
}
