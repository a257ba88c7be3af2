//! Packing a layer's bytes: gzip or zstd, on several threads, the same bytes for any number of them.
//!
//! The input is cut into pieces of fixed size, each packed on its own and written in order. Gzip
//! pieces are members of 1 MiB: every reader of gzip reads them as one stream, and each says its own
//! length in the `BY` subfield of its header (RFC 1952, FEXTRA), so that [`super::decompress`] can
//! unpack them in parallel. Zstd pieces are frames of 4 MiB with their size and a checksum.
//!
//! A digest depends on these bytes: the level, the piece's size and the library's version are part
//! of what must not change by accident. Memory is a few pieces per thread.

mod gzip;
mod lanes;

use std::io::{self, Write};

pub(crate) use self::gzip::MEMBER_BYTES;
pub(super) use self::gzip::Member;
pub(super) use self::lanes::{Lanes, Worker};

/// Bytes of input per frame.
pub(crate) const FRAME_BYTES: usize = 4 << 20;

/// How a layer's blob is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// `+gzip`: read by everything.
    Gzip {
        /// Libdeflate's, 1 to 12; others count as the nearest.
        level: u8,
    },
    /// `+zstd`: smaller and faster, unknown to Docker before 23.
    Zstd {
        /// Zstd's, 1 to 22; others count as the nearest.
        level: u8,
    },
}

impl Compression {
    /// Gzip at level 4: nine times as fast as `gzip -6` at its ratio.
    pub const GZIP: Self = Self::Gzip { level: 4 };
    /// Zstd at level 3.
    pub const ZSTD: Self = Self::Zstd { level: 3 };
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
}

/// Packs what is written to it.
///
/// [`Self::finish`] must be called: a dropped compressor leaves a truncated blob behind.
#[derive(Debug)]
pub struct Compressor<W> {
    sink: W,
    packing: Option<Packing>,
}

#[derive(Debug)]
struct Packing {
    lanes: Lanes<Vec<u8>, io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    piece_bytes: usize,
    any: bool,
}

impl<W: Write> Compressor<W> {
    /// Starts a blob that `threads` threads pack; with one, the caller's does it.
    ///
    /// # Errors
    /// Fails if threads cannot be started.
    pub fn new(sink: W, compression: Compression, threads: usize) -> io::Result<Self> {
        let (piece_bytes, worker): (usize, fn(u8) -> PackWorker) = match compression {
            Compression::None => return Ok(Self { sink, packing: None }),
            Compression::Gzip { .. } => (MEMBER_BYTES, gzip::packer),
            Compression::Zstd { .. } => (FRAME_BYTES, zstd_packer),
        };
        let level = match compression {
            Compression::Gzip { level } => level.clamp(1, 12),
            Compression::Zstd { level } => level.clamp(1, 22),
            Compression::None => 0,
        };
        let lanes = Lanes::new(threads, || worker(level))?;
        let piece = Vec::with_capacity(piece_bytes);
        Ok(Self { sink, packing: Some(Packing { lanes, piece, piece_bytes, any: false }) })
    }

    /// Ends the blob and returns the sink.
    ///
    /// # Errors
    /// Fails if the sink fails.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(packing) = &mut self.packing {
            // Nothing at all is one empty piece: an empty file is no gzip.
            if !packing.piece.is_empty() || !packing.any {
                packing.submit(&mut self.sink)?;
            }
            while packing.next_to(&mut self.sink)? {}
        }
        self.sink.flush()?;
        Ok(self.sink)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(packing) = &mut self.packing else { return self.sink.write(buffer) };
        let room = packing.piece_bytes - packing.piece.len();
        let taken = room.min(buffer.len());
        packing.piece.extend_from_slice(&buffer[..taken]);
        if packing.piece.len() == packing.piece_bytes {
            packing.submit(&mut self.sink)?;
        }
        Ok(taken)
    }

    /// Does nothing while pieces are packed: cutting one short would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        if self.packing.is_none() { self.sink.flush() } else { Ok(()) }
    }
}

impl Packing {
    fn submit(&mut self, sink: &mut impl Write) -> io::Result<()> {
        if self.lanes.is_full() {
            self.next_to(sink)?;
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(self.piece_bytes));
        self.any = true;
        self.lanes.push(piece);
        Ok(())
    }

    /// Writes the oldest piece; returns whether there was one.
    fn next_to(&mut self, sink: &mut impl Write) -> io::Result<bool> {
        let Some(packed) = self.lanes.pop() else { return Ok(false) };
        sink.write_all(&packed??)?;
        Ok(true)
    }
}

type PackWorker = Worker<Vec<u8>, io::Result<Vec<u8>>>;

fn zstd_packer(level: u8) -> PackWorker {
    let compressor = zstd::bulk::Compressor::new(i32::from(level)).and_then(|mut compressor| {
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
        Ok(compressor)
    });
    match compressor {
        Ok(mut compressor) => Box::new(move |piece: Vec<u8>| compressor.compress(&piece)),
        Err(error) => {
            let message = error.to_string();
            Box::new(move |_| Err(io::Error::other(message.clone())))
        }
    }
}

#[cfg(test)]
mod tests {
    use boatyard_oci::Digest;

    use super::*;

    /// What an image's digest depends on: compatibility level 1. Where one of these changes, there
    /// must be a new level, and a way to write this one.
    #[test]
    fn the_bytes_of_compatibility_level_1() {
        let mut noise = vec![0; 3 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let words = (0..400_000_u32).flat_map(|number| (number % 977).to_string().into_bytes());
        let content: Vec<u8> = words.chain(noise).collect();
        let packed = |compression| {
            let mut compressor = Compressor::new(Vec::new(), compression, 2).unwrap();
            compressor.write_all(&content).unwrap();
            Digest::sha256(&compressor.finish().unwrap()).short().to_owned()
        };
        let digests = [
            Compression::GZIP,
            Compression::Gzip { level: 12 },
            Compression::ZSTD,
            Compression::Zstd { level: 19 },
        ]
        .map(packed);
        assert_eq!(digests, ["ddeea1dee689", "f84a367a6095", "0af203b4fc05", "2ee7a4697b14"]);
    }
}
