//! Applying a delta that anybody may have written.

use std::io::{self, Read, Write};

use super::{
    Cursors, HEADER_BYTES, INSTRUCTIONS_MAX, LITERALS_MAX, MAGIC, PREFIX_MAX, WINDOW_LOG, unzigzag,
};
use crate::bundle::DeltaError;
use crate::bundle::spool::Spool;

const COPY_BYTES: usize = 256 << 10;
/// What packing can add to bytes that do not compress.
const PACKED_EXTRA: usize = 64 << 10;

/// Writes what a delta makes of its sources: exactly `size` bytes.
///
/// # Errors
/// Where the delta is damaged, takes what is not there, or would make more or fewer bytes. The sink may
/// have got bytes that are no good.
pub(in crate::bundle) fn apply(
    delta: &mut impl Read,
    sources: &[&Spool],
    size: u64,
    sink: &mut impl Write,
) -> Result<(), DeltaError> {
    let mut magic = [0; MAGIC.len()];
    delta.read_exact(&mut magic).map_err(cut)?;
    if magic != *MAGIC {
        return Err(DeltaError::Malformed("is of another form"));
    }
    let mut reader =
        Reader { sources, left: size, cursors: Cursors::new(sources.len()), buffer: Vec::new() };
    while let Some(window) = Window::read(delta)? {
        reader.window(&window, sink)?;
    }
    if reader.left > 0 {
        return Err(DeltaError::Malformed("gives fewer bytes than it should"));
    }
    match delta.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(DeltaError::Malformed("goes on after its end")),
    }
}

/// A window as it was sent.
struct Window {
    instructions: Vec<u8>,
    literals: Vec<u8>,
    literals_plain: usize,
    prefix: usize,
}

impl Window {
    /// Reads the next window; `None` at the end.
    fn read(delta: &mut impl Read) -> Result<Option<Window>, DeltaError> {
        let mut header = [0; HEADER_BYTES];
        delta.read_exact(&mut header).map_err(cut)?;
        if header == [0; HEADER_BYTES] {
            return Ok(None);
        }
        let size = |at: usize| {
            let bytes = [0, 1, 2, 3].map(|byte| header[4 * at + byte]);
            u32::from_le_bytes(bytes) as usize
        };
        let limits = [
            INSTRUCTIONS_MAX + PACKED_EXTRA,
            INSTRUCTIONS_MAX,
            LITERALS_MAX + PACKED_EXTRA,
            LITERALS_MAX,
            PREFIX_MAX,
        ];
        if limits.iter().enumerate().any(|(at, most)| size(at) > *most) {
            return Err(DeltaError::Malformed("has a window that is too large"));
        }
        let mut take = |length: usize| {
            let mut bytes = vec![0; length];
            delta.read_exact(&mut bytes).map_err(cut).map(|()| bytes)
        };
        let (packed, literals) = (take(size(0))?, take(size(2))?);
        let plain = zstd::stream::read::Decoder::with_buffer(&packed[..])?;
        let instructions = unpack(plain, size(1))?;
        Ok(Some(Window { instructions, literals, literals_plain: size(3), prefix: size(4) }))
    }
}

/// Unpacks exactly so many bytes.
fn unpack(
    mut plain: zstd::stream::read::Decoder<'_, &[u8]>,
    size: usize,
) -> Result<Vec<u8>, DeltaError> {
    plain.window_log_max(WINDOW_LOG)?;
    let mut bytes = Vec::with_capacity(size);
    let unpacked = plain.take(size as u64 + 1).read_to_end(&mut bytes);
    unpacked.map_err(|_| DeltaError::Malformed("has a window that cannot be unpacked"))?;
    if bytes.len() != size {
        return Err(DeltaError::Malformed("lies about the size of a window"));
    }
    Ok(bytes)
}

