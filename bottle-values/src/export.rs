//! The grammars as one file for programs in other languages.

use serde_json::{Map, Value, json};

use crate::grammar::Grammar;
use crate::mask;
use crate::name::Slug;
use crate::value::{DebianPackage, EntryName, EnvName, GitUrl, HeaderName, HostPattern, Method, PathPrefix};

/// Returns the grammars that the sidecars load, as JSON with one object per value. `cargo xtask schema` writes it to
/// `bottle-sidecars/images/shared/sidecar/grammar.json`.
pub fn json() -> String {
    let values = [
        ("credential", EnvName::GRAMMAR, Some(mask::token_pattern())),
        ("git_url", GitUrl::GRAMMAR, None),
        ("header", HeaderName::GRAMMAR, None),
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
