//! How the bytes of one archive are put together from those of others.
//!
//! ```text
//! "by-dlta\x01"
//! windows, each:
//!   5 × u32      instructions: bytes packed, unpacked; literals: bytes packed, unpacked; prefix: bytes
//!   instructions a zstd frame
//!   literals     a zstd frame that refers to the prefix
//! 5 × u32        zeros: the end
//!
//! instructions:
//!   number of prefix pieces, for each: source, offset, length
//!   number of operations, for each: 0, length                    that many literals
//!                                   source + 1, offset, length   that many bytes of a source
//! ```
//!
//! Numbers are LEB128; an offset is the distance from the end of what was last taken from the same
//! source, in zigzag. The prefix is what the pieces are, one after the other: older versions of what
//! the literals are newer versions of. A window has at most 8 MiB of literals and 16 MiB of prefix, which
//! bounds the memory on both sides.

mod read;
mod write;

pub(super) use read::apply;
pub(super) use write::{Source, write};

const MAGIC: &[u8; 8] = b"by-dlta\x01";
const HEADER_BYTES: usize = 20;
/// Literals of a window.
const LITERALS_MAX: usize = 8 << 20;
/// The prefix of a window.
const PREFIX_MAX: usize = 16 << 20;
/// Instructions of a window, unpacked.
const INSTRUCTIONS_MAX: usize = 4 << 20;
/// Sees all of the prefix and the literals.
const WINDOW_LOG: u32 = 25;

/// Where the next offset of each source is counted from.
#[derive(Debug)]
struct Cursors(Vec<u64>);

impl Cursors {
    fn new(sources: usize) -> Cursors {
        Cursors(vec![0; sources])
    }
}

/// Maps small distances in either direction to small numbers.
fn zigzag(distance: i64) -> u64 {
    (distance.wrapping_shl(1) ^ (distance >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    ((number >> 1) as i64) ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_come_back() {
        for distance in [0, 1, -1, 511, -512, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(distance)), distance);
        }
        assert_eq!([zigzag(0), zigzag(-1), zigzag(1)], [0, 1, 2]);
    }
}
