//! Names of tests in `docs/platforms.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Result;

/// The table: which test shows what on which platform.
const TABLE: &str = "docs/platforms.md";

/// Returns a problem for each name in the table that is no test. `files` are relative to `root`.
pub(super) fn problems(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let table = fs::read_to_string(root.join(TABLE))?;
    let mut tests = BTreeSet::new();
    for file in files.iter().filter(|file| file.starts_with("tests") && file.extension().is_some_and(|end| end == "rs"))
    {
        // A file that is deleted in the working tree is skipped.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        tests.extend(text.lines().filter_map(function).map(ToOwned::to_owned));
    }
    Ok(unknown(&table, &tests).map(|name| format!("{TABLE}: `{name}` is no test")).collect())
}

/// Returns the name of the function that begins on a line.
fn function(line: &str) -> Option<&str> {
    line.strip_prefix("fn ")?.split_once('(').map(|(name, _)| name)
}

/// Returns the paths between backticks in the rows of the table that are none of `tests`.
fn unknown<'a>(table: &'a str, tests: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    names.filter(|name| name.rsplit_once("::").is_some_and(|(_, name)| !tests.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_test_is_found() {
        let tests = ["a_test", "other"].map(ToOwned::to_owned).into();
        let table = "`no row`\n| `kill` | `a::a_test`, `b::other` | `b::gone` |\n";
        assert_eq!(unknown(table, &tests).collect::<Vec<_>>(), ["b::gone"]);
        assert_eq!(function("fn a_test() {"), Some("a_test"));
        assert_eq!(function("    fn inner() {"), None);
    }
}
