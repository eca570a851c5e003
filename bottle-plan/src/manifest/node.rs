//! A manifest as a tree of plain values: the step between YAML's text and the manifest's types.
//!
//! It is where a document is held to its bounds — aliases can make a small file huge — and where a key written twice is
//! refused, whatever it belongs to. The types are then read from the tree, and their mistakes are put in our own words;
//! none of these repeats a value, since a secret that was put in the wrong place is a value.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor, value,
};
use serde::forward_to_deserialize_any;

use super::ManifestError;

/// How deep mappings and lists may lie in each other; a manifest needs eight levels.
const MAX_DEPTH: usize = 32;
/// How many brackets may be open at once, quoted ones counted too. The scanner is slow on deep ones (26 µs for each) and
/// reads to the end before it can be stopped, so that they are counted before it begins.
const MAX_OPEN_BRACKETS: u32 = 1000;
/// How many values a document may hold, aliases written out.
const MAX_NODES: usize = 10_000;
/// How many bytes the texts of a document may hold together, aliases written out.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A value of the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// Reads the one document of a text.
    pub(super) fn parse(text: &str) -> Result<Self, ManifestError> {
        check_text(text)?;
        let build = Build::default();
        let mut root = None;
        for document in serde_yaml::Deserializer::from_str(text) {
            if root.is_some() {
                return Err(ManifestError::new("", "it holds several YAML documents; accepted: one"));
            }
            let node = build.deserialize(document).map_err(|error| build.describe(&error))?;
            root = Some(node);
        }
        match root {
            None | Some(Self::Null) => {
                Err(ManifestError::new("", "it is empty; accepted: a mapping with `bottles` and `agents`"))
            }
            Some(node) => Ok(node),
        }
    }
}

/// Refuses what the parser would stumble over late or without a line.
fn check_text(text: &str) -> Result<(), ManifestError> {
    let (mut line, mut open) = (1, 0_u32);
    for c in text.chars() {
        match c {
            '\n' => line += 1,
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            '\t' | '\r' | '\u{85}' => {}
            bad if bad.is_control() => {
                let bad = bad.escape_debug();
                let problem = format!("it holds the control character `{bad}`; accepted: `\\x..` in double quotes");
                return Err(ManifestError::new("", problem).at_line(Some(line)));
            }
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            let problem = format!("it has more than {MAX_OPEN_BRACKETS} open brackets, which no manifest has");
            return Err(ManifestError::new("", problem).at_line(Some(line)));
        }
    }
    Ok(())
}

/// Builds a tree, and keeps account of how large it has become and where it is.
#[derive(Default)]
struct Build {
    nodes: Cell<usize>,
    bytes: Cell<usize>,
    depth: Cell<usize>,
    path: RefCell<String>,
    problem: RefCell<Option<String>>,
}

impl Build {
    /// Notes our own words for a problem, and gives the parser something to carry outwards.
    fn refuse<E: de::Error>(&self, problem: impl Into<String>) -> E {
        self.problem.replace(Some(problem.into()));
        E::custom("refused")
    }

    fn describe(&self, error: &serde_yaml::Error) -> ManifestError {
        let line = error.location().map(|place| place.line());
        let message = self.problem.take().unwrap_or_else(|| format!("it is not YAML: {error}"));
        let key = if message.starts_with("it is not YAML") { String::new() } else { self.path.take() };
        ManifestError::new(key, message).at_line(line)
    }

    /// Refuses the document as a whole.
    fn too_much<E: de::Error>(&self, problem: impl Into<String>) -> E {
        self.path.borrow_mut().clear();
        self.refuse(problem)
    }

    fn text<E: de::Error>(&self, text: &str) -> Result<Node, E> {
        self.bytes.set(self.bytes.get() + text.len());
        if self.bytes.get() > MAX_TEXT_BYTES {
            return Err(self.too_much("with its aliases written out it is larger than any manifest"));
        }
        Ok(Node::Text(text.to_owned()))
    }

    /// Goes into a part named `segment`; the path stays there when that fails.
    fn within<T, E>(&self, segment: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let outer = self.path.borrow().len();
        self.path.borrow_mut().push_str(segment);
        let done = work()?;
        self.path.borrow_mut().truncate(outer);
        Ok(done)
    }

    fn deeper<E: de::Error>(&self, work: impl FnOnce() -> Result<Node, E>) -> Result<Node, E> {
        self.depth.set(self.depth.get() + 1);
        if self.depth.get() > MAX_DEPTH {
            return Err(self.too_much(format!("it is nested deeper than {MAX_DEPTH} levels, which no manifest is")));
        }
        let node = work()?;
        self.depth.set(self.depth.get() - 1);
        Ok(node)
    }
}

