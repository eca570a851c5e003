//! The hosts and routes that a bottle used.

use std::collections::{BTreeMap, BTreeSet};

use bottle_plan::value::AllowedHost;

use crate::audit::line::{AuditLine, AuditOutcome, AuditSource};

/// The hosts and routes of the requests that were answered.
///
/// ```
/// use bottle_sidecars::audit::{AuditLine, Usage};
/// let line = r#"{"ts":"2026-01-02T03:04:05.678Z","sidecar":"egress","event":"request","outcome":"done","method":"GET",
///     "host":"api.example.com","port":8443,"path":"/","status":200}"#;
/// let line: AuditLine = serde_json::from_str(line)?;
/// let usage = Usage::of([line.clone(), line]);
/// assert_eq!((usage.requests, usage.hosts.len()), (2, 1));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Number of requests, or of connections where the bottle has no egress.
    pub requests: usize,
    /// Hosts that were reached without a route, with their ports.
    pub hosts: BTreeMap<AllowedHost, BTreeSet<u16>>,
    /// Names of the routes that requests took.
    pub routes: BTreeSet<String>,
}

impl Usage {
    /// Returns the usage that audit lines show. Where the bottle has egress, only its lines count: it sees each request.
    pub fn of(lines: impl IntoIterator<Item = AuditLine>) -> Self {
        let mut of_egress = Self::default();
        let mut of_pipelock = Self::default();
        let mut has_egress = false;
        for line in lines {
            has_egress |= line.sidecar == AuditSource::Egress;
            if line.outcome != Some(AuditOutcome::Done) {
                continue;
            }
            match (line.sidecar, line.event.as_str()) {
                (AuditSource::Egress, "request") => of_egress.add(&line),
                (AuditSource::Pipelock, "request" | "tunnel") => of_pipelock.add(&line),
                _ => {}
            }
        }
        if has_egress { of_egress } else { of_pipelock }
    }

    fn add(&mut self, line: &AuditLine) {
        if let Some(route) = line.text("route") {
            self.routes.insert(route.to_owned());
        } else if let Some(host) = line.text("host").and_then(|host| host.parse().ok()) {
            self.hosts.entry(host).or_default().extend(line.port());
        } else {
            return;
        }
        self.requests += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sidecar: &str, event: &str, outcome: &str, more: &str) -> AuditLine {
        serde_json::from_str(&format!(
            r#"{{"ts":"2026-01-02T03:04:05.678Z","sidecar":"{sidecar}","event":"{event}","outcome":"{outcome}",{more}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn only_what_was_answered_counts() {
        let lines = [
            line("egress", "request", "done", r#""host":"a.test","port":443"#),
            line("egress", "request", "done", r#""host":"a.test","port":8443"#),
            line("egress", "request", "done", r#""host":"api.test","port":443,"route":"api""#),
            line("egress", "request", "refused", r#""host":"no.test","port":443"#),
            line("egress", "request", "failed", r#""host":"gone.test","port":443"#),
            line("egress", "proposed", "done", r#""host":"asked.test""#),
            line("egress", "request", "done", r#""host":"198.51.100.1","port":80"#),
            line("pipelock", "tunnel", "done", r#""host":"b.test","port":443"#),
        ];
        let usage = Usage::of(lines.clone());
        let hosts: Vec<String> = usage.hosts.iter().map(|(host, ports)| format!("{host} {ports:?}")).collect();
        assert_eq!(hosts, ["a.test {443, 8443}"]);
        assert_eq!((usage.requests, usage.routes), (3, ["api".to_owned()].into()));
        // Without egress, pipelock's lines are all there is.
        assert_eq!(Usage::of(lines[7..].to_vec()).hosts.len(), 1);
    }
}
