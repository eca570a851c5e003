use std::io;

/// Where the key and the serial number of an authority come from.
///
/// [`SystemRandom`] is the one to use; a source that repeats itself gives the same authority again, which is what a test
/// wants and what nobody else does.
pub trait RandomSource {
    /// Fills the whole of `buffer` with bytes that nobody can foretell.
    ///
    /// # Errors
    /// When the source has no bytes to give; the content of `buffer` then means nothing.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()>;
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl RandomSource for SystemRandom {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::from)
    }
}
