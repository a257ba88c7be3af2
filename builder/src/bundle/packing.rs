//! How a blob was packed, so that it can be packed again.

use std::io::{self, Read, Write as _};

use boatyard_content::Root;
use boatyard_oci::{DiffId, Digest};

use super::DeltaError;
use super::spool::Spool;
use crate::layer::Compression;
use crate::layer::compress::{Compressor, FRAME_BYTES, MEMBER_BYTES};
use crate::layer::decompress::Format;
use crate::pack::encoding;

/// The levels of gzip, those that are used first.
const GZIP_LEVELS: [u8; 12] = [4, 6, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12];
/// The levels of zstd; the highest ones are hardly used, and slow to try.
const ZSTD_LEVELS: [u8; 19] = [3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// Reads the name of a packing, as a bundle has it.
pub(super) fn parse(name: &str) -> Result<Compression, DeltaError> {
    let unknown = || DeltaError::Packing(name.escape_debug().to_string());
    let (format, level) = name.split_once('-').unwrap_or((name, ""));
    let level = || level.parse::<u8>().map_err(|_| unknown());
    let compression = match format {
        "none" => Compression::None,
        "gzip" => Compression::Gzip { level: level()? },
        "zstd" => Compression::Zstd { level: level()? },
        _ => return Err(unknown()),
    };
    if encoding(compression) == name { Ok(compression) } else { Err(unknown()) }
}

/// Returns how a blob was probably packed: as the build cache recorded it, or as its first piece comes
/// out the same. `None` where another tool packed it.
pub(super) fn guess(
    root: &Root,
    diff_id: &DiffId,
    blob: &Digest,
    plain: &Spool,
) -> Result<Option<Compression>, DeltaError> {
    for (name, recorded) in root.encodings().of(diff_id)? {
        if recorded.digest == *blob
            && let Ok(compression) = parse(&name)
        {
            return Ok(Some(compression));
        }
    }
    let Some(packed) = root.store().open_blocking(blob)? else { return Ok(None) };
    let mut packed = packed.into_file();
    let mut start = Vec::new();
    (&mut packed).take(8).read_to_end(&mut start)?;
    let format = Format::sniff(&start);
    let (piece, candidates): (_, Vec<Compression>) = match format {
        Format::None => return Ok(Some(Compression::None)),
        Format::Gzip => {
            (MEMBER_BYTES, GZIP_LEVELS.map(|level| Compression::Gzip { level }).to_vec())
        }
        Format::Zstd => {
            (FRAME_BYTES, ZSTD_LEVELS.map(|level| Compression::Zstd { level }).to_vec())
        }
        Format::Bzip2 | Format::Xz => return Ok(None),
    };
    let mut first = vec![0; piece.min(usize::try_from(plain.size()).unwrap_or(piece))];
    plain.read_at(0, &mut first)?;
    for compression in candidates {
        let mut compressor = Compressor::new(Vec::new(), compression, 1)?;
        compressor.write_all(&first)?;
        let again = compressor.finish()?;
        let rest = again.len().saturating_sub(start.len());
        if rest > 0 {
            (&mut packed).take(rest as u64).read_to_end(&mut start)?;
        }
        if start.starts_with(&again) {
            return Ok(Some(compression));
        }
        if is_foreign(format, &start) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Says whether the first bytes are none that we write, whatever the level.
fn is_foreign(format: Format, start: &[u8]) -> bool {
    format == Format::Gzip && start.get(3) != Some(&4)
}

/// Refuses more bytes than it was told.
pub(super) struct Limited<W> {
    pub(super) inner: W,
    pub(super) left: u64,
}

impl<W: io::Write> io::Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        let left = left.ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than it should be")
        })?;
        let written = self.inner.write(bytes)?;
        self.left = left + (bytes.len() - written) as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
