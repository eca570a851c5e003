//! Reading a text with everything that is wrong with it.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{ManifestError, ManifestMistake};
use crate::origin::Origin;
use crate::read::{has_stand_in, read as read_tree};
use crate::tree::Node;

/// A value that was read from a text, and the mistakes in the text.
#[derive(Debug)]
pub struct Reading<T> {
    value: Option<T>,
    mistakes: Vec<ManifestMistake>,
    /// The keys that could not be read.
    unread: Vec<String>,
    tree: Option<Node>,
    origin: Origin,
}

/// Reads a text.
pub fn read<T: DeserializeOwned>(text: &str) -> Reading<T> {
    let (mut root, mut mistakes) = match Node::parse(text) {
        Ok(parsed) => parsed,
        Err(mistake) => {
            let (mistakes, origin) = (vec![*mistake], Origin::new(text));
            return Reading { value: None, mistakes, unread: Vec::new(), tree: None, origin };
        }
    };
    let origin = Origin::new(text);
    // Each of them is about an entry of a mapping, which may be left out.
    let mut unread = mistakes.iter().map(|mistake| format!("{}[]", mistake.key)).collect();
    let value = read_tree(&mut root, &mut mistakes, &mut unread);
    Reading { value, mistakes, unread, tree: Some(root), origin }
}

impl<T> Reading<T> {
    /// Sets the file that the text was read from.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.origin = self.origin.in_file(file);
        self
    }

    /// Returns what could be read. Values with mistakes are replaced by stand-ins, or left out. `None` if the mistakes leave
    /// nothing.
    pub const fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Returns the value and its origin.
    ///
    /// `more` are mistakes that the caller found in [`value`](Self::value). One is left out if it is about a key that could
    /// not be read, or if it names such a key in backticks. `reads` returns the names of the keys that a rule about a key
    /// also reads: those of its siblings, or those in the mapping that is the key's value.
    ///
    /// # Errors
    ///
    /// If there is any mistake. The error holds all of them.
    pub fn finish(
        mut self,
        more: Vec<ManifestMistake>,
        reads: impl Fn(&str) -> &'static [&'static str],
    ) -> Result<(T, Origin), ManifestError> {
        let tree = self.tree.as_ref().filter(|_| !more.is_empty());
        let moved = tree.map(Node::moved).unwrap_or_default();
        let rewrite = |path: &str| {
            let outer = moved.iter().filter(|(read, _)| is_within(path, read)).max_by_key(|(read, _)| read.len());
            outer.map_or_else(|| path.to_owned(), |(read, written)| format!("{written}{}", &path[read.len()..]))
        };
        for mistake in more {
            let subjects = std::iter::once(mistake.key.as_str()).chain(mistake.problem.split('`').skip(1).step_by(2));
            let is_news = !subjects.map(rewrite).any(|subject| {
                let reads = reads(&subject);
                self.unread.iter().any(|unread| depends(&subject, unread, reads))
            });
            let names_one = |text: &String| has_stand_in(text);
            if is_news && !names_one(&mistake.problem) && !mistake.accepted.as_ref().is_some_and(names_one) {
                self.mistakes.push(mistake.rewrite(rewrite));
            }
        }
        match self.value {
            Some(value) if self.mistakes.is_empty() => Ok((value, self.origin)),
            _ => Err(self.origin.error(self.mistakes)),
        }
    }
}

/// Returns `true` if what is said of a key may only follow from a mistake in another one.
fn depends(subject: &str, unread: &str, reads: &[&str]) -> bool {
    let parent = subject.rfind('.').map_or("", |end| &subject[..end]);
    let is_read = |name: &&str| {
        let is_below = |mapping: &str| {
            is_within(unread, &if mapping.is_empty() { (*name).to_owned() } else { format!("{mapping}.{name}") })
        };
        is_below(parent) || is_below(subject)
    };
    is_within(subject, unread) || is_item(unread, subject) || reads.iter().any(is_read)
}

/// Returns `true` if `path` is `outer` or lies within it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Returns `true` if `path` is an item of the list `list`.
fn is_item(path: &str, list: &str) -> bool {
    path.strip_prefix(list).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']') && !rest.contains('.'))
}
