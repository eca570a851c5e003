//! The grammars as one file for programs in other languages.

use serde_json::{Map, Value, json};

use crate::grammar::Grammar;
use crate::name::Slug;
use crate::value::{
    AllowedHost, CredentialName, DebianPackage, EntryName, GitUrl, HeaderName, Method, PathPrefix, RouteHost,
};

/// Returns the grammars that the sidecars load, as JSON with one object per value. `cargo xtask schema` writes it to
/// `bottle-sidecars/images/shared/sidecar/grammar.json`.
pub fn json() -> String {
    let values = [
        ("allowed_host", AllowedHost::GRAMMAR),
        ("credential", CredentialName::GRAMMAR),
        ("git_url", GitUrl::GRAMMAR),
        ("header", HeaderName::GRAMMAR),
        ("method", Method::GRAMMAR),
        ("package", DebianPackage::GRAMMAR),
        ("path", PathPrefix::GRAMMAR),
        ("route_host", RouteHost::GRAMMAR),
        ("slug", Slug::GRAMMAR),
        ("upstream", EntryName::GRAMMAR),
    ];
    let entry = |(name, grammar): (&str, Grammar)| {
        let Grammar { accepted, max_length, never, pattern } = grammar;
        (name.to_owned(), json!({"accepted": accepted, "max_length": max_length, "never": never, "pattern": pattern}))
    };
    let values: Map<String, Value> = values.into_iter().map(entry).collect();
    format!("{:#}\n", Value::Object(values))
}
