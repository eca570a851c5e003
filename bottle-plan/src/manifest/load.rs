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
        let broken = reading.value().map(Self::broken_rules).unwrap_or_default();
        Self::finish(reading, broken)
    }

    /// Returns the manifest of a reading, or the error with its own mistakes and `more`.
    pub(crate) fn finish(reading: Reading<Self>, more: Vec<ManifestMistake>) -> Result<Self, ManifestError> {
        let (manifest, origin) = reading.finish(more, check::reads)?;
        Ok(Self { origin, ..manifest })
    }

    /// Returns the directory of the file that the manifest was read from. `None` for a manifest that was parsed or
    /// built in code.
    pub fn dir(&self) -> Option<&Path> {
        self.origin.file()?.parent()
    }
}
