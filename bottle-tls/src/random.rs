use std::io;

/// A source of randomness for the key and the serial number of an authority.
///
/// Use [`SystemRandom`]. A source that repeats itself produces the same authority again, which is only useful in tests.
pub trait RandomSource {
    /// Fills the whole of `buffer` with unpredictable bytes.
    ///
    /// # Errors
    /// Returns the error of the source if it cannot provide bytes. The content of `buffer` is then undefined.
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
