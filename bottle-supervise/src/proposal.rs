//! A change that the agent proposes.

use std::fmt;
use std::str::FromStr;

use bottle_values::name::{NameError, Slug};
use bottle_values::value::{
    AllowedHost, CredentialName, DebianPackage, EntryName, GitUrl, Method, PathPrefix, RouteHost,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical::canonical;
use super::text;

/// Maximum size of a proposal's file, in bytes.
pub(super) const MAX_BYTES: u64 = 64 * 1024;

const MAX_REASON: usize = 2000;
const MAX_PATCH_BYTES: usize = 16 * 1024;
const MAX_PATHS: usize = 20;
const MAX_METHODS: usize = 20;
const MAX_PACKAGES: usize = 50;

/// Id of a proposal: 13 digits, `-`, 16 characters of `a-z2-7`. Ids sort by age and are safe in a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProposalId(String);

/// A proposed change and its justification. Every string was validated and is safe to show in a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proposal {
    /// Id of the proposal.
    pub id: ProposalId,
    /// Time at which the sidecar accepted the proposal: UTC, `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub created: String,
    /// Slug of the bottle, as it was passed to the sidecar.
    pub slug: Slug,
    /// The agent's reason. It may span lines, and it may be false.
    pub reason: String,
    /// Proposed change.
    pub change: Change,
}

/// Requested change. Its values are those of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Allow requests to a host.
    AllowHost {
        /// Host, or a domain wildcard for a name and everything below it.
        host: AllowedHost,
    },
    /// Add a route through egress.
    Route {
        /// Host, or a label wildcard for every name exactly one label below a name.
        host: RouteHost,
        /// Path prefixes. Empty: every path.
        paths: Vec<PathPrefix>,
        /// Methods. Empty: every method.
        methods: Vec<Method>,
        /// Name of the credential to inject. Absent: none.
        credential: Option<CredentialName>,
    },
    /// Serve a repository through git-gate.
    GitUpstream {
        /// Name that it is served under.
        name: EntryName,
        /// URL of the repository.
        url: GitUrl,
    },
    /// Change the Dockerfile of the agent's image.
    DockerfilePatch(
        /// Lines to add, or a unified diff.
        String,
    ),
    /// Install Debian packages in the agent's image.
    Packages(
        /// Names of the packages. Never empty.
        Vec<DebianPackage>,
    ),
}

