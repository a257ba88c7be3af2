//! Writing a delta.

use std::io::{self, Write};
use std::ops::Range;

use super::{Cursors, INSTRUCTIONS_MAX, LITERALS_MAX, MAGIC, PREFIX_MAX, WINDOW_LOG, zigzag};
use crate::bundle::parts::{Lookup, Part};
use crate::bundle::spool::Spool;

/// Enough for text and programs; what takes long is the long distance.
const LEVEL: i32 = 9;
/// A large new file is compared with its older version piece by piece.
const PIECE_BYTES: u64 = 4 << 20;
/// How far around its own place a piece looks in the older version.
const SLACK_BYTES: u64 = 2 << 20;
/// The most that one operation takes.
const OPERATION_BYTES_MAX: usize = 1 + 10 + 10 + 10;
const COMPARE_BYTES: usize = 64 << 10;

/// A layer that the receiver has.
#[derive(Debug)]
pub(in crate::bundle) struct Source {
    pub(in crate::bundle) spool: Spool,
    pub(in crate::bundle) parts: Vec<Part>,
}

/// Writes how `target` comes from `sources`, and returns which of them it takes from, in the order of
/// the numbers that they have in the delta.
pub(in crate::bundle) fn write(
    target: &Spool,
    parts: &[Part],
    sources: &[Source],
    lookup: &Lookup,
    sink: &mut impl Write,
) -> io::Result<Vec<usize>> {
    sink.write_all(MAGIC)?;
    let lists: Vec<&[Part]> = sources.iter().map(|source| &source.parts[..]).collect();
    let mut writer = Writer {
        target,
        sources,
        cursors: Cursors::new(sources.len()),
        numbers: vec![None; sources.len()],
        order: Vec::new(),
        window: Window::default(),
        sink,
    };
    let mut end = 0;
    for part in parts {
        let older = lookup.older(part);
        let old = older.map(|(source, index)| (source, &lists[source as usize][index as usize]));
        writer.range(&part.head, old.map(|(source, old)| (source, &old.head)))?;
        let same = lookup.same(part, &lists).filter(|_| !part.content.is_empty());
        match same {
            Some((source, index)) => {
                let from = &lists[source as usize][index as usize].content;
                writer.same(&part.content, source, from)?;
            }
            None => {
                writer.literal(&part.content, old.map(|(source, old)| (source, &old.content)))?;
            }
        }
        end = part.content.end;
    }
    writer.literal(&(end..target.size()), None)?;
    writer.flush()?;
    writer.sink.write_all(&[0; super::HEADER_BYTES])?;
    Ok(writer.order)
}

struct Writer<'a, W> {
    target: &'a Spool,
    sources: &'a [Source],
    cursors: Cursors,
    /// What each source is called in the delta, once it is used.
    numbers: Vec<Option<u64>>,
    order: Vec<usize>,
    window: Window,
    sink: &'a mut W,
}

#[derive(Default)]
struct Window {
    operations: Vec<Operation>,
    literals: Vec<u8>,
    pieces: Vec<(u32, Range<u64>)>,
    prefix: Vec<u8>,
}

enum Operation {
    Literal(u64),
    Copy(u32, Range<u64>),
}

