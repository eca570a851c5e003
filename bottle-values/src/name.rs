//! Types for names. A value of such a type is always valid.
//!
//! Each type has a private field. [`FromStr`] is the only way to create a value; `TryFrom<String>` and `Deserialize`
//! use it as well. The error quotes the invalid character and says what is accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::mask::elided;

/// Error of parsing a text as a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {kind}: {reason}; accepted: {accepted}")]
pub struct NameError {
    /// The kind of name that was expected, with its article: "a slug".
    pub kind: &'static str,
    /// The text, shortened to 80 characters, with possible secrets left out.
    pub value: String,
    /// Description of what is wrong with the text, with possible secrets left out.
    pub reason: String,
    /// Description of what is accepted.
    pub accepted: &'static str,
}

/// The maximum number of characters of an invalid text that an error repeats.
const EXCERPT: usize = 80;

impl NameError {
    pub(crate) fn new(kind: &'static str, value: &str, reason: impl Into<String>, accepted: &'static str) -> Self {
        let value = &elided(value);
        let mut shown: String = value.chars().take(EXCERPT).flat_map(char::escape_debug).collect();
        if value.chars().nth(EXCERPT).is_some() {
            shown.push('…');
        }
        Self { kind, value: shown, reason: elided(&reason.into()), accepted }
    }
}

/// Returns an error for an empty text, for a text longer than `longest` characters, and for the first character that
/// `accepts` rejects. `accepts` receives the character's index, counted from 0.
pub(crate) fn check_characters(
    text: &str,
    longest: usize,
    accepts: impl Fn(usize, char) -> bool,
) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some((place, bad)) = text.chars().enumerate().find(|&(place, c)| !accepts(place, c)) {
        return Err(format!("`{}` at character {} is not allowed there", bad.escape_debug(), place + 1));
    }
    let length = text.chars().count();
    if length > longest {
        return Err(format!("it has {length} characters, {longest} are allowed"));
    }
    Ok(())
}

/// Defines a newtype over `String` with `FromStr` and every trait that a name needs.
macro_rules! name_type {
    (
        $(#[$doc:meta])*
        $type:ident, $kind:literal,
        longest $longest:literal, pattern $pattern:expr, $(never $never:expr,)?
        accepted $accepted:literal,
        check $check:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Description of what is accepted.
            pub const ACCEPTED: &'static str = $accepted;

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Creates a value without checking it, for the constants of this project. A test parses each of them.
            #[allow(dead_code, reason = "not every type has a constant")]
            #[doc(hidden)]
            pub fn constant(text: &'static str) -> Self {
                Self(text.to_owned())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::name::NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), String> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(reason) => Err($crate::name::NameError::new($kind, text, reason, $accepted)),
                }
            }
        }

        $crate::name::name_type_traits!($type, $kind, longest $longest, pattern $pattern, $(never $never,)?);
    };
}

/// Implements the traits that every name has, given `FromStr` and `as_str`.
macro_rules! name_type_traits {
    ($type:ident, $kind:literal, longest $longest:literal, pattern $pattern:expr, $(never $never:expr,)?) => {
        impl $type {
            /// Grammar of the type, for programs in other languages.
            pub const GRAMMAR: $crate::grammar::Grammar = {
                #[allow(unused_mut, unused_assignments, reason = "not every name has something that it may not be")]
                let mut never: Option<&'static str> = None;
                $(never = Some($never);)?
                $crate::grammar::Grammar { max_length: $longest, pattern: $pattern, never, accepted: Self::ACCEPTED }
            };
        }

        impl TryFrom<String> for $type {
            type Error = $crate::name::NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::name::deserialize_parsed(deserializer, $kind, Self::ACCEPTED)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                #[allow(unused_mut, reason = "not every name has something that it may not be")]
                let mut schema = schemars::json_schema!({
                    "type": "string", "maxLength": $longest, "pattern": $pattern, "description": Self::ACCEPTED
                });
                // Two plain patterns, because not every regular expression engine supports look-ahead.
                $(schema.insert("not".to_owned(), serde_json::json!({ "pattern": $never }));)?
                schema
            }
        }
    };
}

pub(crate) use {name_type, name_type_traits};

/// Deserializes a string with `FromStr`. A value that is not a string is an error that names the kind.
pub(crate) fn deserialize_parsed<'de, D, T>(
    deserializer: D,
    kind: &'static str,
    accepted: &'static str,
) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = NameError>,
{
    struct Text<T>(&'static str, &'static str, std::marker::PhantomData<T>);

    impl<T: FromStr<Err = NameError>> serde::de::Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} as text ({})", self.0, self.1)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(kind, accepted, std::marker::PhantomData))
}

fn lower_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Checks the rule that slugs, agents and bottles share: lower-case letters, digits and inner hyphens.
fn check_hyphenated(text: &str, longest: usize) -> Result<(), String> {
    check_characters(text, longest, |place, c| lower_digit(c) || (c == '-' && place > 0))?;
    if text.ends_with('-') {
        return Err("it ends with `-`".into());
    }
    Ok(())
}