/// Reason why a file is not a proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse the proposal: {0}")]
pub struct Malformed(pub(super) &'static str);

impl Change {
    /// Returns the kind, as it is written in files and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AllowHost { .. } => "allow_host",
            Self::Route { .. } => "route",
            Self::GitUpstream { .. } => "git_upstream",
            Self::DockerfilePatch(_) | Self::Packages(_) => "image_change",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowHost { host } => write!(f, "allow the host {}", host.in_words()),
            Self::Route { host, paths, methods, credential } => {
                write!(f, "route {}", host.in_words())?;
                list(f, "paths", paths)?;
                list(f, "methods", methods)?;
                match credential {
                    Some(name) => write!(f, ", with the credential {name}"),
                    None => f.write_str(", without a credential"),
                }
            }
            Self::GitUpstream { name, url } => write!(f, "serve {url} as {name}"),
            Self::DockerfilePatch(patch) => write!(f, "change the Dockerfile:\n{patch}"),
            Self::Packages(names) => {
                f.write_str("install")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, what: &str, items: &[T]) -> fmt::Result {
    if items.is_empty() {
        return write!(f, ", all {what}");
    }
    write!(f, ", {what}")?;
    items.iter().try_for_each(|item| write!(f, " {item}"))
}

impl Proposal {
    /// Reads the exact bytes of a proposal's file.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if they are not canonical JSON, have unknown or missing keys, or a value that is not accepted.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| Malformed("it is not JSON"))?;
        if canonical(&value).is_none_or(|text| text.as_bytes() != bytes) {
            return Err(Malformed("it is not canonical JSON"));
        }
        let file: ProposalFile = fields(value)?;
        require(file.version == 1, "its version is not 1")?;
        require(text::is_timestamp(&file.created), "`created` is not a time")?;
        require(
            !file.agent_reason.is_empty() && file.agent_reason.chars().count() <= MAX_REASON,
            "`agent_reason` is empty or too long",
        )?;
        require(text::is_readable(&file.agent_reason), "`agent_reason` has invisible or control characters")?;
        Ok(Self {
            id: file.id,
            created: file.created,
            slug: parse(&file.slug, "`slug` is not a slug")?,
            reason: file.agent_reason,
            change: change(&file.kind, file.change)?,
        })
    }
}

impl FromStr for ProposalId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let well_formed = text.len() == 30
            && text.bytes().enumerate().all(|(index, byte)| match index {
                0..13 => byte.is_ascii_digit(),
                13 => byte == b'-',
                _ => matches!(byte, b'a'..=b'z' | b'2'..=b'7'),
            });
        require(well_formed, "its id is not 13 digits, `-` and 16 characters of `a-z2-7`")?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ProposalId {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl AsRef<str> for ProposalId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposalFile {
    version: u64,
    id: ProposalId,
    kind: String,
    created: String,
    slug: String,
    agent_reason: String,
    change: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowHostFields {
    host: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFields {
    host: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    credential: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GitUpstreamFields {
    name: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageChangeFields {
    dockerfile_patch: Option<String>,
    packages: Option<Vec<String>>,
}

fn change(kind: &str, value: Value) -> Result<Change, Malformed> {
    match kind {
        "allow_host" => {
            let AllowHostFields { host } = fields(value)?;
            Ok(Change::AllowHost { host: parse(&host, "`host` is neither a DNS name nor a domain wildcard")? })
        }
        "route" => {
            let RouteFields { host, paths, methods, credential } = fields(value)?;
            let credential = credential
                .map(|name| parse(&name, "`credential` is not the name of a credential's variable"))
                .transpose()?;
            Ok(Change::Route {
                host: parse(&host, "`host` is neither a DNS name nor a label wildcard")?,
                paths: parse_set(&paths, MAX_PATHS, "`paths` is not a sorted list of path prefixes")?,
                methods: parse_set(&methods, MAX_METHODS, "`methods` is not a sorted list of methods")?,
                credential,
            })
        }
        "git_upstream" => {
            let GitUpstreamFields { name, url } = fields(value)?;
            Ok(Change::GitUpstream {
                name: parse(&name, "`name` is not a name")?,
                url: parse(&url, "`url` is not the URL of a repository")?,
            })
        }
        "image_change" => match fields(value)? {
            ImageChangeFields { dockerfile_patch: Some(patch), packages: None } => {
                require(
                    !patch.is_empty() && patch.len() <= MAX_PATCH_BYTES,
                    "`dockerfile_patch` is empty or too long",
                )?;
                require(text::is_readable(&patch), "`dockerfile_patch` has invisible or control characters")?;
                Ok(Change::DockerfilePatch(patch))
            }
            ImageChangeFields { dockerfile_patch: None, packages: Some(names) } => {
                require(!names.is_empty(), "`packages` is empty")?;
                Ok(Change::Packages(parse_set(
                    &names,
                    MAX_PACKAGES,
                    "`packages` is not a sorted list of Debian packages",
                )?))
            }
            _ => Err(Malformed("it needs either `dockerfile_patch` or `packages`, and not both")),
        },
        _ => Err(Malformed("its kind is unknown")),
    }
}

fn fields<T: DeserializeOwned>(value: Value) -> Result<T, Malformed> {
    // serde's own error would quote text of an attacker.
    serde_json::from_value(value).map_err(|_| Malformed("a key is missing, unknown or of the wrong type"))
}

/// Parses a value of a plan. The type's own error would quote text of an attacker.
fn parse<T: FromStr<Err = NameError>>(text: &str, otherwise: &'static str) -> Result<T, Malformed> {
    text.parse().map_err(|_| Malformed(otherwise))
}

/// Parses a sorted list without repetition.
fn parse_set<T: FromStr<Err = NameError>>(
    items: &[String],
    limit: usize,
    otherwise: &'static str,
) -> Result<Vec<T>, Malformed> {
    require(items.len() <= limit && items.is_sorted_by(|one, next| one < next), otherwise)?;
    items.iter().map(|item| parse(item, otherwise)).collect()
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed(otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn file(kind: &str, change: &Value) -> Value {
        json!({
            "version": 1, "id": "1700000000000-abcdefghij234567", "kind": kind, "created": "2026-01-02T03:04:05.678Z",
            "slug": "dev-x", "agent_reason": "because", "change": change,
        })
    }

    fn parse(value: &Value) -> Result<Proposal, Malformed> {
        Proposal::parse(canonical(value).unwrap().as_bytes())
    }

    #[test]
    fn every_kind_is_read() {
        for (kind, change, words) in [
            (
                "allow_host",
                json!({"host": "*.a.example"}),
                "allow the host *.a.example (a.example and every name below it)",
            ),
            ("route", json!({"host": "a.example"}), "route a.example, all paths, all methods, without a credential"),
            (
                "route",
                json!({"host": "a.example", "paths": ["/a", "/b"], "methods": ["GET"], "credential": "T"}),
                "route a.example, paths /a /b, methods GET, with the credential T",
            ),
            (
                "route",
                json!({"host": "*.a.example"}),
                "route *.a.example (names exactly one label below a.example), all paths, all methods, without a credential",
            ),
            ("git_upstream", json!({"name": "x", "url": "git@a.example:x"}), "serve git@a.example:x as x"),
            ("image_change", json!({"packages": ["jq"]}), "install jq"),
            ("image_change", json!({"dockerfile_patch": "RUN true"}), "change the Dockerfile:\nRUN true"),
        ] {
            let proposal = parse(&file(kind, &change)).unwrap();
            assert_eq!(proposal.change.kind(), kind);
            assert_eq!(proposal.change.to_string(), words);
        }
    }

    #[test]
    fn values_that_are_not_accepted_are_refused() {
        for (kind, change) in [
            ("allow_host", json!({"host": "127.0.0.1"})),
            ("allow_host", json!({"host": "a.example", "extra": 1})),
            ("allow_host", json!({})),
            ("allow_host", json!([])),
            ("route", json!({"host": "a.example", "paths": ["/b", "/a"]})),
            ("route", json!({"host": "a.example", "methods": ["GET", "GET"]})),
            ("route", json!({"host": "a.example", "credential": "not a name"})),
            ("git_upstream", json!({"name": "..", "url": "git@a.example:x"})),
            ("git_upstream", json!({"name": "x", "url": "ext::sh"})),
            ("image_change", json!({})),
            ("image_change", json!({"packages": []})),
            ("image_change", json!({"packages": ["jq"], "dockerfile_patch": "x"})),
            ("image_change", json!({"dockerfile_patch": "\u{1b}[2J"})),
            ("image_change", json!({"dockerfile_patch": "x".repeat(MAX_PATCH_BYTES + 1)})),
            ("unknown", json!({})),
        ] {
            assert!(parse(&file(kind, &change)).is_err(), "{kind} {change}");
        }
        for (key, value) in [
            ("version", json!(2)),
            ("version", json!(true)),
            ("id", json!("../../etc/passwd")),
            ("created", json!("yesterday")),
            ("slug", json!("Dev")),
            ("agent_reason", json!("")),
            ("agent_reason", json!("x".repeat(MAX_REASON + 1))),
            ("agent_reason", json!("a\u{202e}b")),
            ("extra", json!(1)),
        ] {
            let mut value_with = file("allow_host", &json!({"host": "a.example"}));
            value_with[key] = value;
            assert!(parse(&value_with).is_err(), "{key}");
        }
    }

    #[test]
    fn only_canonical_json_is_a_proposal() {
        let good = canonical(&file("allow_host", &json!({"host": "a.example"}))).unwrap();
        for bad in [
            format!("{good}\n"),
            good.replacen(':', ": ", 1),
            good.replacen("{\"host\"", "{\"host\":\"b.example\",\"host\"", 1),
            good.replacen("because", "b\\u0065cause", 1),
        ] {
            assert_ne!(bad, good);
            assert!(Proposal::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Proposal::parse(&bytes);
        }

        #[test]
        fn what_is_accepted_is_safe_to_show(reason in any::<String>(), host in "[a-z*.\\-]{1,20}") {
            let mut value = file("allow_host", &json!({ "host": host }));
            value["agent_reason"] = json!(reason);
            if let Ok(proposal) = parse(&value) {
                let shown = format!("{} {}", proposal.reason, proposal.change);
                prop_assert!(shown.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            }
        }
    }
}
