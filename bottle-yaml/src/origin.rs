//! The text that a value was read from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{ManifestError, ManifestMistake};
use crate::tree::Node;

/// The text that a value was read from. It is ignored when values are compared, and empty for
/// a value that was made in code.
#[derive(Clone, Default)]
pub struct Origin(Option<Arc<Document>>);

#[derive(Clone)]
struct Document {
    file: Option<PathBuf>,
    text: String,
}

impl Origin {
    pub(crate) fn new(text: &str) -> Self {
        Self(Some(Arc::new(Document { file: None, text: text.to_owned() })))
    }

    /// Sets the file that the text was read from. An empty origin stays empty.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        if let Some(document) = &mut self.0 {
            Arc::make_mut(document).file = Some(file.to_owned());
        }
        self
    }

    /// Returns the file that the text was read from, or `None` if it did not come from a file.
    pub fn file(&self) -> Option<&Path> {
        self.0.as_ref()?.file.as_deref()
    }

    /// Creates the error for mistakes, and adds their places. The text is parsed for them again: most texts have no mistake.
    pub fn error(&self, mistakes: Vec<ManifestMistake>) -> ManifestError {
        let Some(document) = &self.0 else { return ManifestError::without_text(mistakes) };
        let known = Node::parse(&document.text).map(|(root, _)| root.places()).unwrap_or_default();
        let placed = mistakes.into_iter().map(|mistake| {
            if mistake.has_span() {
                return mistake;
            }
            let span = place_of(&known, &mistake.key);
            mistake.with_span(span)
        });
        let error = ManifestError::new(&document.text, placed.collect());
        match &document.file {
            Some(file) => error.in_file(file),
            None => error,
        }
    }
}

/// Returns the place of a key, or of its nearest parent that is in the text.
fn place_of(places: &BTreeMap<String, Range<usize>>, key: &str) -> Option<Range<usize>> {
    let mut key = key;
    loop {
        if let Some(place) = places.get(key) {
            return Some(place.clone());
        }
        key = &key[..key.rfind(['.', '['])?];
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Origin {
    /// Leaves the text out, because it may contain secrets that are not part of the value, such as one in a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "read from a text" } else { "made in code" })
    }
}
