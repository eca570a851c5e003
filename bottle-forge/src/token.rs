//! Requests for tokens.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use ureq::http::{Request, header};
use zeroize::Zeroizing;

use crate::client::{LONGEST_ANSWER, legible, message};

/// An error of a source of tokens. It contains no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A file with a credential cannot be used.
    #[error("use `{}`: {problem}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Problem, and what would be accepted.
        problem: String,
    },
    /// A file with a credential cannot be read, locked or written.
    #[error("{action} `{}`", path.display())]
    Io {
        /// The failed action.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The settings of the source are not usable.
    #[error("ask {url} for a token: {problem}")]
    Unusable {
        /// Address of the server.
        url: String,
        /// Problem, and what would be accepted.
        problem: String,
    },
    /// The server did not give a token.
    #[error("ask {url} for a token: it answered {status}{}", said(message))]
    Refused {
        /// Address of the server.
        url: String,
        /// HTTP status.
        status: u16,
        /// Message of the server. May be empty.
        message: String,
    },
    /// The server was not reached, or did not answer.
    #[error("ask {url} for a token: no answer: {reason}")]
    NoAnswer {
        /// Address of the server.
        url: String,
        /// Reason.
        reason: String,
    },
    /// The answer of the server cannot be parsed.
    #[error("ask {url} for a token: its answer is not JSON with the expected fields")]
    Malformed {
        /// Address of the server.
        url: String,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// Sends a JSON body and returns the parsed answer. `secrets` are redacted in errors.
pub(crate) fn post<T: DeserializeOwned>(
    agent: &ureq::Agent,
    url: &str,
    headers: &[(&str, &str)],
    body: &serde_json::Value,
    secrets: &[&str],
) -> Result<T, TokenError> {
    let url = || url.to_owned();
    let legible = |text: &str| legible(text, secrets.iter().copied());
    let mut request = Request::builder().method("POST").uri(url()).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let unusable = || TokenError::Unusable {
        url: url(),
        problem: "the address is not valid; accepted: `https`, or `http` to 127.0.0.1".to_owned(),
    };
    let request = request.body(body.to_string()).map_err(|_| unusable())?;
    let is_here = request.uri().host() == Some("127.0.0.1");
    if request.uri().scheme_str() != Some("https") && !is_here {
        return Err(unusable());
    }
    let no_answer = |error: &ureq::Error| TokenError::NoAnswer { url: url(), reason: legible(&error.to_string()) };
    let mut response = agent.run(request).map_err(|error| no_answer(&error))?;
    let status = response.status().as_u16();
    let content = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec().map(Zeroizing::new);
    if !(200..300).contains(&status) {
        let message = content.map(|content| legible(&message(&content))).unwrap_or_default();
        return Err(TokenError::Refused { url: url(), status, message });
    }
    let content = content.map_err(|error| no_answer(&error))?;
    // The parser's message could quote the answer.
    serde_json::from_slice(&content).map_err(|_| TokenError::Malformed { url: url() })
}

/// A file that only its owner, the user of this process, can read, with its mode.
pub(crate) struct PrivateFile {
    pub(crate) content: Zeroizing<Vec<u8>>,
    pub(crate) mode: u32,
}

impl PrivateFile {
    /// Reads a file of at most 1 MiB.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let io = |source| TokenError::Io { action: "read", path: path.to_owned(), source };
        let unusable = |problem: String| Err(TokenError::File { path: path.to_owned(), problem });
        // Asked first, since opening a named pipe would wait for its writer.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return unusable("it is not a regular file".into());
        }
        let file = fs::File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.mode() & 0o077 != 0 {
            return unusable(format!("others can access it (mode {:04o}); accepted: 0600", metadata.mode() & 0o7777));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return unusable("it belongs to another user".into());
        }
        let mut content = Zeroizing::new(Vec::new());
        file.take(LARGEST + 1).read_to_end(&mut content).map_err(io)?;
        if content.len() as u64 > LARGEST {
            return unusable(format!("it has more than {LARGEST} bytes"));
        }
        Ok(Self { content, mode: metadata.mode() & 0o777 })
    }
}

/// Largest file with a credential, in bytes.
const LARGEST: u64 = 1 << 20;
