//! Size limit of a crate.

/// Maximum number of lines of Rust in a crate's `src` and examples, including empty lines, comments and included files,
/// without test modules.
const LIMIT: usize = 4_500;

/// Returns the problem if the crate has more lines.
pub(super) fn problem(name: &str, lines: usize) -> Option<String> {
    (lines > LIMIT).then(|| format!("crate `{name}` has {lines} lines of Rust; at most {LIMIT} are one idea"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_above_the_limit_is_found() {
        assert_eq!(problem("a", LIMIT), None);
        let expected = "crate `a` has 4501 lines of Rust; at most 4500 are one idea";
        assert_eq!(problem("a", LIMIT + 1).as_deref(), Some(expected));
    }
}
