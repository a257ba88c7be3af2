//! Unpacking a layer's bytes, whatever they were packed with.
//!
//! The format is told from the first bytes, not from a media type: registries hold layers whose
//! media type lies, and `ADD` has none. Gzip is always read member after member, as gzip(1) does;
//! members that [`super::compress`] wrote are unpacked on several threads. A limit on what comes out
//! stops bombs.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use libdeflater::Decompressor as Inflater;
use thiserror::Error;

use super::compress::{Lanes, Member};

const BUFFER_BYTES: usize = 256 << 10;
const MAGIC_BYTES: usize = 6;
/// What `xz -9` needs, four times.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Ratios are looked at once this much came out: the start of a stream says little.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// A way to pack bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not packed, or in a way that we do not know.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Bzip2.
    Bzip2,
    /// Xz.
    Xz,
}

impl Format {
    /// Tells a format from a stream's first bytes.
    pub fn sniff(start: &[u8]) -> Self {
        const SKIPPABLE: std::ops::RangeInclusive<u8> = 0x50..=0x5f;
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [first, 0x2a, 0x4d, 0x18, ..] if SKIPPABLE.contains(first) => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// How much may come out.
#[derive(Clone, Copy, Debug)]
pub struct DecompressLimits {
    /// Bytes in all.
    pub bytes_max: u64,
    /// Bytes out per byte in. Honest layers of zeros reach 1 000 with gzip and more with zstd.
    pub ratio_max: Option<u64>,
}

impl Default for DecompressLimits {
    /// Returns 1 TiB at any ratio.
    fn default() -> Self {
        Self { bytes_max: 1 << 40, ratio_max: None }
    }
}

/// More came out than allowed. It travels inside an [`io::Error`].
#[derive(Debug, Error)]
pub enum BombError {
    /// Too much in all.
    #[error("more than {0} bytes come out of the compressed stream")]
    TooLarge(u64),
    /// Too much for what went in.
    #[error("the stream unpacks to more than {0} times its size")]
    Ratio(u64),
}

/// Unpacks a stream while it is read.
pub struct Decompressor<R: Read> {
    inner: Inner<R>,
    format: Format,
    limits: DecompressLimits,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
}

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, Counting<R>>>;

enum Inner<R: Read> {
    None(Source<R>),
    Gzip(Box<Gzip<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<Source<R>>>),
    Xz(Box<liblzma::bufread::XzDecoder<Source<R>>>),
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes and starts to unpack, on up to `threads` threads.
    ///
    /// # Errors
    /// Fails if the reader does, or threads cannot be started.
    pub fn new(reader: R, threads: usize, limits: DecompressLimits) -> io::Result<Self> {
        let bytes_in = Arc::new(AtomicU64::new(0));
        let mut reader = Counting { inner: reader, bytes: Arc::clone(&bytes_in) };
        let mut start = Vec::with_capacity(MAGIC_BYTES);
        (&mut reader).take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
        let format = Format::sniff(&start);
        let source = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(reader));
        let inner = match format {
            Format::None => Inner::None(source),
            Format::Gzip => Inner::Gzip(Box::new(Gzip::new(source, threads)?)),
            Format::Zstd => {
                Inner::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?))
            }
            Format::Bzip2 => Inner::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(source))),
            Format::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, flags)?;
                Inner::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream)))
            }
        };
        Ok(Self { inner, format, limits, bytes_in, bytes_out: 0 })
    }

    /// Returns what the stream is packed with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns how many packed bytes were read so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), BombError> {
        if self.bytes_out > self.limits.bytes_max {
            return Err(BombError::TooLarge(self.limits.bytes_max));
        }
        match self.limits.ratio_max {
            Some(ratio)
                if self.bytes_out > RATIO_FROM_BYTES
                    && self.bytes_out / ratio.max(1) > self.bytes_in() =>
            {
                Err(BombError::Ratio(ratio))
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.inner {
            Inner::None(inner) => inner.read(buffer),
            Inner::Gzip(inner) => inner.read(buffer),
            Inner::Zstd(inner) => inner.read(buffer),
            Inner::Bzip2(inner) => inner.read(buffer),
            Inner::Xz(inner) => inner.read(buffer),
        }?;
        self.bytes_out += read as u64;
        self.check().map_err(|bomb| io::Error::new(io::ErrorKind::InvalidData, bomb))?;
        Ok(read)
    }
}

impl<R: Read> std::fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor")
            .field("format", &self.format)
            .field("bytes_out", &self.bytes_out)
            .finish_non_exhaustive()
    }
}

struct Counting<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Gzip: our own members as long as they come, then whatever else there is.
struct Gzip<R: BufRead> {
    state: State<R>,
    lanes: Lanes<Vec<u8>, io::Result<Vec<u8>>>,
    /// Of the member that is being read.
    unpacked: Cursor<Vec<u8>>,
}

enum State<R: BufRead> {
    Ours(R),
    /// What was read to see that it is not ours comes first.
    Foreign(Box<MultiGzDecoder<Chain<Cursor<Vec<u8>>, R>>>),
    Ended,
}

impl<R: BufRead> Gzip<R> {
    fn new(reader: R, threads: usize) -> io::Result<Self> {
        let lanes = Lanes::new(threads, || {
            let mut inflater = Inflater::new();
            Box::new(move |member: Vec<u8>| Member::unpack(&mut inflater, &member))
        })?;
        Ok(Self { state: State::Ours(reader), lanes, unpacked: Cursor::default() })
    }

    /// Gives the lanes as much work as they take.
    fn fill(&mut self) -> io::Result<()> {
        while !self.lanes.is_full() {
            let State::Ours(reader) = &mut self.state else { return Ok(()) };
            let mut header = Vec::with_capacity(Member::HEADER_BYTES);
            reader.take(Member::HEADER_BYTES as u64).read_to_end(&mut header)?;
            let length = header.as_slice().try_into().ok().and_then(Member::length);
            match length {
                Some(length) => {
                    let rest = (length - header.len()) as u64;
                    if (reader.take(rest).read_to_end(&mut header)? as u64) < rest {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.lanes.push(header);
                }
                None => self.leave(header),
            }
        }
        Ok(())
    }

    fn leave(&mut self, start: Vec<u8>) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ours(reader) if !start.is_empty() => {
                State::Foreign(Box::new(MultiGzDecoder::new(Cursor::new(start).chain(reader))))
            }
            _ => State::Ended,
        };
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.unpacked.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.fill()?;
            match self.lanes.pop() {
                Some(unpacked) => self.unpacked = Cursor::new(unpacked??),
                None => break,
            }
        }
        match &mut self.state {
            State::Foreign(decoder) => decoder.read(buffer),
            State::Ours(_) | State::Ended => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests;
