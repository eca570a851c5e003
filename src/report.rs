//! The one printer of errors.

use std::error::Error as StdError;
use std::fmt;

use bottle_plan::{ManifestError, PlanError};

use crate::{Error, LaunchError};

/// Reports an error to a person: "failed to", the error, and every cause behind it. A mistake of a manifest is drawn below
/// its source line, and a launch that could not be undone says what is left.
///
/// ```
/// use bottle::Manifest;
///
/// let error = Manifest::parse("bottles: {dev: {egres: {}}}\nagents: {demo: {bottle: dev, command: [id]}}").unwrap_err();
/// let text = bottle::report(&error).to_string();
/// assert!(text.starts_with("failed to read manifest: 1 mistake\n"), "{text}");
/// assert!(text.contains("did you mean `egress`?"), "{text}");
/// ```
pub fn report<'a>(error: &'a (dyn StdError + 'static)) -> Report<'a> {
    Report { error, color: false }
}

/// An error as [`report`] prints it.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    error: &'a (dyn StdError + 'static),
    color: bool,
}

impl Report<'_> {
    /// Sets whether source lines are drawn in color, as on a terminal. Default: no.
    #[must_use]
    pub const fn with_color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.error;
        let mut said = String::new();
        f.write_str("failed to ")?;
        loop {
            if let Some(manifest) = manifest_error(error) {
                let drawn = manifest.drawn(self.color);
                let between = if said.is_empty() { "" } else { ": " };
                return write!(f, "{between}{}\n\n{}", manifest.summary(), drawn.trim_end());
            }
            // What an error already says of its cause is not said again.
            let text = error.to_string();
            if !said.contains(&text) {
                let between = if said.is_empty() { "" } else { ": " };
                write!(f, "{between}{text}")?;
                said += &text;
            }
            match error.source() {
                Some(source) => error = source,
                None => break,
            }
        }
        match launch_error(self.error).and_then(|error| error.teardown.as_ref()) {
            Some(report) if !report.is_clean() => write!(f, "\nnot everything could be undone: {report}"),
            _ => Ok(()),
        }
    }
}

fn manifest_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ManifestError> {
    let of_plan = |error: &'a PlanError| match error {
        PlanError::Manifest(error) => Some(error),
        _ => None,
    };
    match error.downcast_ref::<Error>() {
        Some(Error::Manifest(error)) => return Some(error),
        Some(Error::Plan(error)) => return of_plan(error),
        _ => {}
    }
    error.downcast_ref::<ManifestError>().or_else(|| error.downcast_ref::<PlanError>().and_then(of_plan))
}

fn launch_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a LaunchError> {
    match error.downcast_ref::<Error>() {
        Some(Error::Launch(error)) => Some(error),
        _ => error.downcast_ref::<LaunchError>(),
    }
}
