//! Sources of credentials that ask a server, for [`Host::with_secret`](crate::Host::with_secret).

pub use bottle_forge::{GithubApp, OAuthSource, TokenError};
