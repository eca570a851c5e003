//! Grammars of the values as data, for programs in other languages.
//!
//! A text matches a [`Grammar`] exactly when the type's `FromStr` accepts it. The patterns are regular expressions that
//! ECMAScript and Python read alike.

use serde_json::{Map, Value, json};

use crate::mask;
use crate::name::Slug;
use crate::value::{DebianPackage, EntryName, EnvName, GitUrl, HostPattern, Method, PathPrefix};

/// Grammar of a type: a text of at most `max_length` characters that matches `pattern` and does not contain `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grammar {
    /// Largest number of characters.
    pub max_length: usize,
    /// Regular expression for the whole text.
    pub pattern: &'static str,
    /// Regular expression that must not match anywhere in the text.
    pub never: Option<&'static str>,
    /// Description of what is accepted.
    pub accepted: &'static str,
}

/// Returns the grammars that the sidecars load, as JSON with one object per value. `cargo xtask schema` writes it to
/// `bottle-sidecars/images/supervise/supervise/grammar.json`.
pub fn json() -> String {
    let values = [
        ("credential", EnvName::GRAMMAR, Some(mask::token_pattern())),
        ("git_url", GitUrl::GRAMMAR, None),
        ("host", HostPattern::GRAMMAR, None),
        ("method", Method::GRAMMAR, None),
        ("package", DebianPackage::GRAMMAR, None),
        ("path", PathPrefix::GRAMMAR, None),
        ("slug", Slug::GRAMMAR, None),
        ("upstream", EntryName::GRAMMAR, None),
    ];
    let entry = |(name, grammar, never): (&str, Grammar, Option<String>)| {
        let never = never.or_else(|| grammar.never.map(ToOwned::to_owned));
        let entry = json!({
            "accepted": grammar.accepted, "max_length": grammar.max_length, "never": never, "pattern": grammar.pattern
        });
        (name.to_owned(), entry)
    };
    let values: Map<String, Value> = values.into_iter().map(entry).collect();
    format!("{:#}\n", Value::Object(values))
}
