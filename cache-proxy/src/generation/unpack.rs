//! Indexes as they come, packed or not, with limits on what comes out.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `xz -9` needs, four times.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;
/// The window of `zstd --ultra -22`.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Ratios are looked at once this much came out: the start of a stream says little.
const RATIO_FROM_BYTES: u64 = 16 << 20;

/// How much may come out of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all.
    pub bytes_max: u64,
    /// Bytes out per byte in. The largest indexes of distributions reach 20.
    pub ratio_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes_max: 4 << 30, ratio_max: 400 }
    }
}

/// More came out than allowed. It travels inside an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BombError {
    /// Too much in all.
    #[error("more than {0} bytes come out of the index")]
    TooLarge(u64),
    /// Too much for what went in.
    #[error("the index unpacks to more than {0} times its size")]
    Ratio(u64),
}

/// Unpacks an index while it is read: gzip, xz, lzma, bzip2, zstd, or plain; the first bytes say which.
///
/// # Errors
/// Where the reader fails.
pub fn unpack(from: impl Read + Send + 'static, limits: Limits) -> io::Result<Unpacked> {
    let bytes_in = Arc::new(AtomicU64::new(0));
    let mut from = Counting { inner: from, bytes: Arc::clone(&bytes_in) };
    let mut start = Vec::with_capacity(6);
    (&mut from).take(6).read_to_end(&mut start)?;
    let packing = Packing::sniff(&start);
    let source = BufReader::with_capacity(64 << 10, Cursor::new(start).chain(from));
    let inner: Box<dyn Read + Send> = match packing {
        Packing::None => Box::new(source),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Packing::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY_BYTES_MAX, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    let bounded = Bounded { inner, limits, bytes_in, bytes_out: 0 };
    Ok(Unpacked(BufReader::with_capacity(64 << 10, bounded)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Packing {
    fn sniff(start: &[u8]) -> Packing {
        match start {
            [0x1f, 0x8b, 8, ..] => Packing::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] | [0x5d, 0, 0, ..] => Packing::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::None,
        }
    }
}

/// The plain bytes of an index.
pub struct Unpacked(BufReader<Bounded>);

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Unpacked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

struct Bounded {
    inner: Box<dyn Read + Send>,
    limits: Limits,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes_out += read as u64;
        let Limits { bytes_max, ratio_max } = self.limits;
        let bomb = if self.bytes_out > bytes_max {
            BombError::TooLarge(bytes_max)
        } else if self.bytes_out > RATIO_FROM_BYTES
            && self.bytes_out / ratio_max.max(1) > self.bytes_in.load(Ordering::Relaxed)
        {
            BombError::Ratio(ratio_max)
        } else {
            return Ok(read);
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, bomb))
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn plain(packed: &[u8], limits: Limits) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        unpack(Cursor::new(packed.to_vec()), limits)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn packed(text: &[u8]) -> [Vec<u8>; 5] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(text).unwrap();
        [
            text.to_vec(),
            gzip.finish().unwrap(),
            xz.finish().unwrap(),
            bzip2.finish().unwrap(),
            zstd::encode_all(text, 1).unwrap(),
        ]
    }

    #[test]
    fn every_packing_is_told_from_its_first_bytes() {
        for text in [&b""[..], b"P", b"Package: a\n\n"] {
            for packed in packed(text) {
                assert_eq!(plain(&packed, Limits::default()).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_is_cut_short_fails() {
        let text = b"Package: a\nVersion: 1\n\n".repeat(500);
        for packed in packed(&text).iter().skip(1) {
            assert!(plain(&packed[..packed.len() - 9], Limits::default()).is_err());
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let text = vec![0; 32 << 20];
        for (at, packed) in packed(&text).iter().enumerate() {
            let few = Limits { bytes_max: 1 << 20, ..Limits::default() };
            assert!(plain(packed, few).is_err());
            let ratio = Limits { ratio_max: 10, ..Limits::default() };
            assert_eq!(plain(packed, ratio).is_err(), at > 0);
        }
    }
}
