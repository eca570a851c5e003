//! The one error that a mistake in a manifest gives.

use std::fmt;
use std::path::{Path, PathBuf};

/// A mistake in a manifest: where it is and what would be accepted.
///
/// It reads `bottle.yaml:12: bottles.dev.egress.routes[1].host: …`; file, line and key are left out where unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestError {
    /// The file, when the manifest came from one.
    pub file: Option<PathBuf>,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// The path of the key, such as `bottles.dev.egress.routes[1].host`; empty for the document as a whole.
    pub key: String,
    /// What is wrong, and what is accepted.
    pub message: String,
}

impl ManifestError {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: None, line: None, key: key.into(), message: message.into() }
    }

    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    pub(crate) fn at_line(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some(line)) => write!(f, "line {line}: ")?,
            (None, None) => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ManifestError {}
