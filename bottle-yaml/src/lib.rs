//! Reads YAML into types with `serde`, and reports every mistake at once: each with its line and key, and drawn below its
//! source line.
//!
//! [`read`] parses a text. It continues after a mistake, so that the next one is found as well. The caller adds the mistakes
//! that only it can find to the returned [`Reading`], and [`Reading::finish`] gives the value or the error with all of
//! them.
//!
//! ```
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Lamp {
//!     color: String,
//!     watts: u16,
//! }
//!
//! let error = bottle_yaml::read::<Lamp>("colour: red\nwatts: many\n").finish(Vec::new(), |_| &[]).err();
//! let mistakes = error.map(|error| error.mistakes).unwrap_or_default();
//! assert_eq!(mistakes[0].suggestion.as_deref(), Some("color"));
//! assert_eq!((mistakes[1].key.as_str(), mistakes[1].line), ("watts", Some(2)));
//! ```

mod error;
mod file;
mod origin;
mod read;
mod reading;
mod tree;
pub mod words;

pub use error::{MAX_MISTAKES, ManifestError, ManifestMistake};
pub use file::{MAX_BYTES, read_file};
pub use origin::Origin;
pub use reading::{Reading, read};