struct Reader<'a> {
    sources: &'a [&'a Spool],
    /// What is still to come out.
    left: u64,
    cursors: Cursors,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn window(&mut self, window: &Window, sink: &mut impl Write) -> Result<(), DeltaError> {
        let mut instructions = Numbers(&window.instructions);
        let prefix = self.prefix(&mut instructions, window.prefix)?;
        let literals = match window.literals_plain {
            0 => Vec::new(),
            size => {
                let packed = &window.literals[..];
                unpack(zstd::stream::read::Decoder::with_ref_prefix(packed, &prefix)?, size)?
            }
        };
        drop(prefix);
        let (mut literals, before) = (&literals[..], self.left);
        for _ in 0..instructions.next()? {
            match instructions.next()? {
                0 => {
                    let length = self.out(instructions.next()?)?;
                    let taken =
                        usize::try_from(length).ok().and_then(|at| literals.split_at_checked(at));
                    let Some((taken, rest)) = taken else {
                        return Err(DeltaError::Malformed("takes more literals than it has"));
                    };
                    sink.write_all(taken)?;
                    literals = rest;
                }
                source => {
                    let (source, offset, length) = self.range(source - 1, &mut instructions)?;
                    let length = self.out(length)?;
                    self.copy(source, offset, length, sink)?;
                }
            }
        }
        if !literals.is_empty() || !instructions.0.is_empty() || self.left == before {
            return Err(DeltaError::Malformed("has a window that is not used up"));
        }
        Ok(())
    }

    fn prefix(
        &mut self,
        instructions: &mut Numbers<'_>,
        size: usize,
    ) -> Result<Vec<u8>, DeltaError> {
        let wrong = || DeltaError::Malformed("lies about the size of a prefix");
        let mut prefix = Vec::with_capacity(size);
        for _ in 0..instructions.next()? {
            let source = instructions.next()?;
            let (source, offset, length) = self.range(source, instructions)?;
            let start = prefix.len();
            let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
            let end = end.filter(|end| *end <= size).ok_or_else(wrong)?;
            prefix.resize(end, 0);
            self.sources[source].read_at(offset, &mut prefix[start..])?;
        }
        if prefix.len() == size { Ok(prefix) } else { Err(wrong()) }
    }

    /// Reads what is taken from a source, and checks that it is there.
    fn range(
        &mut self,
        source: u64,
        instructions: &mut Numbers<'_>,
    ) -> Result<(usize, u64, u64), DeltaError> {
        let outside = || DeltaError::Malformed("takes what its sources do not have");
        let source = usize::try_from(source).ok().filter(|source| *source < self.sources.len());
        let source = source.ok_or_else(outside)?;
        let (distance, length) = (unzigzag(instructions.next()?), instructions.next()?);
        let cursor = &mut self.cursors.0[source];
        let offset = cursor.checked_add_signed(distance).ok_or_else(outside)?;
        let end = offset.checked_add(length).filter(|end| *end <= self.sources[source].size());
        *cursor = end.ok_or_else(outside)?;
        Ok((source, offset, length))
    }

    /// Counts what comes out.
    fn out(&mut self, length: u64) -> Result<u64, DeltaError> {
        let left = self.left.checked_sub(length);
        self.left = left.ok_or(DeltaError::Malformed("gives more bytes than it should"))?;
        Ok(length)
    }

    fn copy(
        &mut self,
        source: usize,
        mut offset: u64,
        length: u64,
        sink: &mut impl Write,
    ) -> Result<(), DeltaError> {
        self.buffer.resize(COPY_BYTES, 0);
        let end = offset + length;
        while offset < end {
            let piece = &mut self.buffer[..COPY_BYTES.min((end - offset) as usize)];
            self.sources[source].read_at(offset, piece)?;
            sink.write_all(piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
}

/// LEB128 numbers.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Result<u64, DeltaError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DeltaError::Malformed("has instructions that cannot be read"))
    }
}

fn cut(error: io::Error) -> DeltaError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DeltaError::Malformed("ends too early"),
        _ => DeltaError::Io(error),
    }
}
