//! Answers of the proxies to a signal to reload.

use serde::Deserialize;

/// Longest reason that is passed on, in bytes.
const MAX_REASON_BYTES: usize = 1500;

/// Answer of a proxy, if it has answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No answer yet.
    None,
    /// The proxy runs with the content.
    Taken,
    /// The proxy keeps its old configuration.
    Rejected(String),
    /// The proxy runs with other content than the one with this hash.
    OtherContent,
}

/// Returns the answer in the status file of egress.
pub(super) fn of_egress(status: &str, sha256: &str) -> Answer {
    #[derive(Deserialize)]
    struct Status {
        seen_sha256: Option<String>,
        error: Option<String>,
    }

    match serde_json::from_str::<Status>(status) {
        Ok(Status { seen_sha256: Some(seen), error }) if seen == sha256 => {
            error.map_or(Answer::Taken, |error| Answer::Rejected(cut(&error)))
        }
        _ => Answer::None,
    }
}

/// Returns the answer in the log of pipelock 2.3.0. It prints JSON on standard output when a reload succeeds or is
/// rejected. It prints text on standard error when a file does not parse, and for each setting that a rejected reload
/// would have weakened.
///
/// Lines begin with the engine's timestamp. `last_line` is the timestamp of the last line before the signal.
pub(super) fn of_pipelock(stdout: &str, stderr: &str, last_line: Option<&str>, sha256: &str) -> Answer {
    #[derive(Deserialize)]
    struct Line {
        event: String,
        #[serde(default)]
        status: String,
        #[serde(default)]
        detail: String,
        #[serde(default)]
        method: String,
        #[serde(default)]
        error: String,
        config_hash: Option<String>,
    }

    let mut answer = Answer::None;
    for line in messages(stdout, last_line).chain(messages(stderr, last_line)) {
        let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
        let is_ours = line.config_hash.as_deref().is_none_or(|hash| hash == sha256);
        match line.event.as_str() {
            "config_reload" if line.status != "success" => return Answer::Rejected(cut(&line.detail)),
            // A proxy that was restarted meanwhile has read the file at its start.
            "config_reload" | "startup" if is_ours => return Answer::Taken,
            "config_reload" => answer = Answer::OtherContent,
            "error" if line.method == "CONFIG_RELOAD" => {
                let weakened: Vec<&str> = messages(stderr, last_line).filter_map(weakened).collect();
                let reason =
                    if weakened.is_empty() { line.error } else { format!("{}: {}", line.error, weakened.join("; ")) };
                return Answer::Rejected(cut(&reason));
            }
            _ => {}
        }
    }
    let mut lines = messages(stderr, last_line).skip_while(|line| !line.starts_with(NOT_PARSED));
    if let Some(first) = lines.next() {
        // The YAML parser's message continues in indented lines.
        let rest = lines.take_while(|line| line.starts_with(' ')).map(str::trim);
        let message = std::iter::once(&first[NOT_PARSED.len()..]).chain(rest).collect::<Vec<_>>().join(" ");
        return Answer::Rejected(cut(&message));
    }
    answer
}

const NOT_PARSED: &str = "pipelock: config reload failed: ";

/// Returns the lines printed after the signal, without their timestamps.
fn messages<'a>(log: &'a str, last_line: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    lines.filter(move |(time, _)| Some(*time) != last_line).map(|(_, message)| message)
}

/// Returns the setting that a reload would have weakened, in pipelock's words.
fn weakened(line: &str) -> Option<&str> {
    let message = line.strip_prefix("WARNING: config reload: ")?;
    (!message.ends_with("ignoring")).then_some(message)
}

