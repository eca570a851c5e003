//! The text that a manifest was read from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// The text that a manifest was read from. It is ignored when manifests are compared.
#[derive(Clone, Default)]
pub(super) struct Origin(pub(super) Option<Arc<Document>>);

#[derive(Clone)]
pub(super) struct Document {
    pub(super) file: Option<PathBuf>,
    pub(super) text: String,
    pub(super) places: BTreeMap<String, Range<usize>>,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Origin {
    /// Leaves the text out, because it may contain secrets that are not part of the manifest, such as one in a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "read from a text" } else { "made in code" })
    }
}
