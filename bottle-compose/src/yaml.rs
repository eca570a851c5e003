//! A Compose document as YAML that a person likes to read and that every YAML reader understands alike.
//!
//! The general emitters know the words and numbers of one version of YAML. Compose's reader takes some of the other's as
//! well: `no` and `1:30` are a truth value and a number of base 60 to YAML 1.1. So a string is written plain only when it
//! looks like nothing else in any version, and in double quotes otherwise.

mod scalar;
mod writer;

use std::fmt::Write as _;

use serde::Serialize;

use crate::document::ComposeFile;
use scalar::Dollars;
use writer::Writer;

impl ComposeFile {
    /// The document as YAML, with every `$` doubled so that Compose takes it literally.
    pub fn to_yaml(&self) -> String {
        write(self, &self.header, Dollars::Doubled)
    }
}

/// A configuration file as YAML in the same manner, for what is not read by Compose.
pub fn to_plain_yaml(document: &impl Serialize, header: &[String]) -> String {
    write(document, header, Dollars::Kept)
}

fn write(document: &impl Serialize, header: &[String], dollars: Dollars) -> String {
    let mut out = String::with_capacity(16 << 10);
    for line in header {
        // A comment ends with its line, so what is put there must not hold another.
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(out, "{}", format!("# {line}").trim_end());
    }
    let body = out.len();
    // The documents' types hold strings, numbers, truth values, lists and mappings with string keys, all of which have a
    // form. Should one ever not, nothing is better than half a document.
    if document.serialize(Writer::new(&mut out, dollars)).is_err() {
        out.truncate(body);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn lists_and_mappings_lie_in_each_other() {
        let inner = BTreeMap::from([("empty", vec![]), ("list", vec![Some("a"), None, Some("b: c")])]);
        let document = BTreeMap::from([
            ("a mapping of lists", serde_yaml::to_value(&inner).unwrap()),
            ("list of lists", serde_yaml::to_value(vec![vec![1, 2], vec![]]).unwrap()),
            ("list of mappings", serde_yaml::to_value([&inner, &BTreeMap::new()]).unwrap()),
            ("nothing", serde_yaml::Value::Null),
            ("number", serde_yaml::to_value(6.0).unwrap()),
            ("truth", serde_yaml::Value::Bool(true)),
        ]);
        let written = to_plain_yaml(&document, &["one\nline".into(), String::new()]);
        insta::assert_snapshot!(written);
        let read: BTreeMap<String, serde_yaml::Value> = serde_yaml::from_str(&written).unwrap();
        assert_eq!(read.len(), document.len());
        assert!(document.iter().all(|(key, value)| read[*key] == *value), "{written}");
    }

    #[test]
    fn what_has_no_form_gives_no_half_document() {
        assert_eq!(to_plain_yaml(&BTreeMap::from([("a", f64::NAN), ("b", 1.0)]), &["head".into()]), "# head\n");
    }
}