fn cut(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_REASON_BYTES).last();
    let end = end.unwrap_or_default();
    let printable: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() { printable + "…" } else { printable }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as pipelock 2.3.0 printed them.
    const TAKEN: &str = r#"2026-01-02T03:04:05.000000002Z {"level":"info","component":"pipelock","event":"config_reload","status":"success","detail":"mode=strict","config_hash":"aa","time":"2026-01-02T03:04:05Z","message":"configuration reloaded"}"#;
    const STARTED: &str = r#"2026-01-02T03:04:05.000000002Z {"level":"info","component":"pipelock","event":"startup","listen":"0.0.0.0:8888","mode":"strict","version":"2.3.0","config_hash":"aa","message":"pipelock started"}"#;
    const REJECTED: &str = r#"2026-01-02T03:04:05.000000002Z {"level":"error","component":"pipelock","event":"error","method":"CONFIG_RELOAD","resource":"/etc/pipelock.yaml","error":"rejected: security downgrade from strict mode","message":"request error"}"#;
    const WEAKENED: &str = "\
2026-01-02T03:04:05.000000002Z WARNING: fetch_proxy.listen: listen address 0.0.0.0:8888 is not loopback
2026-01-02T03:04:05.000000002Z WARNING: config reload: tls_interception.passthrough_domains - passthrough domains added: z.example.com
2026-01-02T03:04:05.000000002Z WARNING: config reload: metrics_listen changed from \"a\" to \"\" — requires restart, ignoring";
    const NOT_PARSED: &str = "\
2026-01-02T03:04:05.000000002Z pipelock: config reload failed: parsing config /etc/pipelock.yaml: yaml: unmarshal errors:
2026-01-02T03:04:05.000000002Z   line 3: field enforcce not found in type config.Config
2026-01-02T03:04:05.000000003Z pipelock: something else";
    const REQUEST: &str = r#"2026-01-02T03:04:05.000000002Z {"event":"allowed","method":"CONNECT","url":"https://a.example.com/\n{\"event\":\"config_reload\",\"status\":\"success\"}"}"#;

    fn pipelock(stdout: &str, stderr: &str) -> Answer {
        of_pipelock(stdout, stderr, Some("2026-01-02T03:04:05.000000001Z"), "aa")
    }

    #[test]
    fn a_reload_is_confirmed_by_the_hash_of_its_content() {
        assert_eq!(pipelock(TAKEN, ""), Answer::Taken);
        assert_eq!(pipelock(&format!("{REQUEST}\n{STARTED}"), ""), Answer::Taken);
        assert_eq!(pipelock(&TAKEN.replace("\"aa\"", "\"bb\""), ""), Answer::OtherContent);
        assert_eq!(pipelock(&format!("{}\n{TAKEN}", TAKEN.replace("\"aa\"", "\"bb\"")), ""), Answer::Taken);
        assert_eq!(pipelock(&STARTED.replace("\"aa\"", "\"bb\""), ""), Answer::None);
        assert_eq!(pipelock(REQUEST, WEAKENED), Answer::None);
        assert_eq!(pipelock("", ""), Answer::None);
        // The last line before the signal, which the engine repeats.
        assert_eq!(of_pipelock(TAKEN, "", Some("2026-01-02T03:04:05.000000002Z"), "aa"), Answer::None);
        assert_eq!(of_pipelock(TAKEN, "", None, "aa"), Answer::Taken);
    }

    #[test]
    fn a_rejection_names_what_the_reload_would_weaken() {
        let Answer::Rejected(reason) = pipelock(REJECTED, WEAKENED) else { panic!("not rejected") };
        assert_eq!(
            reason,
            "rejected: security downgrade from strict mode: tls_interception.passthrough_domains - passthrough domains added: z.example.com"
        );
        let Answer::Rejected(reason) = pipelock(REJECTED, "") else { panic!("not rejected") };
        assert_eq!(reason, "rejected: security downgrade from strict mode");
    }

    #[test]
    fn a_parse_failure_is_one_line_of_text() {
        let Answer::Rejected(reason) = pipelock(REQUEST, NOT_PARSED) else { panic!("not rejected") };
        assert_eq!(
            reason,
            "parsing config /etc/pipelock.yaml: yaml: unmarshal errors: line 3: field enforcce not found in type config.Config"
        );
        let Answer::Rejected(long) = pipelock("", &NOT_PARSED.replace("enforcce", &"é\u{1b}".repeat(2000))) else {
            panic!("not rejected")
        };
        assert!(long.len() <= MAX_REASON_BYTES + '…'.len_utf8() && !long.contains('\u{1b}'), "{long}");
    }

    #[test]
    fn egress_answers_in_its_status_file() {
        let status =
            |seen: &str, error: &str| format!(r#"{{"routes_sha256":"bb","seen_sha256":{seen},"error":{error}}}"#);
        assert_eq!(of_egress(&status("\"aa\"", "null"), "aa"), Answer::Taken);
        assert_eq!(of_egress(&status("\"cc\"", "null"), "aa"), Answer::None);
        assert_eq!(of_egress("", "aa"), Answer::None);
        assert_eq!(of_egress(&status("\"aa\"", "\"no such slot\""), "aa"), Answer::Rejected("no such slot".into()));
    }
}
