//! The error of a manifest, with every mistake and its place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use bottle_values::mask;

/// The mistakes in a manifest, in the order of the file. There is at least one.
///
/// `Display` writes one line for each mistake. [`drawn`](Self::drawn) also shows the source lines. Neither they nor
/// `Debug` repeat text that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestError {
    /// The file that the manifest was read from. `None` if it did not come from a file.
    pub file: Option<PathBuf>,
    /// The mistakes.
    pub mistakes: Vec<ManifestMistake>,
    /// The manifest's text, with secrets masked. Empty if there is no text to show, `None` if the file could not be read.
    shown: Option<Arc<str>>,
}

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestMistake {
    /// The path of the key, such as `bottles.dev.egress.routes[1].host`. Empty for the document as a whole.
    pub key: String,
    /// The line, counted from 1. `None` if the place is unknown.
    pub line: Option<usize>,
    /// The column in characters, counted from 1. `None` if the place is unknown.
    pub column: Option<usize>,
    /// Description of the mistake.
    pub problem: String,
    /// Description of what is accepted instead.
    pub accepted: Option<String>,
    /// The word that was probably meant.
    pub suggestion: Option<String>,
    /// The range of bytes of the text that the mistake is about.
    span: Option<Range<usize>>,
}

impl ManifestMistake {
    /// Creates a mistake without a place. The part of the text after `; accepted: ` becomes `accepted`.
    pub fn new(key: impl Into<String>, text: &str) -> Self {
        let (problem, accepted) = match text.split_once("; accepted: ") {
            Some((problem, accepted)) => (problem, Some(accepted.to_owned())),
            None => (text, None),
        };
        let (key, problem) = (key.into(), problem.to_owned());
        Self { key, line: None, column: None, problem, accepted, suggestion: None, span: None }
    }

    pub(crate) fn with_span(mut self, span: Option<Range<usize>>) -> Self {
        self.span = span;
        self
    }

    pub(crate) const fn has_span(&self) -> bool {
        self.span.is_some()
    }

    /// Rewrites the paths in the mistake.
    pub(crate) fn rewrite(mut self, rewrite: impl Fn(&str) -> String) -> Self {
        self.key = rewrite(&self.key);
        // Each second part is between backticks.
        let parts = self.problem.split('`').enumerate();
        let parts: Vec<_> =
            parts.map(|(index, part)| if index % 2 == 1 { rewrite(part) } else { part.into() }).collect();
        self.problem = parts.join("`");
        self
    }

    /// Removes what may be a secret. Any rule may quote a name that is one, such as the name of a bottle.
    fn leave_secrets_out(&mut self) {
        for text in [&mut self.key, &mut self.problem].into_iter().chain(&mut self.accepted).chain(&mut self.suggestion)
        {
            *text = mask::elided(text);
        }
    }

