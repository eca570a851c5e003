//! Reading a manifest, with errors that say where.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::Read;
use std::path::Path;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Segment;

use super::node::{Mistake, Node, shown};
use super::{Manifest, ManifestError};

/// The most that a manifest may hold; what is larger is not a manifest.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 10;

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
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let document = Node::parse(text)?;
        let manifest: Self = serde_path_to_error::deserialize(&document).map_err(|error| describe(text, &error))?;
        manifest.check().map_err(|error| {
            let line = line_of(text, &error.key);
            error.at_line(line)
        })?;
        Ok(manifest)
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let describe = |error: std::io::Error| format!("it could not be read: {error}");
    // Asked first, since opening a named pipe would wait for whoever writes to it.
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
        format!("it is not UTF-8: byte {} on line {line} begins no character", valid + 1)
    })
}

/// Adds the key's path and the line to a mistake.
fn describe(text: &str, error: &serde_path_to_error::Error<Mistake>) -> ManifestError {
    let mut key = String::new();
    let mut path = String::new();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => {
                let _ = write!(key, "[{index}]");
                let _ = write!(path, "[{index}]");
            }
            Segment::Map { key: name } => {
                let dot = if path.is_empty() { "" } else { "." };
                let _ = write!(key, "{dot}{}", shown(name));
                let _ = write!(path, "{dot}{name}");
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    ManifestError::new(key, error.inner().to_string()).at_line(line_of(text, &path))
}

/// The line of the key that a path leads to, found by walking the document again and failing there on purpose: the
/// parser tells positions only with its errors. A key that is missing has no line; its nearest ancestor that is there
/// has one.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let found = Cell::new(false);
    let mut path = key;
    loop {
        let locate = Locate { path, found: &found };
        if let Err(error) = locate.deserialize(serde_yaml::Deserializer::from_str(text))
            && found.get()
        {
            return error.location().map(|place| place.line());
        }
        path = &path[..path.rfind(['.', '['])?];
    }
}

/// Walks to the end of a path and fails there.
struct Locate<'a> {
    /// What is left of the path, such as `.routes[1].host`.
    path: &'a str,
    found: &'a Cell<bool>,
}

impl<'a> Locate<'a> {
    fn here<E: de::Error>(&self) -> E {
        self.found.set(true);
        E::custom("found")
    }

    /// The rest of the path behind `key`, when that is where the path goes.
    fn behind(&self, key: &str) -> Option<&'a str> {
        let rest = self.path.strip_prefix('.').unwrap_or(self.path).strip_prefix(key)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
    }
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // A value that is no mapping or list fails by itself, at the right place.
        self.found.set(self.path.is_empty());
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if self.path.is_empty() {
            return Err(self.here());
        }
        while let Some(rest) = access.next_key_seed(LocateKey(&self))? {
            match rest {
                Some(rest) => access.next_value_seed(Locate { path: rest, found: self.found })?,
                None => drop(access.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if self.path.is_empty() {
            return Err(self.here());
        }
        let index = self.path.strip_prefix('[').and_then(|path| path.split_once(']'));
        let Some((Ok(wanted), rest)) = index.map(|(index, rest)| (index.parse::<usize>(), rest)) else {
            return Ok(());
        };
        for _ in 0..wanted {
            if access.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        let locate = Locate { path: rest, found: self.found };
        access.next_element_seed(locate)?;
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// A key of a mapping on the way: fails when the path ends here, and gives the rest of the path when it leads on.
struct LocateKey<'a>(&'a Locate<'a>);

impl<'de, 'a> DeserializeSeed<'de> for LocateKey<'a> {
    type Value = Option<&'a str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'_> for LocateKey<'a> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        match self.0.behind(key) {
            Some("") => Err(self.0.here()),
            rest => Ok(rest),
        }
    }
}
