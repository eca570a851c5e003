//! A manifest as a tree of values with their places. It is the step between the YAML text and the manifest's types.
//!
//! The size limits of a document are enforced here, because aliases can make a small file huge. Tags and duplicate keys
//! are found here too. A tag or duplicate key does not stop the parsing, so that all mistakes are reported at once. A
//! document above a size limit does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::error::ManifestMistake;
use crate::words::shown;

/// The maximum nesting depth of mappings and lists. A manifest needs eight levels.
const MAX_DEPTH: usize = 32;
/// The maximum number of open brackets, including quoted ones. They are counted before the parser sees them.
const MAX_OPEN_BRACKETS: u32 = 1000;
/// The maximum number of values in a document, with aliases expanded.
const MAX_NODES: usize = 10_000;
/// The maximum number of bytes of all texts in a document, with aliases expanded.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A result whose error stops the parsing.
type Refusal<T> = Result<T, Box<ManifestMistake>>;

/// Creates the mistake that stops the parsing.
fn refusal(problem: &str, span: impl Into<Option<Range<usize>>>) -> Box<ManifestMistake> {
    Box::new(ManifestMistake::new("", problem).with_span(span.into()))
}

/// A value of the document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// The range of bytes in the text. For a mapping or list it is the first character only.
    pub(crate) span: Range<usize>,
    pub(crate) state: State,
}

/// The part that a value plays after mistakes were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It is read as it was written.
    Kept,
    /// A mistake in it was reported, so it is ignored.
    Dropped,
    /// It stands in for a value that has a mistake, or for a required one that is missing. The number is its kind.
    StandIn(u8),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    /// The text that stands in for a key with a mistake.
    pub(crate) read_as: Option<String>,
    pub(crate) node: Node,
}

impl Node {
    /// Parses the only document of a text. Also returns the mistakes that do not stop the parsing.
    pub(crate) fn parse(text: &str) -> Refusal<(Self, Vec<ManifestMistake>)> {
        check_text(text)?;
        let mut builder = Builder { text, ..Builder::default() };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let at = error.marker().byte_offset().unwrap_or(0);
                let problem = match error.info() {
                    deep if deep.contains("recursion limit") => too_deep(),
                    info => format!("it is not YAML: {info}"),
                };
                refusal(&problem, place(text, at))
            })?;
            builder.event(event, span)?;
        }
        let empty = || refusal("it is empty; accepted: a mapping with `bottles` and `agents`", None);
        let root = builder.root.filter(|root| root.value != Value::Null).ok_or_else(empty)?;
        Ok((root, builder.mistakes))
    }

    /// Returns the number of values and keys in this value, itself included, and the bytes of their texts. The depth is
    /// bounded by the number of values.
    fn size(&self) -> (usize, usize) {
        let add = |(nodes, bytes): (usize, usize), (more, text)| (nodes + more, bytes + text);
        match &self.value {
            Value::Text(text) => (1, text.len()),
            Value::List(items) => items.iter().map(Self::size).fold((1, 0), add),
            Value::Mapping(entries) => {
                let sizes = entries.iter().flat_map(|entry| [(1, entry.key.len()), entry.node.size()]);
                sizes.fold((1, 0), add)
            }
            _ => (1, 0),
        }
    }

    /// Returns the value at a path of positions.
    pub(crate) fn at(&mut self, positions: &[usize]) -> Option<&mut Self> {
        positions.iter().try_fold(self, |node, position| match &mut node.value {
            Value::List(items) => items.get_mut(*position),
            Value::Mapping(entries) => entries.get_mut(*position).map(|entry| &mut entry.node),
            _ => None,
        })
    }

    /// Returns the entry of a mapping at a path of positions.
    pub(crate) fn entry_at(&mut self, positions: &[usize]) -> Option<&mut Entry> {
        let (last, outer) = positions.split_last()?;
        match &mut self.at(outer)?.value {
            Value::Mapping(entries) => entries.get_mut(*last),
            _ => None,
        }
    }

    /// Returns the paths that differ between the value that was read and the text, because an item before them was
    /// dropped or a stand-in was read in place of a key.
    pub(crate) fn moved(&self) -> BTreeMap<String, String> {
        let mut moved = BTreeMap::new();
        self.collect_moved("", "", &mut moved);
        moved
    }

    fn collect_moved(&self, read: &str, written: &str, moved: &mut BTreeMap<String, String>) {
        if read != written {
            moved.insert(read.to_owned(), written.to_owned());
        }
        match &self.value {
            Value::List(items) => {
                let kept = items.iter().enumerate().filter(|(_, item)| item.state != State::Dropped);
                for (index, (place, item)) in kept.enumerate() {
                    item.collect_moved(&format!("{read}[{index}]"), &format!("{written}[{place}]"), moved);
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    let key = entry.read_as.as_ref().unwrap_or(&entry.key);
                    let dot = if written.is_empty() { "" } else { "." };
                    let (read, written) = (format!("{read}{dot}{key}"), format!("{written}{dot}{}", shown(&entry.key)));
                    entry.node.collect_moved(&read, &written, moved);
                }
            }
            _ => {}
        }
    }

    /// Returns the place of every key and item by its path, such as `bottles.dev.egress.allow[0]`.
    pub(crate) fn places(&self) -> BTreeMap<String, Range<usize>> {
        let mut places = BTreeMap::new();
        self.collect_places("", &mut places);
        places
    }

    fn collect_places(&self, path: &str, places: &mut BTreeMap<String, Range<usize>>) {
        match &self.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    places.insert(path.clone(), item.span.clone());
                    item.collect_places(&path, places);
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", entry.key);
                    places.insert(path.clone(), entry.place());
                    entry.node.collect_places(&path, places);
                }
            }
            _ => {}
        }
    }
}

