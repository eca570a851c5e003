//! Deserializes the manifest's types from a tree. An error holds the place of the value that it is about.

use std::fmt::{self, Write as _};
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor, value,
};
use serde::forward_to_deserialize_any;

use crate::error::{MAX_MISTAKES, ManifestMistake};
use crate::tree::{Entry, Node, State, Value};
use crate::words::{in_words, listed, meant, shown};

/// Reads a type from a tree and collects all mistakes. A value with a mistake is replaced by a stand-in, or
/// dropped if none fits, so that the next mistake can be found. Returns `None` if the mistakes leave nothing to read,
/// or if there are too many of them.
///
/// `unread` receives the paths of the keys that could not be read.
pub(crate) fn read<T: DeserializeOwned>(
    root: &mut Node,
    mistakes: &mut Vec<ManifestMistake>,
    unread: &mut Vec<String>,
) -> Option<T> {
    let mut stand_ins = 0;
    loop {
        let problem = match T::deserialize(Reader { node: root, path: &Path::Root, span: &root.span }) {
            Ok(value) => return Some(value),
            Err(Stop(problem)) => problem,
        };
        let misspelled = |field: &str| {
            mistakes.iter().any(|told| told.suggestion.as_deref() == Some(field) && told.key.starts_with(&problem.key))
        };
        stand_ins += 1;
        let Repair { spurious, go_on } = repair(root, &problem, stand_ins);
        if !spurious && !problem.missing.is_some_and(misspelled) {
            match problem.missing {
                Some(field) => unread.push(join(&problem.key, field)),
                // A stand-in is read in place of the key, and its value as it is.
                None if problem.at_key && !problem.unknown_field => {}
                None => unread.push(problem.key.clone()),
            }
            // A key that was misspelled is not read either.
            if let (Some(meant), Some((parent, _))) = (&problem.suggestion, problem.key.rsplit_once('.')) {
                unread.push(join(parent, meant));
            }
            let mistake = ManifestMistake::new(problem.key, &problem.text);
            mistakes.push(mistake.with_span(problem.span).with_suggestion(problem.suggestion));
        }
        if !go_on || mistakes.len() >= MAX_MISTAKES {
            return None;
        }
    }
}

/// Outcome of handling a problem.
struct Repair {
    /// `true` if the problem only follows from an earlier one.
    spurious: bool,
    /// `true` if the rest of the tree can be read.
    go_on: bool,
}

/// Changes the tree so that the problem does not occur again.
fn repair(root: &mut Node, problem: &Problem, number: usize) -> Repair {
    let nothing = Repair { spurious: false, go_on: false };
    if problem.at_key {
        let Some(entry) = root.entry_at(&problem.positions) else { return nothing };
        let spurious = entry.read_as.is_some();
        let next = match (&entry.read_as, problem.unknown_field) {
            (None, false) => stand_in_text(0, number),
            (Some(tried), false) if tried.starts_with(STAND_IN) => stand_in_text(1, number),
            _ => None,
        };
        match next {
            Some(key) => entry.read_as = Some(key),
            None => entry.node.state = State::Dropped,
        }
        return Repair { spurious, go_on: true };
    }
    let Some(node) = root.at(&problem.positions) else { return nothing };
    let tried = match node.state {
        State::StandIn(kind) => Some(kind),
        State::Kept | State::Dropped => None,
    };
    let mut spurious = tried.is_some();
    if let (Some(field), Value::Mapping(entries)) = (problem.missing, &mut node.value) {
        if entries.iter().all(|entry| entry.key != field) {
            let mut stand_in = Node { value: Value::Null, span: node.span.clone(), state: State::Kept };
            stand_in.stand_in(0, number, None);
            let key_span = node.span.clone();
            entries.push(Entry { key: field.to_owned(), key_span, read_as: None, node: stand_in });
            return Repair { spurious, go_on: true };
        }
        // The field was dropped.
        spurious = true;
    }
    if problem.positions.is_empty() {
        return Repair { spurious, go_on: false };
    }
    node.stand_in(tried.map_or(0, |kind| kind + 1), number, problem.first_variant);
    Repair { spurious, go_on: true }
}

