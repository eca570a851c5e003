//! Reading a manifest, with errors that say where.

use std::io::Read;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Manifest, ManifestError};

/// The most that a manifest may hold; what is larger is not a manifest.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;

impl Manifest {
    /// Reads the manifest at `path`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no regular file, is larger than [`MAX_MANIFEST_BYTES`], is not UTF-8, or holds a
    /// mistake.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let text = read_text(path).map_err(|message| ManifestError::new("", message).in_file(path))?;
        Self::parse(&text).map_err(|error| error.in_file(path))
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
    /// When it is not YAML or holds a mistake; the error names line and key.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.trim().is_empty() {
            return Err(ManifestError::new("", "it is empty; accepted: a mapping with `bottles` and `agents`"));
        }
        let documents = serde_yaml::Deserializer::from_str(text).count();
        if documents > 1 {
            return Err(ManifestError::new("", format!("it holds {documents} YAML documents; accepted: one")));
        }
        let manifest: Self = serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(|error| describe(text, &error))?;
        manifest.check().map_err(|error| {
            let line = line_of(text, &error.key);
            error.at_line(line)
        })?;
        Ok(manifest)
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let describe = |error: std::io::Error| format!("it could not be read: {error}");
    let file = std::fs::File::open(path).map_err(describe)?;
    if !file.metadata().map_err(describe)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(describe)?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(format!("it is larger than {} KiB, which no manifest is", MAX_MANIFEST_BYTES >> 10));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|byte| *byte == b'\n').count();
        format!("it is not UTF-8: byte {} on line {line} begins no character", valid + 1)
    })
}

/// Turns a parser's error into ours, with the key's path and the line.
fn describe(text: &str, error: &serde_path_to_error::Error<serde_yaml::Error>) -> ManifestError {
    let path = error.path().to_string();
    let key = if path == "." { String::new() } else { path };
    let inner = error.inner();
    // The parser repeats path and position in its own words; what is left of those is the plain message.
    let message = inner.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let message = message.strip_prefix(&format!("{key}: ")).unwrap_or(message);
    let line = inner.location().map(|place| place.line()).or_else(|| line_of(text, &key));
    ManifestError::new(key, message).at_line(line)
}

/// The line of the value that a key's path leads to, found by walking the document again and failing there on purpose.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let path: Vec<Segment> = segments(key);
    // A key that is missing has no line: its nearest ancestor that is there has one.
    (1..=path.len()).rev().find_map(|depth| {
        let error = Locate(&path[..depth]).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
        error.to_string().contains(FOUND).then(|| error.location().map(|place| place.line()))?
    })
}

/// What the deliberate failure says.
const FOUND: &str = "bottle: found";

enum Segment {
    Key(String),
    Index(usize),
}

/// Splits `bottles.dev.egress.routes[1].host`. No key that can be reported holds a `.` or `[`, but for entry names,
/// whose errors are reported by index.
fn segments(key: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    for part in key.split('.').filter(|part| !part.is_empty()) {
        let (name, indices) = part.split_once('[').unwrap_or((part, ""));
        segments.push(Segment::Key(name.to_owned()));
        let indices = indices.split('[').filter_map(|index| index.trim_end_matches(']').parse().ok());
        segments.extend(indices.map(Segment::Index));
    }
    segments
}

/// Walks to the end of a path and fails there, so that the parser tells the position.
struct Locate<'a>(&'a [Segment]);

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { FOUND } else { "the way to a key" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((Segment::Key(wanted), rest)) = self.0.split_first() else {
            return Err(serde::de::Error::custom(FOUND));
        };
        while let Some(key) = access.next_key::<String>()? {
            if &key == wanted {
                access.next_value_seed(Locate(rest))?;
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((Segment::Index(wanted), rest)) = self.0.split_first() else {
            return Err(serde::de::Error::custom(FOUND));
        };
        for _ in 0..*wanted {
            if access.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        access.next_element_seed(Locate(rest))?;
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
