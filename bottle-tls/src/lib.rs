//! The certificate authorities of one bottle: minting them, laying them down on disk, and building the bundle that the
//! agent trusts.
//!
//! A sidecar that looks into the agent's HTTPS traffic signs a certificate for each host it meets, so it needs an
//! authority, and each sidecar of each bottle gets its own: a key that leaks is worth nothing outside its bottle, and
//! nothing at all a week later. This crate makes authorities and does nothing else: it issues no leaf certificates,
//! opens no socket and reads nothing from its surroundings. The clock and the randomness are arguments, so that the
//! same arguments give the same authority, to the byte.
//!
//! ```
//! use std::time::SystemTime;
//! use bottle_tls::{CaRole, CaSpec, CertificateAuthority, SystemRandom, trust_bundle};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let state = tempfile::tempdir()?;
//! # let system_roots = "";
//! let spec = CaSpec::new("dev-x7k2q", CaRole::Pipelock, SystemTime::now());
//! let authority = CertificateAuthority::mint(&spec, &mut SystemRandom)?;
//!
//! let files = authority.write_to(&state.path().join("pipelock"))?;
//! assert!(std::fs::read_to_string(files.key)?.starts_with("-----BEGIN EC PRIVATE KEY-----"));
//!
//! let bundle = trust_bundle(system_roots, authority.certificate_pem())?;
//! assert!(bundle.ends_with("-----END CERTIFICATE-----\n"));
//! # Ok(())
//! # }
//! ```

mod authority;
mod bundle;
mod error;
mod files;
mod key;
mod random;

pub use authority::{CaRole, CaSpec, CertificateAuthority, DEFAULT_LIFETIME, Fingerprint};
pub use bundle::{extra_roots, trust_bundle};
pub use error::{BundleInput, TlsError};
pub use files::CaFiles;
pub use key::SecretPem;
pub use random::{RandomSource, SystemRandom};