/// Checks that a slug does not start with a sidecar's name. The agent's container is `<prefix>-<slug>` and a sidecar's
/// is `<prefix>-<service>-<slug>`, so such a slug could take the container name of another bottle's sidecar.
fn check_not_a_sidecar(text: &str) -> Result<(), String> {
    for service in Service::SIDECARS {
        let service = service.as_str();
        if text == service || text.strip_prefix(service).is_some_and(|rest| rest.starts_with('-')) {
            return Err(format!(
                "it begins with the sidecar name `{service}`, so two bottles' containers could share a name"
            ));
        }
    }
    Ok(())
}

name_type! {
    /// The name of one bottle: `[a-z0-9][a-z0-9-]{0,39}`, without a trailing `-`, and not starting with a sidecar's
    /// name.
    ///
    /// ```
    /// use bottle_values::name::Slug;
    /// assert!("fix-parser-2".parse::<Slug>().is_ok());
    /// assert!("Fix".parse::<Slug>().unwrap_err().to_string().contains("`F` at character 1"));
    /// ```
    Slug, "a slug",
    longest 40, pattern r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$", never r"^(?:outlet|pipelock|git-gate|egress|supervise|seal)(?:-|$)",
    accepted "1 to 40 lower-case letters, digits and inner hyphens, not beginning with a sidecar's name",
    check |text| check_hyphenated(text, 40).and_then(|()| check_not_a_sidecar(text))
}

name_type! {
    /// The name of an agent in the manifest. It is short enough that `<agent>-<5 characters>` is a valid [`Slug`].
    AgentName, "an agent name",
    longest 34, pattern r"^[a-z0-9](?:[a-z0-9-]{0,32}[a-z0-9])?$", never r"^(?:outlet|pipelock|git-gate|egress|supervise|seal)(?:-|$)",
    accepted "1 to 34 lower-case letters, digits and inner hyphens, not beginning with a sidecar's name",
    check |text| check_hyphenated(text, 34).and_then(|()| check_not_a_sidecar(text))
}

name_type! {
    /// The name of a bottle in the manifest.
    BottleName, "a bottle name",
    longest 40, pattern r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$",
    accepted "1 to 40 lower-case letters, digits and inner hyphens",
    check |text| check_hyphenated(text, 40)
}

name_type! {
    /// The prefix of every name of a bottle on the engine. Default: `claude-bottle`.
    ///
    /// It has at most 13 characters, so that `<prefix>-pipelock-<slug>` is a DNS label (63 octets, RFC 1035 section
    /// 2.3.4).
    Prefix, "a prefix",
    longest 13, pattern r"^[a-z0-9](?:[a-z0-9-]{0,11}[a-z0-9])?$",
    accepted "1 to 13 lower-case letters, digits and inner hyphens",
    check |text| check_hyphenated(text, 13)
}

impl Default for Prefix {
    fn default() -> Self {
        Self("claude-bottle".to_owned())
    }
}

impl Slug {
    /// Generates a slug for `agent` from five random bytes. Each byte gives one base32 character (RFC 4648, lower
    /// case).
    pub fn generate(agent: &AgentName, random: [u8; 5]) -> Self {
        const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let tail: String = random.iter().map(|byte| char::from(BASE32[usize::from(byte & 31)])).collect();
        Self(format!("{agent}-{tail}"))
    }
}

/// A service of the Compose project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The owner of pipelock's network namespace, which sets its firewall rules.
    Outlet,
    /// The egress firewall.
    Pipelock,
    /// The sidecar that keeps git keys and mirrors git repositories.
    GitGate,
    /// The proxy that injects credentials into requests.
    Egress,
    /// The MCP server through which the agent asks a person for changes.
    Supervise,
    /// The owner of the agent's network namespace, which sets its firewall rules.
    Seal,
    /// The agent.
    Agent,
}

impl Service {
    /// Every sidecar, in the order of the Compose document.
    pub const SIDECARS: [Self; 6] =
        [Self::Outlet, Self::Pipelock, Self::GitGate, Self::Egress, Self::Supervise, Self::Seal];

    /// Returns the service's name in the Compose document, which is also its short host name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outlet => "outlet",
            Self::Pipelock => "pipelock",
            Self::GitGate => "git-gate",
            Self::Egress => "egress",
            Self::Supervise => "supervise",
            Self::Seal => "seal",
            Self::Agent => "agent",
        }
    }
}

impl AsRef<str> for Service {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The names of one bottle's objects on the engine, derived from prefix and slug.
///
/// ```
/// use bottle_values::name::{Names, Prefix, Service};
/// let names = Names::new(Prefix::default(), "demo".parse()?);
/// assert_eq!(names.project(), "claude-bottle-demo");
/// assert_eq!(names.container(Service::Agent), "claude-bottle-demo");
/// assert_eq!(names.container(Service::GitGate), "claude-bottle-git-gate-demo");
/// # Ok::<(), bottle_values::name::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Names {
    prefix: Prefix,
    slug: Slug,
}

