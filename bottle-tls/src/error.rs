use std::{fmt, io, path::PathBuf};

/// An error of creating an authority or a bundle. No message contains any part of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The bottle's name cannot be used in a certificate's subject.
    #[error("put the bottle's name `{}` in a certificate: it {reason}", .bottle.escape_debug())]
    Bottle {
        /// Name as it was given, cut after 64 characters.
        bottle: String,
        /// Reason, and what is accepted.
        reason: &'static str,
    },

    /// The clock and the lifetime give dates that a certificate cannot hold.
    #[error("set the certificate's dates: {reason}")]
    Validity {
        /// Date that is out of range, and what is accepted.
        reason: &'static str,
    },

    /// The source of randomness failed.
    #[error("draw random bytes")]
    Random {
        /// Error of the source.
        #[source]
        source: io::Error,
    },

    /// The source of randomness is broken: it works, but none of its first draws is a usable number.
    #[error("draw {what}: {attempts} draws in a row were unusable, so the source of randomness is broken")]
    BadRandomness {
        /// Value that was drawn.
        what: &'static str,
        /// Number of draws.
        attempts: usize,
    },

    /// The key or the certificate could not be encoded.
    #[error("encode {what}: {reason}")]
    Encode {
        /// Key or certificate.
        what: &'static str,
        /// Message of the encoder.
        reason: String,
    },

    /// A file or directory could not be written. The call left no files behind.
    #[error("{action} `{}`", .path.display())]
    File {
        /// Operation that failed, such as `write`.
        action: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },

    /// An input of a trust bundle is invalid.
    #[error("build the trust bundle: line {line} of {input}: {problem}")]
    Bundle {
        /// Invalid input.
        input: BundleInput,
        /// Line, counted from 1.
        line: usize,
        /// Description of the problem.
        problem: String,
    },
}

/// An input of a trust bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleInput {
    /// The root certificates of the image.
    SystemRoots,
    /// The bottle's own authority.
    Authority,
    /// Further roots, such as a company's.
    ExtraRoots,
}

impl fmt::Display for BundleInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SystemRoots => "the system's roots",
            Self::Authority => "the bottle's authority",
            Self::ExtraRoots => "the further roots",
        })
    }
}
