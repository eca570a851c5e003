//! Secret values, which must not be printed or stored.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::value::EnvName;

/// A secret value. It cannot be serialized or displayed, its debug output is redacted, and its memory is wiped when it
/// is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// Returns the value itself, for the one place that must pass it on: the environment of a subprocess.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns `true` if the value is the empty string.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if the value can be a header's value as it stands: visible ASCII, with spaces only inside.
    pub fn is_header_text(&self) -> bool {
        self.0.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && *self.0 == self.0.trim_matches(' ')
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(<redacted>)")
    }
}

/// The secret values of one launch, by the name under which Compose finds them in its environment.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<EnvName, SecretValue>);

impl Secrets {
    /// Adds a value. A value that was added earlier under the same name is replaced.
    pub fn insert(&mut self, name: EnvName, value: SecretValue) {
        self.0.insert(name, value);
    }

    /// Returns every name with its value, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&EnvName, &SecretValue)> {
        self.0.iter()
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &EnvName) -> Option<&SecretValue> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_takes_visible_ascii_with_spaces_inside() {
        for (value, is_taken) in [
            ("a b~", true),
            ("", true),
            (" a", false),
            ("a ", false),
            ("a\r\nb", false),
            ("a\n", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(SecretValue::new(value).is_header_text(), is_taken, "{value:?}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let mut secrets = Secrets::default();
        secrets.insert("TOKEN".parse().unwrap(), SecretValue::new("hunter2"));
        let shown = format!("{secrets:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
