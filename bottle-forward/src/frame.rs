//! The frames between this crate and the program `forward` of the seal's image.
//!
//! A frame is two 32-bit numbers in little-endian order: the connection, and the kind (8 bits) with the length (24 bits).
//! Only [`Kind::Data`] has a payload. The host opens every connection and never reuses its number. Each side sends at most
//! [`WINDOW`] bytes of a connection that the other side has not passed on, so no connection holds up another. A frame of a
//! connection that ended meanwhile is ignored.

use std::io::{self, Read, Write};

/// Number of bytes of a connection that may be on their way in one direction.
pub(crate) const WINDOW: usize = 65_536;
/// Largest payload.
pub(crate) const PAYLOAD: usize = 16_384;

const HEADER: usize = 8;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The host opens the connection. From the program: it runs.
    Open,
    /// Bytes.
    Data,
    /// The sender has passed on this many bytes.
    Credit,
    /// The sender has no more bytes.
    End,
    /// The connection ended in both directions.
    Reset,
}

/// A frame of the program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) length: usize,
    pub(crate) payload: Vec<u8>,
}

/// Writes a frame in one piece. Without a payload, `length` is a number.
pub(crate) fn write(to: &mut dyn Write, id: u32, kind: Kind, length: usize, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend(id.to_le_bytes());
    frame.extend((length | (kind as u32) << 24).to_le_bytes());
    frame.extend(payload);
    to.write_all(&frame)
}

/// Reads a frame. The end of the stream is an error.
pub(crate) fn read(from: &mut dyn Read) -> io::Result<Frame> {
    let number = |from: &mut dyn Read| {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        io::Result::Ok(u32::from_le_bytes(bytes))
    };
    let (id, word) = (number(from)?, number(from)?);
    let length = (word & 0x00ff_ffff) as usize;
    let kind = match word >> 24 {
        0 => Kind::Open,
        1 => Kind::Data,
        2 => Kind::Credit,
        3 => Kind::End,
        4 => Kind::Reset,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    if length > WINDOW || (kind == Kind::Data && length > PAYLOAD) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; if kind == Kind::Data { length } else { 0 }];
    from.read_exact(&mut payload)?;
    Ok(Frame { id, kind, length, payload })
}
