//! The values that bottles are described with: names, hosts, paths, sizes, versions and secrets. Each is a type of its own
//! with one grammar, and parsing a text is the only way to make one.
//!
//! ```
//! use bottle_values::value::HostPattern;
//!
//! let host: HostPattern = "*.example.com".parse()?;
//! assert!("*.Example.com".parse::<HostPattern>().is_err());
//! # Ok::<(), bottle_values::name::NameError>(())
//! ```

pub mod export;
pub mod grammar;
#[doc(hidden)]
pub mod mask;
pub mod name;
mod secret;
mod state;
pub mod value;

pub use secret::{SecretValue, Secrets};
pub use state::{StateLayout, StateRoot};
