//! Values that must be seen nowhere.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::value::EnvName;

/// A secret value: it cannot be serialized, displayed or debug-printed, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Takes a value into custody.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself, for the one place that must hand it on: a subprocess's environment.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(<redacted>)")
    }
}

/// The values of one launch, by the name under which Compose finds them in its environment.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<EnvName, SecretValue>);

impl Secrets {
    /// Adds a value; the last one given for a name counts.
    pub fn insert(&mut self, name: EnvName, value: SecretValue) {
        self.0.insert(name, value);
    }

    /// Every name with its value, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&EnvName, &SecretValue)> {
        self.0.iter()
    }

    /// Whether a value is there for `name`.
    pub fn contains(&self, name: &EnvName) -> bool {
        self.0.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let mut secrets = Secrets::default();
        secrets.insert("TOKEN".parse().unwrap(), SecretValue::new("hunter2"));
        let shown = format!("{secrets:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