    /// Sets the word that was probably meant.
    #[must_use]
    pub fn with_suggestion(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl fmt::Display for ManifestMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(accepted) = &self.accepted {
            write!(f, "; accepted: {accepted}")?;
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// The maximum number of mistakes that are reported for one manifest.
pub const MAX_MISTAKES: usize = 50;

impl ManifestError {
    /// Creates the error for a text.
    pub(crate) fn new(text: &str, mut mistakes: Vec<ManifestMistake>) -> Self {
        let mut shown = mask::masked(text).into_bytes();
        for mistake in &mut mistakes {
            let Some(span) = mistake.span.clone() else { continue };
            let Some(before) = text.get(..span.start) else { continue };
            let start = before.rfind('\n').map_or(0, |end| end + 1);
            mistake.line = Some(before.matches('\n').count() + 1);
            mistake.column = Some(text[start..span.start].chars().count() + 1);
            if is_private(&mistake.key) && text.get(span.clone()).is_some_and(|value| !is_reference(value)) {
                shown[span].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'*');
            }
        }
        mistakes.iter_mut().for_each(ManifestMistake::leave_secrets_out);
        mistakes.sort_by_key(|mistake| mistake.span.as_ref().map(|span| span.start));
        mistakes.truncate(MAX_MISTAKES);
        let shown = String::from_utf8(shown).unwrap_or_default();
        Self { file: None, mistakes, shown: Some(shown.into()) }
    }

    /// Creates the error for a file that cannot be read as text.
    pub(crate) fn unreadable(file: &Path, problem: &str) -> Self {
        Self { file: Some(file.to_owned()), mistakes: vec![ManifestMistake::new("", problem)], shown: None }
    }

    /// Creates the error for a manifest whose text is not available.
    pub(crate) fn without_text(mut mistakes: Vec<ManifestMistake>) -> Self {
        mistakes.iter_mut().for_each(ManifestMistake::leave_secrets_out);
        Self { file: None, mistakes, shown: Some("".into()) }
    }

    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Returns every mistake drawn below its source line, with colors for a terminal or as plain text.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct Bottle {
    ///     egress: u8,
    /// }
    ///
    /// let error = bottle_yaml::read::<Bottle>("egres: 1\n").finish(Vec::new(), |_| &[]).err().unwrap();
    /// assert!(error.drawn(false).contains("did you mean `egress`?"));
    /// ```
    pub fn drawn(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let file = self.file.as_ref().map(|file| mask::masked(&file.to_string_lossy()).replace(['\n', '\t'], "?"));
        let mut out = String::new();
        for mistake in &self.mistakes {
            let title = match mistake.key.as_str() {
                "" => mistake.problem.clone(),
                key => format!("{key}: {}", mistake.problem),
            };
            let mut group = Group::with_title(Level::ERROR.primary_title(&title));
            let text = self.shown.as_deref().unwrap_or_default();
            if let Some(span) = mistake.span.clone().filter(|span| text.get(span.clone()).is_some()) {
                let mut snippet = Snippet::source(text);
                if let Some(file) = &file {
                    snippet = snippet.path(file.as_str());
                }
                group = group.element(snippet.annotation(AnnotationKind::Primary.span(span)));
            } else if let Some(file) = &file {
                group = group.element(Origin::path(file.as_str()));
            }
            let meant = mistake.suggestion.as_ref().map(|suggestion| format!("did you mean `{suggestion}`?"));
            let accepted = mistake.accepted.as_ref().map(|accepted| format!("accepted: {accepted}"));
            for help in meant.iter().chain(&accepted) {
                group = group.element(Level::HELP.message(help));
            }
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&renderer.render(&[group]));
            out.push('\n');
        }
        out
    }
}

/// Returns `true` if the value of this key is close to a secret, so that a wrong value may be the secret itself.
fn is_private(key: &str) -> bool {
    [".token", ".template", ".username"].iter().any(|end| key.ends_with(end))
}

/// Returns `true` if a value refers to a variable and is therefore not a secret itself.
fn is_reference(value: &str) -> bool {
    let name = value.trim_matches(['"', '\'']).trim_start_matches(['$', '{']).trim_end_matches('}');
    name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

impl ManifestError {
    /// Returns `true` if the file could not be read. The only mistake is then the reason, and has no place in the file.
    pub const fn is_unreadable(&self) -> bool {
        self.shown.is_none()
    }

    /// Returns the error without its mistakes: the file and the number of mistakes.
    pub fn summary(&self) -> String {
        let (count, mistakes) = (self.mistakes.len(), if self.mistakes.len() == 1 { "mistake" } else { "mistakes" });
        format!("{}: {count} {mistakes}", self.title())
    }

    fn title(&self) -> String {
        match &self.file {
            Some(file) => {
                format!("read manifest `{}`", mask::masked(&file.to_string_lossy()).replace(['\n', '\t'], "?"))
            }
            None => "read manifest".to_owned(),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.mistakes.len() == 1 {
            f.write_str(&self.title())?;
            ": "
        } else {
            f.write_str(&self.summary())?;
            "\n  "
        };
        for mistake in &self.mistakes {
            f.write_str(between)?;
            if let (Some(line), Some(column)) = (mistake.line, mistake.column) {
                write!(f, "line {line}, column {column}: ")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}
