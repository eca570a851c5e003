//! Public errors that no snapshot shows.

use std::fs;
use std::path::Path;

use syn::{Attribute, Item, Visibility};

use super::source::Tree;
use crate::process::Result;

/// The file whose tests format every public error and compare the texts with a snapshot.
const SHOWN_IN: &str = "src/report.rs";

/// Returns the text of the file that has to show every error.
pub(super) fn shown(root: &Path) -> Result<String> {
    Ok(fs::read_to_string(root.join(SHOWN_IN)).map_err(|error| format!("failed to read `{SHOWN_IN}`: {error}"))?)
}

/// Returns one problem for each variant of a public error that `shown` does not name.
pub(super) fn problems(name: &str, tree: &Tree, shown: &str) -> Vec<String> {
    let items = tree.modules.values().flat_map(|module| &module.items);
    let missing = items.flat_map(names).filter(|error| !contains_word(shown, error));
    missing
        .map(|error| format!("crate `{name}` has the error `{error}`, which the tests of `{SHOWN_IN}` do not show"))
        .collect()
}

/// Returns `Enum::Variant` for each variant of a public error, and the name of an error that is a struct.
fn names(item: &Item) -> Vec<String> {
    match item {
        Item::Enum(item) if is_public_error(&item.vis, &item.attrs) => {
            item.variants.iter().map(|variant| format!("{}::{}", item.ident, variant.ident)).collect()
        }
        Item::Struct(item) if is_public_error(&item.vis, &item.attrs) => vec![item.ident.to_string()],
        _ => Vec::new(),
    }
}

fn is_public_error(visibility: &Visibility, attributes: &[Attribute]) -> bool {
    let attributes = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    let mut traits = attributes.flat_map(|attribute| {
        let mut paths = Vec::new();
        // A derive that cannot be read does not compile either.
        let _ = attribute.parse_nested_meta(|meta| {
            paths.extend(meta.path.segments.last().map(|segment| segment.ident.to_string()));
            Ok(())
        });
        paths
    });
    matches!(visibility, Visibility::Public(_)) && traits.any(|name| name == "Error")
}

/// Returns true if `text` has `word`, and not only as a part of a longer name.
fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let ends = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        ends(text[..at].chars().next_back()) && ends(text[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::tree;
    use super::*;

    #[test]
    fn an_error_that_no_test_shows_is_found() {
        let text = "#[derive(Debug, thiserror::Error)]\npub enum AError { One, Two { x: u8 }, Three(u8) }\n\
                    #[derive(Debug, thiserror::Error)]\nenum Private { One }\n\
                    #[derive(Debug, Error)]\npub struct BError;\n#[derive(Debug)]\npub enum NoError { One }\n";
        let tree = tree(&[("lib.rs", text)]);
        let shown = "AError::One, AError::TwoMore, Box::new(AError::Three(7))";
        let expected =
            |error| format!("crate `a` has the error `{error}`, which the tests of `src/report.rs` do not show");
        assert_eq!(problems("a", &tree, shown), [expected("AError::Two"), expected("BError")]);
        assert_eq!(problems("a", &tree, "AError::One AError::Two AError::Three BError"), Vec::<String>::new());
    }
}
