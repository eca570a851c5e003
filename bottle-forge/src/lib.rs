//! Credentials from servers. Deploy keys at git forges: an ssh key pair, and a client that registers its public half at
//! GitHub, GitLab or Gitea and revokes it. Sources of tokens: [`OAuthSource`] for the subscriptions of Claude and Codex,
//! [`GithubApp`] for installation tokens. This is the only crate of the workspace with an HTTP client.
//!
//! ```no_run
//! use bottle_forge::{Forges, HttpForges, NewKey};
//! use bottle_plan::SecretValue;
//! use bottle_plan::manifest::Forge;
//!
//! # fn main() -> Result<(), bottle_forge::ForgeError> {
//! let forges = HttpForges::default();
//! let forge = forges.connect(Forge::Github, "https://api.github.com", SecretValue::new("token"))?;
//! let public_key = "ssh-ed25519 AAAA…";
//! let id = forge.create("team/app", &NewKey { title: "ci", public_key, read_only: true })?;
//! forge.delete("team/app", id)?;
//! # Ok(())
//! # }
//! ```

mod bottle_key;
mod client;
mod forge;
mod github_app;
mod http;
mod key;
mod oauth;
mod token;

pub use bottle_key::{BottleKey, ForgeKeys};
pub use forge::{Forge, ForgeError, Forges, NewKey, RegisteredKey, RehearsedForges};
pub use github_app::GithubApp;
pub use http::HttpForges;
pub use key::KeyPair;
pub use oauth::OAuthSource;
pub use token::TokenError;