impl<'de> DeserializeSeed<'de> for &Build {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > MAX_NODES {
            return Err(self.too_much("with its aliases written out it holds more values than any manifest"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Build {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    /// What a document without any content is.
    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Bool(truth))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
        Ok(u64::try_from(number).map_or(Node::Signed(number), Node::Unsigned))
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Float(f64::INFINITY))
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Float(f64::NEG_INFINITY))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        self.deeper(|| {
            let mut items = Vec::new();
            while let Some(item) = self.within(&format!("[{}]", items.len()), || access.next_element_seed(self))? {
                items.push(item);
            }
            Ok(Node::List(items))
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        self.deeper(|| {
            let mut entries: Vec<(String, Node)> = Vec::new();
            while let Some(key) = access.next_key_seed(Key { build: self, earlier: &entries })? {
                let dot = if self.path.borrow().is_empty() { "" } else { "." };
                let node = self.within(&format!("{dot}{}", shown(&key)), || access.next_value_seed(self))?;
                entries.push((key, node));
            }
            Ok(Node::Mapping(entries))
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(self.refuse("it has a YAML tag; accepted: values without tags"))
    }
}

/// A key of a mapping, which is text and new.
struct Key<'a> {
    build: &'a Build,
    earlier: &'a [(String, Node)],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<String, E> {
        self.build.text::<E>(key)?;
        if self.earlier.iter().any(|(earlier, _)| earlier == key) {
            let problem = format!("`{}` is there twice; each key may be given once", shown(key));
            return Err(self.build.refuse(problem));
        }
        Ok(key.to_owned())
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Err(self.build.refuse("a key is empty; accepted: text"))
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<String, E> {
        Err(self.build.refuse(format!("the key `{truth}` is a truth value; accepted: text, so put it in quotes")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Err(self.build.refuse(format!("the key `{number}` is a number; accepted: text, so put it in quotes")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Err(self.build.refuse(format!("the key `{number}` is a number; accepted: text, so put it in quotes")))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Err(self.build.refuse(format!("the key `{number}` is a number; accepted: text, so put it in quotes")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.build.refuse("a key is a list; accepted: text, so put it in quotes"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.build.refuse("a key is a mapping; accepted: text, so put it in quotes"))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(self.build.refuse("a key has a YAML tag; accepted: text"))
    }
}

/// The most of an unknown key that is repeated when it does not look like one.
const KEY_EXCERPT: usize = 12;

/// A key as an error shows it. What cannot be one — `token sk-…` for want of a colon — is cut short, since it may hold a
/// secret.
pub(super) fn shown(key: &str) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if key.len() <= 64 && key.chars().all(usual) {
        return key.to_owned();
    }
    let start: String = key.chars().take(KEY_EXCERPT).flat_map(char::escape_debug).collect();
    if key.chars().nth(KEY_EXCERPT).is_some() { start + "…" } else { start }
}

/// A mistake that the types found, in our words.
#[derive(Debug)]
pub(super) struct Mistake(pub(super) String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let what = match found {
            Unexpected::Unit | Unexpected::Option => "empty",
            Unexpected::Bool(_) => "a truth value",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a mapping",
            _ => "text",
        };
        let accepted = in_words(expected);
        let quotes = matches!(what, "a number" | "a truth value") && accepted.contains("text");
        Self(format!("it is {what}; accepted: {accepted}{}", if quotes { ", so put it in quotes" } else { "" }))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let what = match found {
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "it is out of range",
            _ => "it does not fit",
        };
        Self(format!("{what}; accepted: {}", in_words(expected)))
    }

    fn unknown_variant(variant: &str, accepted: &'static [&'static str]) -> Self {
        Self(format!("`{}` is not known; accepted: {}", shown(variant), listed(accepted)))
    }

    fn unknown_field(field: &str, accepted: &'static [&'static str]) -> Self {
        Self(format!("there is no key `{}` here; accepted: {}", shown(field), listed(accepted)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("the key `{field}` is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self(format!("`{field}` is there twice; each key may be given once"))
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What a type expects, for a person: the derived types and those of others speak of Rust's.
fn in_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    let words = match expected.as_str() {
        // The one number of this width is a port.
        "u16" => "a whole number from 1 to 65535",
        "u32" => "a whole number",
        "a boolean" => "`true` or `false`",
        "a string" => "text",
        "a sequence" => "a list",
        "path string" => "a path as text",
        other if other.starts_with("struct ") || other.starts_with("a map") => "a mapping",
        other if other.starts_with("enum ") || other.contains("identifier") => "one of its words as text",
        other => other,
    };
    words.to_owned()
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self {
            Node::Null => visitor.visit_unit(),
            Node::Bool(truth) => visitor.visit_bool(*truth),
            Node::Unsigned(number) => visitor.visit_u64(*number),
            Node::Signed(number) => visitor.visit_i64(*number),
            Node::Float(number) => visitor.visit_f64(*number),
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(items) => {
                let mut access = value::SeqDeserializer::new(items.iter());
                let done = visitor.visit_seq(&mut access)?;
                access.end().map(|()| done)
            }
            Node::Mapping(entries) => {
                let entries = entries.iter().map(|(key, node)| (key.as_str(), node));
                let mut access = value::MapDeserializer::new(entries);
                let done = visitor.visit_map(&mut access)?;
                access.end().map(|()| done)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        if *self == Node::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// The derived types would take a list of their fields' values as well.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self {
            Node::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"a mapping")),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self {
            Node::Text(text) => {
                let text: value::StrDeserializer<'_, Mistake> = text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            // Every enumeration of the manifest is a list of words.
            _ => Err(de::Error::invalid_type(self.kind(), &listed(variants).as_str())),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl Node {
    fn kind(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(truth) => Unexpected::Bool(*truth),
            Self::Unsigned(number) => Unexpected::Unsigned(*number),
            Self::Signed(number) => Unexpected::Signed(*number),
            Self::Float(number) => Unexpected::Float(*number),
            Self::Text(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Mapping(_) => Unexpected::Map,
        }
    }
}

impl<'de> IntoDeserializer<'de, Mistake> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
