use std::{fmt, io, path::PathBuf};

/// Why an authority or a bundle could not be made. No message ever holds a part of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The bottle's name cannot stand in a certificate's subject.
    #[error("put the bottle's name `{}` in a certificate: it {reason}", .bottle.escape_debug())]
    Bottle {
        /// The name as it was given, cut after 64 characters.
        bottle: String,
        /// What is wrong with it, and what is accepted.
        reason: &'static str,
    },

    /// The clock and the lifetime give dates that a certificate cannot hold.
    #[error("set the certificate's dates: {reason}")]
    Validity {
        /// Which date, and what is accepted.
        reason: &'static str,
    },

    /// The source of randomness failed.
    #[error("draw random bytes")]
    Random {
        /// What the source said.
        #[source]
        source: io::Error,
    },

    /// The source of randomness works, but none of its first draws is a usable number: it is broken.
    #[error("draw {what}: {attempts} draws in a row were unusable, so the source of randomness is broken")]
    BadRandomness {
        /// What was being drawn.
        what: &'static str,
        /// How many draws were tried.
        attempts: usize,
    },

    /// The key or the certificate could not be encoded.
    #[error("encode {what}: {reason}")]
    Encode {
        /// The key, or the certificate.
        what: &'static str,
        /// What the encoder said.
        reason: String,
    },

    /// A file or directory could not be written. Nothing that the same call wrote is left.
    #[error("{action} `{}`", .path.display())]
    File {
        /// What was being done, such as `write`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },

    /// A piece of a trust bundle is not what it should be.
    #[error("build the trust bundle: line {line} of {input}: {problem}")]
    Bundle {
        /// Which of the two pieces.
        input: BundleInput,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

/// The pieces that a trust bundle is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleInput {
    /// The roots that the image came with.
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
