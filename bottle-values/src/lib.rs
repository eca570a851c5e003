//! Typed values that describe bottles: names, hosts, paths, sizes, versions and secrets. Each type has one grammar.
//! Parsing a text is the only way to create a value of most of these types.
//!
//! ```
//! use bottle_values::value::HostName;
//!
//! let host: HostName = "api.example.com".parse()?;
//! assert!("Api.Example.com".parse::<HostName>().is_err());
//! # Ok::<(), bottle_values::name::NameError>(())
//! ```

pub mod digest;
pub mod environment;
pub mod export;
mod git_url;
pub mod grammar;
mod host;
#[doc(hidden)]
pub mod mask;
pub mod name;
mod quantity;
mod secret;
mod state;
mod subnet;
mod subnets;
pub mod value;

pub use secret::{SecretValue, Secrets};
pub use state::{StateLayout, StateRoot};
