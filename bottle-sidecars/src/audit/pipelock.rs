//! Pipelock's log lines as audit lines.

use serde_json::{Map, Value};

use crate::audit::line::{AuditLine, AuditOutcome, AuditSource};

/// Returns a log line of pipelock as an audit line: a `blocked` request as a refused `request` with the scanner as its
/// reason, a `forward_http` as a `request` that was done, a `tunnel_open` as a `tunnel` that was opened, everything else
/// under its own name.
pub(super) fn translated(mut line: Map<String, Value>) -> Option<AuditLine> {
    let mut take = |key: &str| match line.remove(key)? {
        Value::String(text) => Some(text),
        _ => None,
    };
    let ts = with_milliseconds(&take("time")?);
    let event = take("event")?;
    let (scanner, method) = (take("scanner"), take("method"));
    let target = take("url").or_else(|| take("target"));
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
    for (theirs, ours) in [("status_code", "status"), ("size_bytes", "bytes_down"), ("total_bytes", "bytes")] {
        line.remove(theirs).into_iter().for_each(|number| drop(details.insert(ours.to_owned(), number)));
    }
    let (event, outcome) = match &event[..] {
        "blocked" => ("request".to_owned(), Some(AuditOutcome::Refused)),
        "forward_http" => ("request".to_owned(), Some(AuditOutcome::Done)),
        "tunnel_open" => ("tunnel".to_owned(), Some(AuditOutcome::Done)),
        "error" => (event, Some(AuditOutcome::Failed)),
        _ => (event.to_lowercase().replace('_', "-"), None),
    };
    Some(AuditLine {
        ts,
        sidecar: AuditSource::Pipelock,
        event,
        slug: None,
        outcome,
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
    fn what_passed_is_in_the_audit_too() {
        let translated = |json: &str| translated(serde_json::from_str(json).unwrap()).unwrap();
        let request = translated(
            r#"{"event":"forward_http","method":"GET","url":"http://web.test/x?y=1","status_code":404,"size_bytes":10,
                "time":"2026-01-02T03:04:05Z"}"#,
        );
        assert_eq!((&*request.event, request.outcome), ("request", Some(AuditOutcome::Done)));
        assert_eq!(
            (request.text("path"), request.port(), &request.details["status"]),
            (Some("/x"), Some(80), &404.into())
        );
        let tunnel = translated(r#"{"event":"tunnel_open","target":"web.test:443","time":"2026-01-02T03:04:05Z"}"#);
        assert_eq!((&*tunnel.event, tunnel.outcome, tunnel.port()), ("tunnel", Some(AuditOutcome::Done), Some(443)));
        let start = translated(r#"{"event":"startup","listen":"0.0.0.0:8888","time":"2026-01-02T03:04:05Z"}"#);
        assert_eq!((&*start.event, start.outcome, start.details.len()), ("startup", None, 0));
    }

    #[test]
    fn a_target_has_host_port_and_path_without_its_query() {
        assert_eq!(place("a.example.com:8443"), Some(("a.example.com", 8443, None)));
        assert_eq!(place("http://a.example.com/x?token=1"), Some(("a.example.com", 80, Some("/x"))));
        assert_eq!(place("https://u:p@a.example.com?x"), Some(("a.example.com", 443, Some("/"))));
        assert_eq!(place("https://[2001:db8::1]:444/"), Some(("[2001:db8::1]", 444, Some("/"))));
        assert_eq!((place(""), place("http:///x"), place("a:99999")), (None, None, None));
    }
}