impl Entry {
    /// Returns the place at which a mistake in the value is drawn: the value itself if it is a scalar, else its key.
    pub(crate) fn place(&self) -> Range<usize> {
        match self.node.value {
            Value::Null | Value::List(_) | Value::Mapping(_) => self.key_span.clone(),
            _ => self.node.span.clone(),
        }
    }
}

fn too_deep() -> String {
    format!("it is nested deeper than {MAX_DEPTH} levels, which no manifest is")
}

/// Returns the range of the character at a byte offset. The range is empty at a newline and at the end of the text.
fn place(text: &str, at: usize) -> Range<usize> {
    let mut start = at.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let end = text[start..].chars().next().filter(|c| *c != '\n').map_or(start, |c| start + c.len_utf8());
    start..end
}

/// Rejects text in which the parser would find a mistake too late or without a place.
fn check_text(text: &str) -> Refusal<()> {
    let mut open = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            '\t' | '\r' | '\n' | '\u{85}' => {}
            bad if bad.is_control() => {
                let bad = bad.escape_debug();
                let problem = format!("it holds the control character `{bad}`; accepted: `\\x..` in double quotes");
                return Err(refusal(&problem, place(text, at)));
            }
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            let problem = format!("it has more than {MAX_OPEN_BRACKETS} open brackets, which no manifest has");
            return Err(refusal(&problem, place(text, at)));
        }
    }
    Ok(())
}

/// A mapping or list whose end has not been parsed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value has not been parsed yet.
    key: Option<(Key, Range<usize>)>,
}

/// A key of a mapping.
enum Key {
    Text(String),
    /// A key that was reported as a mistake. Its value is parsed and dropped.
    Bad,
}

