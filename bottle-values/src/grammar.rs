//! Grammars of the values as data, for programs in other languages.
//!
//! A text matches a [`Grammar`] exactly if the type's `FromStr` accepts it. The patterns are regular expressions with
//! the same meaning in ECMAScript and Python.

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