impl<W: Write> Writer<'_, W> {
    /// Writes bytes that may be the same as older ones: headers.
    fn range(&mut self, range: &Range<u64>, old: Option<(u32, &Range<u64>)>) -> io::Result<()> {
        match old {
            Some((source, from)) if self.is_same(range, source, from)? => {
                self.copy(source, from.clone())
            }
            old => self.literal(range, old),
        }
    }

    /// Copies what has the same hash; its padding need not be the same.
    fn same(&mut self, range: &Range<u64>, source: u32, from: &Range<u64>) -> io::Result<()> {
        let (length, old) = (range.end - range.start, from.end - from.start);
        match length == old {
            true => self.copy(source, from.clone()),
            false => self.literal(range, Some((source, from))),
        }
    }

    fn is_same(&self, range: &Range<u64>, source: u32, from: &Range<u64>) -> io::Result<bool> {
        let length = range.end - range.start;
        if length != from.end - from.start || length > COMPARE_BYTES as u64 || length == 0 {
            return Ok(false);
        }
        let (mut new, mut old) = (vec![0; length as usize], vec![0; length as usize]);
        self.target.read_at(range.start, &mut new)?;
        self.sources[source as usize].spool.read_at(from.start, &mut old)?;
        Ok(new == old)
    }

    fn copy(&mut self, source: u32, from: Range<u64>) -> io::Result<()> {
        if let Some(Operation::Copy(last, range)) = self.window.operations.last_mut()
            && (*last, range.end) == (source, from.start)
        {
            range.end = from.end;
            return Ok(());
        }
        self.room(0, 0)?;
        self.window.operations.push(Operation::Copy(source, from));
        Ok(())
    }

    /// Writes bytes as they are, beside those of an older version.
    fn literal(&mut self, range: &Range<u64>, old: Option<(u32, &Range<u64>)>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PIECE_BYTES);
            let near = old.map(|(source, old)| (source, near(range, old, at..end)));
            let near = near.filter(|(_, near)| !near.is_empty());
            let (length, around) =
                (end - at, near.as_ref().map_or(0, |(_, near)| near.end - near.start));
            self.room(length as usize, around as usize)?;
            if let Some((source, near)) = near {
                self.piece(source, near)?;
            }
            let literals = &mut self.window.literals;
            let start = literals.len();
            literals.resize(start + length as usize, 0);
            self.target.read_at(at, &mut literals[start..])?;
            match self.window.operations.last_mut() {
                Some(Operation::Literal(bytes)) => *bytes += length,
                _ => self.window.operations.push(Operation::Literal(length)),
            }
            at = end;
        }
        Ok(())
    }

    /// Adds to the prefix.
    fn piece(&mut self, source: u32, near: Range<u64>) -> io::Result<()> {
        let start = self.window.prefix.len();
        self.window.prefix.resize(start + (near.end - near.start) as usize, 0);
        self.sources[source as usize]
            .spool
            .read_at(near.start, &mut self.window.prefix[start..])?;
        match self.window.pieces.last_mut() {
            Some((last, range)) if (*last, range.end) == (source, near.start) => {
                range.end = near.end;
            }
            _ => self.window.pieces.push((source, near)),
        }
        Ok(())
    }

    /// Ends the window where it has no room for so much more.
    fn room(&mut self, literals: usize, prefix: usize) -> io::Result<()> {
        let window = &self.window;
        let instructions =
            (window.operations.len() + window.pieces.len() + 4) * OPERATION_BYTES_MAX;
        let is_full = window.literals.len() + literals > LITERALS_MAX
            || window.prefix.len() + prefix > PREFIX_MAX
            || instructions > INSTRUCTIONS_MAX;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let window = std::mem::take(&mut self.window);
        if window.operations.is_empty() {
            return Ok(());
        }
        let instructions = self.instructions(&window);
        let packed = zstd::bulk::compress(&instructions, LEVEL)?;
        let literals = pack(&window)?;
        let sizes = [
            packed.len(),
            instructions.len(),
            literals.len(),
            window.literals.len(),
            window.prefix.len(),
        ];
        for size in sizes {
            let size = u32::try_from(size).map_err(io::Error::other)?;
            self.sink.write_all(&size.to_le_bytes())?;
        }
        self.sink.write_all(&packed)?;
        self.sink.write_all(&literals)
    }

    fn instructions(&mut self, window: &Window) -> Vec<u8> {
        let mut bytes = Vec::new();
        number(&mut bytes, window.pieces.len() as u64);
        for (source, range) in &window.pieces {
            number(&mut bytes, self.numbered(*source));
            self.taken(&mut bytes, *source, range);
        }
        number(&mut bytes, window.operations.len() as u64);
        for operation in &window.operations {
            match operation {
                Operation::Literal(length) => {
                    number(&mut bytes, 0);
                    number(&mut bytes, *length);
                }
                Operation::Copy(source, range) => {
                    number(&mut bytes, self.numbered(*source) + 1);
                    self.taken(&mut bytes, *source, range);
                }
            }
        }
        bytes
    }

    fn numbered(&mut self, source: u32) -> u64 {
        let (order, source) = (&mut self.order, source as usize);
        *self.numbers[source].get_or_insert_with(|| {
            order.push(source);
            order.len() as u64 - 1
        })
    }

    fn taken(&mut self, bytes: &mut Vec<u8>, source: u32, range: &Range<u64>) {
        let cursor = &mut self.cursors.0[source as usize];
        number(bytes, zigzag((range.start as i64).wrapping_sub(*cursor as i64)));
        number(bytes, range.end - range.start);
        *cursor = range.end;
    }
}

/// Returns what of the older version lies around the same place: counted from the front, where that is
/// nearer, else from the end.
fn near(range: &Range<u64>, old: &Range<u64>, piece: Range<u64>) -> Range<u64> {
    let from_front = old.start.saturating_add(piece.start - range.start);
    let from_end = old.end.saturating_sub(range.end - piece.start);
    let is_front = piece.start - range.start <= range.end - piece.end;
    let place = if is_front { from_front } else { from_end };
    let start = place.saturating_sub(SLACK_BYTES).clamp(old.start, old.end);
    let end = place.saturating_add(piece.end - piece.start + SLACK_BYTES).clamp(start, old.end);
    start..end
}

fn pack(window: &Window) -> io::Result<Vec<u8>> {
    if window.literals.is_empty() {
        return Ok(Vec::new());
    }
    let mut encoder =
        zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, &window.prefix)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.long_distance_matching(true)?;
    encoder.include_checksum(false)?;
    encoder.write_all(&window.literals)?;
    encoder.finish()
}

/// LEB128.
fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
