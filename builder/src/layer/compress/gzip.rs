//! One gzip member that knows its own length.
//!
//! ```text
//! 1f 8b 08 04  00 00 00 00  00 ff    magic, deflate, FEXTRA; no time; unknown system
//! 08 00  'B' 'Y' 04 00  length       XLEN; our subfield: bytes of the whole member, u32
//! ... deflate ...
//! crc32  size                        of the unpacked bytes
//! ```

use std::io;

use libdeflater::{CompressionLvl, Compressor, Decompressor};

use super::PackWorker;

/// Bytes of input per member.
pub(crate) const MEMBER_BYTES: usize = 1 << 20;

const HEAD: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 8, 0, b'B', b'Y', 4, 0];
const TRAILER_BYTES: usize = 8;
const STORED_BLOCK_BYTES: usize = u16::MAX as usize;
/// A piece of at least this size is tried by samples first.
const SAMPLED_BYTES_MIN: usize = 256 << 10;
const SAMPLES: usize = 4;
/// What deflate looks back on: within less it finds less than there is.
const SAMPLE_BYTES: usize = 32 << 10;

/// A member's header as its reader needs it.
pub(crate) struct Member;

impl Member {
    /// Bytes up to and including the length.
    pub(crate) const HEADER_BYTES: usize = HEAD.len() + 4;

    /// Returns the member's length from its header; `None` if it is not one of ours.
    pub(crate) fn length(header: &[u8; Self::HEADER_BYTES]) -> Option<usize> {
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        // A piece that does not compress costs five bytes in each stored block.
        let longest = Self::HEADER_BYTES + MEMBER_BYTES + 5 * 32 + TRAILER_BYTES;
        let plausible = Self::HEADER_BYTES + TRAILER_BYTES < length && length <= longest;
        (header.starts_with(&HEAD) && plausible).then_some(length)
    }

    /// Unpacks a whole member and checks its size and checksum.
    pub(crate) fn unpack(decompressor: &mut Decompressor, member: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let end = member.len().checked_sub(TRAILER_BYTES).filter(|end| *end > Self::HEADER_BYTES);
        let end = end.ok_or_else(|| damaged("a gzip member is too short"))?;
        let (deflate, trailer) = (&member[Self::HEADER_BYTES..end], &member[end..]);
        let crc = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
        let size = u32::from_le_bytes([trailer[4], trailer[5], trailer[6], trailer[7]]) as usize;
        if size > MEMBER_BYTES {
            return Err(damaged("a gzip member is larger than it may be"));
        }
        let mut bytes = vec![0; size];
        let unpacked = decompressor.deflate_decompress(deflate, &mut bytes);
        if unpacked != Ok(size) || libdeflater::crc32(&bytes) != crc {
            return Err(damaged("a gzip member is damaged"));
        }
        Ok(bytes)
    }
}

/// Returns what packs pieces into members.
pub(super) fn packer(level: u8) -> PackWorker {
    // The level was clamped to libdeflate's range.
    let level = CompressionLvl::new(i32::from(level)).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    // The library's fastest level is 0, which does not compress.
    let mut sampler = Compressor::new(CompressionLvl::new(1).unwrap_or_default());
    Box::new(move |piece: Vec<u8>| pack(&mut compressor, &mut sampler, &piece))
}

fn pack(
    compressor: &mut Compressor,
    sampler: &mut Compressor,
    piece: &[u8],
) -> io::Result<Vec<u8>> {
    let bound = compressor.deflate_compress_bound(piece.len());
    let mut member = vec![0; Member::HEADER_BYTES + bound + TRAILER_BYTES];
    member[..HEAD.len()].copy_from_slice(&HEAD);
    let packed = match is_noise(sampler, piece)? {
        true => piece.len(),
        false => compressor
            .deflate_compress(piece, &mut member[Member::HEADER_BYTES..])
            .map_err(io::Error::other)?,
    };
    member.truncate(Member::HEADER_BYTES + packed);
    if packed >= piece.len() {
        member.truncate(Member::HEADER_BYTES);
        store(piece, &mut member);
    }
    member.extend_from_slice(&libdeflater::crc32(piece).to_le_bytes());
    member.extend_from_slice(&to_u32(piece.len())?.to_le_bytes());
    let length = to_u32(member.len())?.to_le_bytes();
    member[HEAD.len()..Member::HEADER_BYTES].copy_from_slice(&length);
    Ok(member)
}

/// Says whether samples of a piece do not compress at all: what is packed already costs as much time
/// to try as to pack. It is a function of the bytes alone, as the member must be.
fn is_noise(sampler: &mut Compressor, piece: &[u8]) -> io::Result<bool> {
    if piece.len() < SAMPLED_BYTES_MIN {
        return Ok(false);
    }
    let mut packed = vec![0; sampler.deflate_compress_bound(SAMPLE_BYTES)];
    for sample in 0..SAMPLES {
        let start = sample * (piece.len() - SAMPLE_BYTES) / (SAMPLES - 1);
        let bytes = &piece[start..start + SAMPLE_BYTES];
        let length = sampler.deflate_compress(bytes, &mut packed).map_err(io::Error::other)?;
        if length < SAMPLE_BYTES {
            return Ok(false);
        }
    }
    Ok(true)
}

/// RFC 1951, 3.2.4: blocks that are not compressed.
fn store(piece: &[u8], member: &mut Vec<u8>) {
    let blocks = piece.len().div_ceil(STORED_BLOCK_BYTES).max(1);
    for index in 0..blocks {
        let start = index * STORED_BLOCK_BYTES;
        let block = &piece[start..piece.len().min(start + STORED_BLOCK_BYTES)];
        // At most 65 535 by construction.
        let length = block.len() as u16;
        member.push(u8::from(index + 1 == blocks));
        member.extend_from_slice(&length.to_le_bytes());
        member.extend_from_slice(&(!length).to_le_bytes());
        member.extend_from_slice(block);
    }
}

fn to_u32(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing can be found in: those of a hash in counter mode.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn noise_is_stored_and_all_else_is_packed() {
        let mut pack = packer(6);
        let mut packed = |piece: Vec<u8>| pack(piece).unwrap().len();
        let length = MEMBER_BYTES;
        let stored = packed(noise(length));
        assert!((length..length + 300).contains(&stored), "{stored}");
        assert!(packed(vec![7; length]) < length / 100);
        // One sample that compresses is enough.
        let mut mixed = noise(length);
        mixed[length / 3 - SAMPLE_BYTES..length / 3 + SAMPLE_BYTES].fill(7);
        assert!(packed(mixed) < length - SAMPLE_BYTES);
    }
}
