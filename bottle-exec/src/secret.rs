//! Redaction of secrets in the output of tools.

use bottle_values::SecretValue;

/// Replacement for a secret.
pub(crate) const REDACTED: &str = "<redacted>";

/// Minimum length of a value that is redacted, in bytes. A shorter value would match everywhere.
const SHORTEST: usize = 4;

/// Replaces every occurrence of the secrets, and of each line of a secret that has several, in `text`.
pub(crate) fn scrub<'a>(text: &str, secrets: impl IntoIterator<Item = &'a SecretValue>) -> String {
    let mut parts: Vec<&str> = secrets
        .into_iter()
        .flat_map(|secret| std::iter::once(secret.expose().trim()).chain(secret.expose().lines().map(str::trim)))
        .filter(|part| part.len() >= SHORTEST)
        .collect();
    // Longest first, so that no part of a secret that contains another one remains.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.dedup();
    parts.into_iter().fold(text.to_owned(), |text, part| text.replace(part, REDACTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_secret_is_scrubbed_and_the_longest_first() {
        let secrets = [SecretValue::new("abcd"), SecretValue::new("abcdef\nsecond line\n}"), SecretValue::new("")];
        assert_eq!(scrub("x abcdef, second line, abcd, }", &secrets), "x <redacted>, <redacted>, <redacted>, }");
    }
}
