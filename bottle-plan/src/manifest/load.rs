//! Reads a manifest and reports every mistake in it.

use std::path::Path;

use bottle_yaml::{ManifestError, ManifestMistake, Reading};

use super::check;
use super::spec::Manifest;

/// The maximum size of a manifest in bytes. A larger file is rejected.
pub const MAX_MANIFEST_BYTES: u64 = bottle_yaml::MAX_BYTES;

impl Manifest {
    /// Reads the manifest at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a regular file, is larger than [`MAX_MANIFEST_BYTES`], is not UTF-8, or
    /// contains a mistake.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        let path = path.as_ref();
        let text = bottle_yaml::read_file(path)?;
        Self::checked(bottle_yaml::read(&text).in_file(path))
    }

    /// Parses and checks the text of a manifest.
    ///
    /// ```
    /// use bottle_plan::Manifest;
    /// let manifest = Manifest::parse("bottles: {dev: {}}\nagents: {demo: {bottle: dev, command: [id]}}")?;
    /// assert!(manifest.agents.contains_key(&"demo".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is not YAML or contains a mistake. The error holds every mistake with its line and key.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        Self::checked(bottle_yaml::read(text))
    }

    fn checked(reading: Reading<Self>) -> Result<Self, ManifestError> {
        let broken = reading.value().map(check::broken_rules).unwrap_or_default();
        let (manifest, origin) = reading.finish(broken, check::reads)?;
        Ok(Self { origin, ..manifest })
    }

    /// Creates the error for mistakes that only the caller can find, such as a path that does not exist. Each item is a
    /// key of this manifest and the text of the mistake. The error has the key's line and source line if the manifest
    /// was read or parsed, and the file if it was read from one.
    ///
    /// ```
    /// use bottle_plan::Manifest;
    ///
    /// let text = "bottles: {dev: {workspace: {path: nowhere}}}\nagents: {demo: {bottle: dev, command: [id]}}";
    /// let error = Manifest::parse(text)?.error_at([("bottles.dev.workspace.path".into(), "it does not exist".into())]);
    /// assert_eq!((error.mistakes[0].line, error.mistakes[0].column), (Some(1), Some(35)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn error_at(&self, mistakes: impl IntoIterator<Item = (String, String)>) -> ManifestError {
        self.origin.error(mistakes.into_iter().map(|(key, text)| ManifestMistake::new(key, &text)).collect())
    }
}

impl Manifest {
    /// Returns the directory of the file that the manifest was read from. `None` for a manifest that was parsed or
    /// built in code.
    pub fn dir(&self) -> Option<&Path> {
        self.origin.file()?.parent()
    }
}
