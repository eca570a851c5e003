//! Receivers of streamed output.

/// An output stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A receiver of streamed output. Closures of type `Fn(Stream, &[u8])` implement it.
pub trait OutputSink: Send + Sync {
    /// Receives the next bytes of a stream. They may end in the middle of a character.
    fn write(&self, stream: Stream, bytes: &[u8]);
}

impl<F: Fn(Stream, &[u8]) + Send + Sync> OutputSink for F {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        self(stream, bytes);
    }
}
