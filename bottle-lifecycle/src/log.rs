//! The log of a bottle that is down.

use std::fs::File;
use std::io;
use std::path::Path;

use bottle_exec::{OutputSink, PlainText, Stream};
use bottle_plan::Slug;

use crate::bottle::BottleError;

/// Writes the log that a teardown saved to the sink, without control sequences.
///
/// # Errors
///
/// [`BottleError::NotFound`] when there is none, [`BottleError::Copy`] when it cannot be read.
pub fn saved_log(path: &Path, slug: &Slug, sink: &dyn OutputSink) -> Result<(), BottleError> {
    let failed = |source| BottleError::Copy { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BottleError::NotFound { slug: slug.clone() });
        }
        other => other.map_err(failed)?,
    };
    // A log saved by an earlier version may contain control sequences.
    let mut plain = PlainText::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => return Ok(()),
            count => sink.write(Stream::Stdout, plain.push(&buffer[..count]).as_bytes()),
        }
    }
}