/// Builds the tree from the parser's events.
#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    bytes: usize,
    mistakes: Vec<ManifestMistake>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Refusal<()> {
        let span = span.byte_range().unwrap_or(0..0);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), &span);
                let node = Node { value: scalar(&text, style), span, state: State::Kept };
                self.count(&node)?;
                self.finish(node, anchor);
                Ok(())
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(Value::List(Vec::new()), anchor, tag.as_deref(), span),
            Event::MappingStart(_, anchor, tag) => self.begin(Value::Mapping(Vec::new()), anchor, tag.as_deref(), span),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    self.finish(open.node, open.anchor);
                    Ok(())
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                // An anchor that is still open has no value yet. The value would contain itself.
                let Some(mut node) = self.anchors.get(&anchor).cloned() else {
                    return Err(refusal("an alias lies in its own anchor", span));
                };
                node.span = span;
                self.count(&node)?;
                self.finish(node, 0);
                Ok(())
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(refusal("it holds several YAML documents; accepted: one", span))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, value: Value, anchor: usize, tag: Option<&Tag>, span: Range<usize>) -> Refusal<()> {
        self.refuse_tag(tag, &span);
        if self.open.len() >= MAX_DEPTH {
            return Err(refusal(&too_deep(), place(self.text, span.start)));
        }
        let span = place(self.text, span.start);
        let node = Node { value, span, state: State::Kept };
        self.count(&node)?;
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Counts a value and everything in it against the limits.
    fn count(&mut self, node: &Node) -> Refusal<()> {
        let (nodes, bytes) = node.size();
        self.nodes += nodes;
        self.bytes += bytes;
        let problem = if self.nodes > MAX_NODES {
            "with its aliases written out it holds more values than any manifest"
        } else if self.bytes > MAX_TEXT_BYTES {
            "with its aliases written out it is larger than any manifest"
        } else {
            return Ok(());
        };
        Err(refusal(problem, place(self.text, node.span.start)))
    }

    /// Adds a complete value to the innermost open value, or makes it the root.
    fn finish(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Mapping(entries), Some((Key::Text(key), key_span))) => {
                entries.push(Entry { key, key_span, read_as: None, node });
            }
            (Value::Mapping(entries), None) => {
                let Node { value, span, .. } = node;
                let is_known = |key: &str| entries.iter().any(|earlier| earlier.key == key);
                let key = match value {
                    Value::Text(key) if !is_known(&key) => Ok(key),
                    Value::Text(key) => Err(format!("`{}` is given twice; each key may be given once", shown(&key))),
                    other => Err(no_key(&other)),
                };
                let (key, problem) = key.map_or_else(|problem| (Key::Bad, Some(problem)), |key| (Key::Text(key), None));
                open.key = Some((key, span.clone()));
                if let Some(problem) = problem {
                    let path = self.path();
                    self.mistakes.push(ManifestMistake::new(path, &problem).with_span(Some(span)));
                }
            }
            _ => {}
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: &Range<usize>) {
        if tag.is_some() {
            let is_key =
                matches!(self.open.last(), Some(Open { node: Node { value: Value::Mapping(_), .. }, key: None, .. }));
            let problem = if is_key {
                "a key has a YAML tag; accepted: text"
            } else {
                "it has a YAML tag; accepted: values without tags"
            };
            let path = self.path_of_next();
            self.mistakes.push(ManifestMistake::new(path, problem).with_span(Some(span.clone())));
        }
    }

    /// Returns the path of the innermost open value.
    fn path(&self) -> String {
        let mut path = String::new();
        for (index, open) in self.open.iter().enumerate() {
            if index + 1 < self.open.len() {
                open.extend(&mut path);
            }
        }
        path
    }

    /// Returns the path of the value that comes next.
    fn path_of_next(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            open.extend(&mut path);
        }
        path
    }
}

impl Open {
    /// Appends the step from this value to the one that is being parsed.
    fn extend(&self, path: &mut String) {
        match (&self.node.value, &self.key) {
            (Value::List(items), _) => drop(write!(path, "[{}]", items.len())),
            (_, Some((Key::Text(key), _))) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&shown(key));
            }
            _ => {}
        }
    }
}

/// Returns what is wrong with a key that is no text.
fn no_key(value: &Value) -> String {
    let (what, hint) = match value {
        Value::Null => ("is empty", ""),
        Value::Bool(_) => ("is a boolean", ", so put it in quotes"),
        Value::Unsigned(_) | Value::Signed(_) | Value::Float(_) => ("is a number", ", so put it in quotes"),
        Value::Text(_) | Value::List(_) => ("is a list", ""),
        Value::Mapping(_) => ("is a mapping", ""),
    };
    format!("a key {what}; accepted: text{hint}")
}

/// Returns the value of a scalar by the core schema of YAML 1.2, except that only decimal numbers are numbers. `0x1f`,
/// `0o17`, `007` and `1_000` are text, so that they stay as they are written.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if decimal && (digits == "0" || !digits.starts_with('0')) {
        return match (text.parse(), text.parse()) {
            (Ok(number), _) => Value::Unsigned(number),
            (_, Ok(number)) => Value::Signed(number),
            _ => Value::Float(text.parse().unwrap_or(f64::INFINITY)),
        };
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().any(|b| b.is_ascii_digit())
        && (!decimal || text.starts_with('+'))
        && unsigned.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && !(unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if numeric => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_follow_the_core_schema() {
        let of = |text: &str| scalar(text, ScalarStyle::Plain);
        for (text, value) in [
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("0", Value::Unsigned(0)),
            ("-7", Value::Signed(-7)),
            ("18446744073709551615", Value::Unsigned(u64::MAX)),
            ("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0)),
            ("1.5", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            ("1e3", Value::Float(1000.0)),
            ("+1", Value::Float(1.0)),
        ] {
            assert_eq!(of(text), value, "{text}");
        }
        for text in [
            "yes",
            "on",
            "1:30",
            "0x1f",
            "0o17",
            "017",
            "007",
            "1_000",
            "2024-01-01",
            "1.2.3",
            "-",
            ".",
            "e3",
            "+",
            "<<",
            "=",
            "00.5",
        ] {
            assert_eq!(of(text), Value::Text(text.into()));
        }
        assert_eq!(scalar("1", ScalarStyle::DoubleQuoted), Value::Text("1".into()));
    }
}