/// The beginning of the first kind of stand-in.
const STAND_IN: &str = "stand-in-";
/// The beginning of the second kind.
const STAND_IN_VARIABLE: &str = "STAND_IN_";

/// Returns a text in place of one with a mistake, or `None` after the last kind. Each kind fits other types. The number
/// makes it unique, so that it equals no other value.
fn stand_in_text(kind: u8, number: usize) -> Option<String> {
    match kind {
        0 => Some(format!("{STAND_IN}{number}")),
        1 => Some(format!("{STAND_IN_VARIABLE}{number}")),
        2 => Some(format!("https://{STAND_IN}{number}.invalid/a")),
        _ => None,
    }
}

impl Node {
    /// Makes the value a stand-in of a kind. After the last kind, the value is dropped.
    fn stand_in(&mut self, kind: u8, number: usize, variant: Option<&str>) {
        self.state = State::StandIn(kind);
        self.value = match (variant, stand_in_text(kind, number)) {
            (Some(variant), _) if kind <= 3 => Value::Text(variant.to_owned()),
            (_, Some(text)) => Value::Text(text),
            (_, None) if kind == 3 => Value::Mapping(Vec::new()),
            (_, None) => {
                self.state = State::Dropped;
                return;
            }
        };
    }
}

/// Returns `true` if a text holds a stand-in.
pub(crate) fn has_stand_in(text: &str) -> bool {
    text.contains(STAND_IN) || text.contains(STAND_IN_VARIABLE)
}

/// Returns the boolean that was probably meant by a text. `yes`, `on` and the like are booleans in YAML 1.1 only.
fn meant_boolean(text: &str) -> Option<String> {
    let boolean = match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" => "true",
        "no" | "n" | "off" => "false",
        other => return meant(other, ["true", "false"]),
    };
    Some(boolean.to_owned())
}

/// Returns the path of a key in a mapping.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path from the document to a value.
enum Path<'a> {
    Root,
    Item(&'a Path<'a>, usize),
    /// The position of the entry, and the entry itself.
    Key(&'a Path<'a>, usize, &'a Entry),
}

impl Path<'_> {
    fn write(&self, out: &mut String, positions: &mut Vec<usize>) {
        match self {
            Self::Root => {}
            Self::Item(outer, index) => {
                outer.write(out, positions);
                let _ = write!(out, "[{index}]");
                positions.push(*index);
            }
            Self::Key(outer, position, entry) => {
                outer.write(out, positions);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&shown(&entry.key));
                positions.push(*position);
            }
        }
    }
}

/// A mistake that was found during deserialization.
#[derive(Debug, Default)]
struct Problem {
    text: String,
    suggestion: Option<String>,
    missing: Option<&'static str>,
    /// The first accepted word, if another word was found in its place.
    first_variant: Option<&'static str>,
    unknown_field: bool,
    /// `true` if the problem is about a key and not about its value.
    at_key: bool,
    placed: bool,
    key: String,
    positions: Vec<usize>,
    span: Option<Range<usize>>,
}

/// The error type with which serde passes a problem to its caller.
#[derive(Debug)]
struct Stop(Box<Problem>);

impl Stop {
    fn new(text: String) -> Self {
        Self(Box::new(Problem { text, ..Problem::default() }))
    }

    /// Sets the problem's place, unless an inner value has already set it.
    fn at(mut self, path: &Path<'_>, span: &Range<usize>) -> Self {
        if !self.0.placed {
            path.write(&mut self.0.key, &mut self.0.positions);
            self.0.placed = true;
            self.0.span = Some(span.clone());
        }
        self
    }

    /// Sets the problem's place to a key.
    fn at_key(mut self, path: &Path<'_>, span: &Range<usize>) -> Self {
        self.0.at_key = !self.0.placed;
        self.at(path, span)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let what = match found {
            Unexpected::Unit | Unexpected::Option => "empty",
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a mapping",
            _ => "text",
        };
        let accepted = in_words(expected);
        let quotes = matches!(what, "a number" | "a boolean") && accepted.contains("text");
        let quotes = if quotes { ", so put it in quotes" } else { "" };
        let mut stop = Self::new(format!("it is {what}; accepted: {accepted}{quotes}"));
        if let Unexpected::Str(text) = found {
            stop.0.suggestion = if accepted.contains("`true`") { meant_boolean(text) } else { None };
        }
        stop
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let what = match found {
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "it is out of range",
            _ => "it does not fit",
        };
        Self::new(format!("{what}; accepted: {}", in_words(expected)))
    }

