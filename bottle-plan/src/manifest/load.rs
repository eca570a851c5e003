//! Reads a manifest and reports every mistake in it.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::check::Check;
use super::error::{ManifestError, ManifestMistake};
use super::origin::{Document, Origin};
use super::read;
use super::spec::Manifest;
use super::tree::Node;

/// The maximum size of a manifest in bytes. A larger file is rejected.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 10;

impl Manifest {
    /// Reads the manifest at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a regular file, is larger than [`MAX_MANIFEST_BYTES`], is not UTF-8, or
    /// contains a mistake.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ManifestError> {
        let path = path.as_ref();
        let text = read_text(path).map_err(|problem| ManifestError::unreadable(path, &problem))?;
        let mut manifest = Self::parse(&text).map_err(|error| error.in_file(path))?;
        if let Some(document) = &mut manifest.origin.0 {
            Arc::make_mut(document).file = Some(path.to_owned());
        }
        Ok(manifest)
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
        let mut mistakes = Vec::new();
        let Some((mut root, found)) = Node::parse(text).map_err(|mistake| mistakes.push(*mistake)).ok() else {
            return Err(ManifestError::new(text, mistakes));
        };
        mistakes = found;
        let manifest: Option<Self> = read::read(&mut root, &mut mistakes);
        let places = root.places();
        if let Some(manifest) = &manifest {
            let told: Vec<String> = mistakes.iter().map(|mistake| mistake.key.clone()).collect();
            let check = Check::of(manifest);
            mistakes.extend(check.into_mistakes().into_iter().filter(|mistake| is_news(mistake, &told)).map(
                |mistake| {
                    let span = place_of(&places, &mistake.key);
                    mistake.with_span(span)
                },
            ));
        }
        match manifest {
            Some(manifest) if mistakes.is_empty() => {
                let origin = Origin(Some(Arc::new(Document { file: None, text: text.to_owned(), places })));
                Ok(Self { origin, ..manifest })
            }
            _ => Err(ManifestError::new(text, mistakes)),
        }
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
        let mistakes = mistakes.into_iter().map(|(key, text)| ManifestMistake::new(key, &text)).collect();
        self.error(mistakes)
    }

    /// Creates the error for mistakes, and adds their places.
    pub(crate) fn error(&self, mistakes: Vec<ManifestMistake>) -> ManifestError {
        let Some(origin) = &self.origin.0 else { return ManifestError::without_text(mistakes) };
        let placed = mistakes.into_iter().map(|mistake| {
            let span = place_of(&origin.places, &mistake.key);
            mistake.with_span(span)
        });
        let error = ManifestError::new(&origin.text, placed.collect());
        match &origin.file {
            Some(file) => error.in_file(file),
            None => error,
        }
    }
}

impl Manifest {
    /// Returns the directory of the file that the manifest was read from. `None` for a manifest that was parsed or
    /// built in code.
    pub fn dir(&self) -> Option<&Path> {
        self.origin.0.as_ref()?.file.as_deref()?.parent()
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

/// Returns `true` if a broken rule adds something to the mistakes in `told`, which the types found. A value that was
/// dropped because of such a mistake may be the only reason for the broken rule, and it shifts the items after it.
fn is_news(mistake: &ManifestMistake, told: &[String]) -> bool {
    let key = mistake.key.as_str();
    !told.iter().any(|told| {
        let parent = told.rfind(['.', '[']).map_or("", |end| &told[..end]);
        // A bottle that is invalid as a whole still exists for its agents.
        let bottle =
            (told == "bottles" || parent == "bottles") && key.starts_with("agents.") && key.ends_with(".bottle");
        let list = told.find('[').map_or(told.as_str(), |end| &told[..end]);
        let beside = key.strip_prefix(parent).is_some_and(|rest| rest.matches(['.', '[']).count() <= 1);
        told.starts_with(key) || beside || bottle || (told.contains('[') && key.starts_with(list))
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let describe = |error: std::io::Error| format!("it could not be read: {error}");
    // The file type is checked first, because opening a named pipe would block until another process writes to it.
    if !std::fs::metadata(path).map_err(describe)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(describe)?
        .take(MAX_MANIFEST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(describe)?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(format!("it is larger than {} KiB, which no manifest is", MAX_MANIFEST_BYTES >> 10));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|byte| *byte == b'\n').count();
        format!("invalid UTF-8 at line {line}, byte {}", valid + 1)
    })
}
