//! Certificate authorities of one bottle: mints them, writes them to disk, and builds the bundle that the agent trusts.
//!
//! A sidecar that intercepts the agent's HTTPS traffic signs a leaf certificate for each host, so it needs an
//! authority. Each sidecar of each bottle gets its own. A leaked key is therefore useless outside its bottle, and
//! expires after a week. This crate only creates authorities. It issues no leaf certificates, opens no socket and reads
//! no environment. Clock and randomness are arguments, so the same arguments give the same authority, to the byte.
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