    fn unknown_variant(variant: &str, accepted: &'static [&'static str]) -> Self {
        let mut stop = Self::new(format!("`{}` is unknown; accepted: {}", shown(variant), listed(accepted)));
        stop.0.suggestion = meant(variant, accepted.iter().copied());
        stop.0.first_variant = accepted.first().copied();
        stop
    }

    fn unknown_field(field: &str, accepted: &'static [&'static str]) -> Self {
        let mut stop = Self::new(format!("the key `{}` is unknown; accepted: {}", shown(field), listed(accepted)));
        stop.0.suggestion = meant(field, accepted.iter().copied());
        stop.0.unknown_field = true;
        stop
    }

    fn missing_field(field: &'static str) -> Self {
        let mut stop = Self::new(format!("the key `{field}` is missing"));
        stop.0.missing = Some(field);
        stop
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is given twice; each key may be given once"))
    }
}

/// A value to read, the path to it, and the place of mistakes in it.
#[derive(Clone, Copy)]
struct Reader<'de, 'p> {
    node: &'de Node,
    path: &'p Path<'p>,
    span: &'p Range<usize>,
}

impl Reader<'_, '_> {
    fn kind(self) -> Unexpected<'static> {
        match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(boolean) => Unexpected::Bool(*boolean),
            Value::Unsigned(number) => Unexpected::Unsigned(*number),
            Value::Signed(number) => Unexpected::Signed(*number),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Text(_) => Unexpected::Other("text"),
            Value::List(_) => Unexpected::Seq,
            Value::Mapping(_) => Unexpected::Map,
        }
    }

    fn placed<T>(self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|stop| stop.at(self.path, self.span))
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.placed(match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(boolean) => visitor.visit_bool(*boolean),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Signed(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { list: items, next: 0, path: self.path }),
            Value::Mapping(entries) => visitor.visit_map(Entries { mapping: entries, next: 0, path: self.path }),
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.node.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// Rejects a list, because the derived types would also accept a list of their fields' values.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.node.value {
            Value::List(_) => self.placed(Err(de::Error::invalid_type(Unexpected::Seq, &"a mapping"))),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.placed(match &self.node.value {
            Value::Text(text) => {
                let text: value::StrDeserializer<'_, Stop> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            // Every enumeration of the manifest is a set of words.
            _ => Err(de::Error::invalid_type(self.kind(), &listed(variants).as_str())),
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de, 'p> {
    list: &'de [Node],
    next: usize,
    path: &'p Path<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        while let Some(node) = self.list.get(self.next) {
            let path = Path::Item(self.path, self.next);
            self.next += 1;
            if node.state != State::Dropped {
                return seed.deserialize(Reader { node, path: &path, span: &node.span }).map(Some);
            }
        }
        Ok(None)
    }
}

struct Entries<'de, 'p> {
    mapping: &'de [Entry],
    next: usize,
    path: &'p Path<'p>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        while let Some(entry) = self.mapping.get(self.next) {
            if entry.node.state != State::Dropped {
                let key = entry.read_as.as_ref().unwrap_or(&entry.key);
                let key: value::BorrowedStrDeserializer<'de, Stop> = value::BorrowedStrDeserializer::new(key);
                let path = Path::Key(self.path, self.next, entry);
                return seed.deserialize(key).map(Some).map_err(|stop| stop.at_key(&path, &entry.key_span));
            }
            self.next += 1;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Some(entry) = self.mapping.get(self.next) else {
            return Err(de::Error::custom("a key has no value"));
        };
        let path = Path::Key(self.path, self.next, entry);
        self.next += 1;
        seed.deserialize(Reader { node: &entry.node, path: &path, span: &entry.place() })
    }
}
