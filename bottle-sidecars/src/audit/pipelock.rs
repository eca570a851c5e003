//! Pipelock's log lines as audit lines.

use serde_json::{Map, Value};

use crate::audit::line::{AuditLine, AuditOutcome, AuditSource};

/// Returns a log line of pipelock as an audit line: a `blocked` request as a refused `request` with the scanner as its
/// reason, everything else under its own name.
pub(super) fn translated(mut line: Map<String, Value>) -> Option<AuditLine> {
    let mut take = |key: &str| match line.remove(key)? {
        Value::String(text) => Some(text),
        _ => None,
    };
    let ts = with_milliseconds(&take("time")?);
    let event = take("event")?;
    let (scanner, method) = (take("scanner"), take("method"));
    let target = take("url").or_else(|| take("target"));
    let is_blocked = event == "blocked";
    let mut details = Map::new();
    let mut put = |key: &str, value: Value| drop(details.insert(key.to_owned(), value));
    if let Some((host, port, path)) = target.as_deref().and_then(place) {
        put("host", host.into());
        put("port", port.into());
        put("path", path.into());
    }
    if let Some(method) = method {
        put("method", method.into());
    }
    if let Some(why) = take("reason").or_else(|| take("error")) {
        put("detail", why.into());
    }
    Some(AuditLine {
        ts,
        sidecar: AuditSource::Pipelock,
        event: if is_blocked { "request".to_owned() } else { event.to_lowercase().replace('_', "-") },
        slug: None,
        outcome: match event.as_str() {
            "blocked" => Some(AuditOutcome::Refused),
            "error" => Some(AuditOutcome::Failed),
            _ => None,
        },
        reason: scanner,
        finding: None,
        details,
    })
}

/// Returns host, port and path of a URL, or of the `host:port` of a CONNECT, without the query.
fn place(target: &str) -> Option<(&str, u16, Option<&str>)> {
    let (scheme, rest) = target.split_once("://").map_or((None, target), |(scheme, rest)| (Some(scheme), rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let default = if scheme == Some("http") { 80 } else { 443 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, if port.is_empty() { default } else { port.parse().ok()? })
        }
        _ => (authority, default),
    };
    let path = scheme.map(|_| path.split(['?', '#']).next().filter(|path| !path.is_empty()).unwrap_or("/"));
    (!host.is_empty()).then_some((host, port, path))
}

/// Adds the milliseconds that pipelock leaves out, so that times of all sidecars sort as text.
fn with_milliseconds(time: &str) -> String {
    match time.strip_suffix('Z') {
        Some(seconds) if !seconds.contains('.') => format!("{seconds}.000Z"),
        _ => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_host_port_and_path_without_its_query() {
        assert_eq!(place("a.example.com:8443"), Some(("a.example.com", 8443, None)));
        assert_eq!(place("http://a.example.com/x?token=1"), Some(("a.example.com", 80, Some("/x"))));
        assert_eq!(place("https://u:p@a.example.com?x"), Some(("a.example.com", 443, Some("/"))));
        assert_eq!(place("https://[2001:db8::1]:444/"), Some(("[2001:db8::1]", 444, Some("/"))));
        assert_eq!((place(""), place("http:///x"), place("a:99999")), (None, None, None));
    }
}
