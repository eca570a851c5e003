//! The outcome of rules, and the rules about one text that several keys share.

use std::path::Path;

use bottle_yaml::{MAX_MISTAKES, ManifestMistake};

use crate::value::EnvName;

/// The outcome of one rule.
pub(super) type Checked = Result<(), Box<ManifestMistake>>;

/// The mistakes of the rules that a manifest breaks.
#[derive(Default)]
pub(super) struct Check {
    pub(super) mistakes: Vec<ManifestMistake>,
}

impl Check {
    pub(super) fn add(&mut self, checked: Checked) {
        // A second mistake at the same key would only repeat the first.
        let news = |mistake: &ManifestMistake| self.mistakes.iter().all(|told| told.key != mistake.key);
        if self.mistakes.len() < MAX_MISTAKES {
            self.mistakes.extend(checked.err().map(|mistake| *mistake).filter(news));
        }
    }
}

pub(super) fn err(key: impl Into<String>, text: impl AsRef<str>) -> Checked {
    Err(Box::new(ManifestMistake::new(key, text.as_ref())))
}

/// Returns an error with `message` unless `right` is `true`.
pub(super) fn need(right: bool, key: impl FnOnce() -> String, message: &str) -> Checked {
    if right { Ok(()) } else { err(key(), message) }
}

/// Checks text that is written to one line of a file: it must not be empty or contain control characters.
pub(super) fn one_line(text: &str, key: impl FnOnce() -> String) -> Checked {
    match text.chars().find(|c| c.is_control()) {
        Some(bad) => err(key(), format!("it holds the control character `{}`; accepted: one line", bad.escape_debug())),
        None => need(!text.is_empty(), key, "it is empty"),
    }
}

pub(super) fn usable_path(path: &Path, key: impl Fn() -> String) -> Checked {
    let text = path.to_string_lossy();
    need(!text.is_empty() && !text.contains('\0'), &key, "it is empty or holds NUL; accepted: a path")?;
    need(
        !text.starts_with("-----BEGIN"),
        key,
        "it holds the file's content; accepted: the path of a file that holds it",
    )
}

/// Rejects a token that was written in place of its variable's name.
pub(super) fn check_variable(name: &EnvName, key: &str) -> Checked {
    name.check_not_a_token().or_else(|error| err(key, error.to_string()))
}

/// Checks the user name of basic authentication, which must not contain a colon (RFC 7617 section 2).
pub(super) fn check_username(username: &str, key: &str) -> Checked {
    one_line(username, || key.to_owned())?;
    need(!username.contains(':'), || key.to_owned(), "it holds `:`, which ends a user name")
}