impl Names {
    /// Creates the names of bottle `slug` under `prefix`.
    pub const fn new(prefix: Prefix, slug: Slug) -> Self {
        Self { prefix, slug }
    }

    /// Returns the prefix of every name.
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Returns the bottle's slug.
    pub const fn slug(&self) -> &Slug {
        &self.slug
    }

    /// Returns the name of the Compose project, which is the document's top-level `name:`.
    pub fn project(&self) -> String {
        format!("{}-{}", self.prefix, self.slug)
    }

    /// Returns the name of a service's container.
    pub fn container(&self, service: Service) -> String {
        match service {
            Service::Agent => self.project(),
            sidecar => self.sidecar_container(sidecar.as_str()),
        }
    }

    /// Returns the container name of a sidecar that is not in [`Service::SIDECARS`], by the sidecar's name.
    ///
    /// If `name` has at most 8 characters, the result is a DNS label for every prefix and slug.
    pub fn sidecar_container(&self, name: &str) -> String {
        format!("{}-{name}-{}", self.prefix, self.slug)
    }

    /// Returns the name of the container that keeps the bottle's files on an engine that does not see this host's.
    pub fn store(&self) -> String {
        self.sidecar_container("store")
    }

    /// Returns the name of the internal network.
    pub fn internal_network(&self) -> String {
        format!("{}-net-{}", self.prefix, self.slug)
    }

    /// Returns the name of the egress network, which has access to the outside.
    pub fn egress_network(&self) -> String {
        format!("{}-egress-{}", self.prefix, self.slug)
    }

    /// Returns the name of the derived image, which holds the agent's base image and a copy of the workspace.
    pub fn derived_image(&self) -> String {
        format!("{}-workspace:{}", self.prefix, self.slug)
    }

    /// Returns the name of the image that is built from the embedded context `name` with this content hash.
    pub fn built_image(&self, name: &str, content_hash: &str) -> String {
        format!("{}-{name}:{content_hash}", self.prefix)
    }

    /// Returns the labels of each of this bottle's objects on the engine. `state` is the hash of the state root.
    pub fn labels(&self, agent: &AgentName, version: &str, owner: &str, state: &str) -> BTreeMap<String, String> {
        let values = [
            (LabelKey::Slug, self.slug.as_str()),
            (LabelKey::Agent, agent.as_str()),
            (LabelKey::Version, version),
            (LabelKey::Owner, owner),
            (LabelKey::State, state),
        ];
        values.into_iter().map(|(key, value)| (self.label(key), value.to_owned())).collect()
    }

    /// Returns the label `<prefix>.<key>`, which filters the engine's objects for those of bottles.
    pub fn label(&self, key: LabelKey) -> String {
        key.under(&self.prefix)
    }
}

/// A label that every object of a bottle has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LabelKey {
    /// The bottle's slug.
    Slug,
    /// The agent's name in the manifest.
    Agent,
    /// The version of this library.
    Version,
    /// The process id and start time of the launcher.
    Owner,
    /// A hash of the state root that the bottle belongs to.
    State,
    /// A hash of the build context of a cached image.
    Context,
}

impl LabelKey {
    /// Returns the label's full name under a prefix.
    pub fn under(self, prefix: &Prefix) -> String {
        let key = match self {
            Self::Slug => "slug",
            Self::Agent => "agent",
            Self::Version => "version",
            Self::Owner => "owner",
            Self::State => "state",
            Self::Context => "context",
        };
        format!("{prefix}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_only_what_the_pattern_allows() {
        for good in ["a", "0", "a-b", "a--b", &"x".repeat(40), "pipelocks", "agent", "egressive-1"] {
            assert!(good.parse::<Slug>().is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "A", "a_b", "a b", "ä", "a\n", &"x".repeat(41), "pipelock", "git-gate-x", "egress-1"]
        {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_error_names_the_character_and_what_is_accepted() {
        let error = "a/b".parse::<Slug>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`a/b` is not a slug: `/` at character 2 is not allowed there; accepted: 1 to 40 lower-case letters, digits \
             and inner hyphens, not beginning with a sidecar's name"
        );
    }

    #[test]
    fn a_generated_slug_is_a_slug_for_the_longest_agent_name() {
        let agent: AgentName = "a".repeat(34).parse().unwrap();
        for byte in 0..=255 {
            let slug = Slug::generate(&agent, [byte; 5]);
            assert_eq!(slug.as_str().parse::<Slug>().as_ref(), Ok(&slug));
        }
    }

    #[test]
    fn the_longest_names_are_dns_labels() {
        let names = Names::new(Prefix::default(), "x".repeat(40).parse().unwrap());
        assert_eq!(names.container(Service::Pipelock).len(), 63);
        assert_eq!(names.container(Service::GitGate).len(), 63);
    }
}
