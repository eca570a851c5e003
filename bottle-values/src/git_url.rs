//! URLs of git upstreams.

use std::str::FromStr;

use crate::host::check_dns_name;
use crate::name::{NameError, check_characters, name_type_traits};

/// The protocol of a git upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GitTransport {
    /// `ssh://[user@]host[:port]/path` or `[user@]host:path`.
    Ssh,
    /// `https://host[:port]/path`.
    Https,
}

/// The URL of a git upstream. It cannot contain a password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitUrl {
    text: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    https: bool,
}

impl GitUrl {
    const ACCEPTED: &str =
        "`ssh://[user@]host[:port]/path`, `[user@]host:path` or `https://host[:port]/path`, without a password";

    /// Returns the URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the protocol.
    pub const fn transport(&self) -> GitTransport {
        if self.https { GitTransport::Https } else { GitTransport::Ssh }
    }

    /// Returns the user that ssh logs in as, or `None` if the URL names none.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the host in lower case: a DNS name or an IPv4 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, or `None` for the scheme's default port (22 for ssh, 443 for https).
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the repository's path, without the leading `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the URL in its canonical form, with a scheme.
    pub fn canonical(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let (scheme, user) = match self.transport() {
            GitTransport::Https => ("https", String::new()),
            GitTransport::Ssh => ("ssh", self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default()),
        };
        format!("{scheme}://{user}{}{port}/{}", self.host, self.path)
    }
}

impl FromStr for GitUrl {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_git_url(text).map_err(|reason| {
            // Text that may hold a password is not repeated.
            let shown = if text.split_once('@').is_some_and(|(before, _)| before.contains(':')) { "…" } else { text };
            NameError::new("a git URL", shown, reason, Self::ACCEPTED)
        })
    }
}

fn parse_git_url(text: &str) -> Result<GitUrl, String> {
    check_characters(text, 1024, |_, c| c.is_ascii_graphic() && !"\"'`\\<>|;*?[]{}$&()".contains(c))?;
    let (https, authority, path) = if let Some(rest) = text.strip_prefix("https://") {
        let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
        (true, authority, path)
    } else if let Some(rest) = text.strip_prefix("ssh://") {
        let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
        (false, authority, path)
    } else if text.contains("://") {
        return Err("its scheme is neither ssh nor https".into());
    } else {
        let (authority, path) = text.split_once(':').ok_or("it has neither a scheme nor `host:path`")?;
        if authority.contains('/') {
            return Err("it is a local path".into());
        }
        if path.starts_with(':') {
            return Err("`NAME::` is the syntax of git's remote helpers".into());
        }
        (false, authority, path.strip_prefix('/').unwrap_or(path))
    };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| user.contains(':')) || (https && user.is_some()) {
        return Err("it holds credentials; give `token` or `identity_file` instead".into());
    }
    if let Some(user) = user {
        check_characters(user, 64, |place, c| {
            c.is_ascii_alphanumeric() || c == '_' || (place > 0 && "-.".contains(c))
        })?;
    }
    let (host, port) = match host.split_once(':') {
        None => (host, None),
        Some((host, port)) => {
            let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
            let port = digits
                .and_then(|port| port.parse::<u16>().ok())
                .filter(|port| *port > 0)
                .ok_or("its port is not 1 to 65535")?;
            (host, Some(port))
        }
    };
    let host = host.to_ascii_lowercase();
    if host.parse::<std::net::Ipv4Addr>().is_err() {
        check_dns_name(&host)?;
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.contains(['#', '%', '@']) || path.starts_with(['-', '/']) {
        return Err("its path is empty or holds a sign that is not allowed".into());
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("its path holds an empty, `.` or `..` segment".into());
    }
    let own_port = if https { 443 } else { 22 };
    Ok(GitUrl {
        text: text.to_owned(),
        user: user.map(ToOwned::to_owned),
        host,
        port: port.filter(|port| *port != own_port),
        path: path.to_owned(),
        https,
    })
}

name_type_traits!(
    GitUrl, "a git URL",
    longest 1024,
    pattern r"^(?:https://(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?::0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/|ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?::0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/|(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?:/?)[A-Za-z0-9_.!+,=~^:][A-Za-z0-9_.!+,=~^:/-]*$",
    never r"^[^/:]*::|[^:/]//+[^/]|/\.{1,2}(?:/|$)|^[^/:]*:\.{1,2}(?:/|$)|.://.*://|^(?!https://|ssh://).*://|(?:^|@|//)[A-Za-z0-9.-]{254,}[:/]|(?:^|@|//)(?!(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])[:/])(?:[A-Za-z0-9-]+\.)*(?:[0-9]+|0[xX][0-9A-Fa-f]*)[:/]",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_urls_come_in_three_forms() {
        let parts = |text: &str| {
            let url: GitUrl = text.parse().unwrap();
            (url.transport(), url.canonical())
        };
        assert_eq!(parts("git@h.example:team/app.git"), (GitTransport::Ssh, "ssh://git@h.example/team/app.git".into()));
        assert_eq!(parts("ssh://git@h.example:22/a.git"), (GitTransport::Ssh, "ssh://git@h.example/a.git".into()));
        assert_eq!(parts("ssh://h.example:2222/a"), (GitTransport::Ssh, "ssh://h.example:2222/a".into()));
        assert_eq!(parts("https://H.example/a/b.git/"), (GitTransport::Https, "https://h.example/a/b.git".into()));
        for bad in [
            "",
            "/srv/x",
            "./x",
            "file:///x",
            "git://h/x",
            "https://u:p@h.example/x",
            "https://u@h.example/x",
            "ssh://u:p@h.example/x",
            "ssh://h.example",
            "ssh://h.example:0/x",
            "-oProxyCommand=x:y",
            "ssh://-o/x",
            "h.example:-x",
            "h.example:a/../b",
            "ext::sh -c x",
            "http://h.example/x",
        ] {
            assert!(bad.parse::<GitUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_git_url_does_not_show_its_password() {
        let error = "https://u:hunter2@h.example/x".parse::<GitUrl>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
