//! Size limit of a crate.

use super::source::Tree;

/// Maximum number of lines of Rust in a crate's `src`, including blank lines and comments, without test modules.
const LIMIT: usize = 4_500;

/// Returns the problem if the crate is larger.
pub(super) fn problem(name: &str, tree: &Tree) -> Option<String> {
    exceeds(name, tree.lines())
}

fn exceeds(name: &str, lines: usize) -> Option<String> {
    (lines > LIMIT).then(|| format!("crate `{name}` has {lines} lines of Rust; at most {LIMIT} are one idea"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_above_the_limit_is_found() {
        assert_eq!(exceeds("a", LIMIT), None);
        let expected = "crate `a` has 4501 lines of Rust; at most 4500 are one idea";
        assert_eq!(exceeds("a", LIMIT + 1).as_deref(), Some(expected));
    }
}
