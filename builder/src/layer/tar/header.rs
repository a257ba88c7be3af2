//! One 512-byte header block: fields, numbers and the checksum.
//!
//! Fields as in POSIX.1-1988 ustar, with GNU's differences where the magic says GNU. The numbers are
//! octal text, or base-256 where the first byte's high bit is set (GNU and star).

use thiserror::Error;

pub(super) const BLOCK_BYTES: usize = 512;

/// One block of an archive.
pub(super) type Block = [u8; BLOCK_BYTES];

pub(super) const NAME: (usize, usize) = (0, 100);
pub(super) const MODE: (usize, usize) = (100, 8);
pub(super) const UID: (usize, usize) = (108, 8);
pub(super) const GID: (usize, usize) = (116, 8);
pub(super) const SIZE: (usize, usize) = (124, 12);
pub(super) const MTIME: (usize, usize) = (136, 12);
pub(super) const CHECKSUM: (usize, usize) = (148, 8);
pub(super) const TYPE: usize = 156;
pub(super) const LINK: (usize, usize) = (157, 100);
pub(super) const MAGIC: (usize, usize) = (257, 8);
pub(super) const MAJOR: (usize, usize) = (329, 8);
pub(super) const MINOR: (usize, usize) = (337, 8);
const PREFIX: (usize, usize) = (345, 155);
const PREFIX_STAR: (usize, usize) = (345, 131);
const STAR_TRAILER: (usize, usize) = (508, 4);

/// Why a header block cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// The sum over the block is not the one it states.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// A field is no number.
    #[error("the header's {field} is not a number")]
    NotANumber {
        /// Which field.
        field: &'static str,
    },
    /// A number is negative or beyond what the field can mean.
    #[error("the {field} is out of range")]
    OutOfRange {
        /// Which field.
        field: &'static str,
    },
}

/// Returns the bytes of a field.
pub(super) fn field(block: &Block, (at, length): (usize, usize)) -> &[u8] {
    &block[at..at + length]
}

/// Returns the bytes of a field up to its first NUL.
pub(super) fn text(block: &Block, place: (usize, usize)) -> &[u8] {
    let bytes = field(block, place);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Returns the name, with the prefix of ustar where there is one.
pub(super) fn name(block: &Block) -> Vec<u8> {
    let name = text(block, NAME);
    // GNU's magic is `ustar  \0` and its headers hold other things where ustar has the prefix.
    if field(block, MAGIC)[..6] != *b"ustar\0" {
        return name.to_vec();
    }
    let star = field(block, STAR_TRAILER) == b"tar\0";
    let prefix = text(block, if star { PREFIX_STAR } else { PREFIX });
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Checks the sum over the block, in which the field itself counts as spaces.
///
/// Old writers summed signed bytes, so both sums are accepted.
pub(super) fn verify_checksum(block: &Block) -> Result<(), HeaderError> {
    let stated = number(block, CHECKSUM, "checksum").map_err(|_| HeaderError::Checksum)?;
    let signed: i64 = summed(block).map(|byte| i64::from(byte.cast_signed())).sum();
    if stated == checksum(block) || stated == signed { Ok(()) } else { Err(HeaderError::Checksum) }
}

/// Returns the sum over the block.
pub(super) fn checksum(block: &Block) -> i64 {
    summed(block).map(i64::from).sum()
}

fn summed(block: &Block) -> impl Iterator<Item = u8> {
    let (at, length) = CHECKSUM;
    let blanked = at..at + length;
    block.iter().enumerate().map(move |(i, byte)| if blanked.contains(&i) { b' ' } else { *byte })
}

/// Reads a number; an empty field is 0.
pub(super) fn number(
    block: &Block,
    place: (usize, usize),
    name: &'static str,
) -> Result<i64, HeaderError> {
    parse_number(field(block, place), name)
}

/// Reads a number that cannot be negative.
pub(super) fn unsigned(
    block: &Block,
    place: (usize, usize),
    name: &'static str,
) -> Result<u64, HeaderError> {
    number(block, place, name)?.try_into().map_err(|_| HeaderError::OutOfRange { field: name })
}

pub(super) fn parse_number(bytes: &[u8], field: &'static str) -> Result<i64, HeaderError> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base256(bytes, field),
        _ => octal(bytes, field),
    }
}

/// Two's complement, big-endian, in which the marking bit 0x80 is not part of the number.
fn base256(bytes: &[u8], field: &'static str) -> Result<i64, HeaderError> {
    let negative = bytes[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (i, byte) in bytes.iter().enumerate() {
        let byte = match (i, negative) {
            (0, true) => *byte,
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        value = value << 8 | i128::from(byte);
        if i64::try_from(value).is_err() {
            return Err(HeaderError::OutOfRange { field });
        }
    }
    i64::try_from(value).map_err(|_| HeaderError::OutOfRange { field })
}

fn octal(bytes: &[u8], field: &'static str) -> Result<i64, HeaderError> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let mut value: i64 = 0;
    for digit in &digits[..end] {
        if !matches!(digit, b'0'..=b'7') {
            return Err(HeaderError::NotANumber { field });
        }
        // At most 12 digits of 3 bits fit a field.
        value = value << 3 | i64::from(digit - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (bytes, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777", 0o7777_7777),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
        ] {
            assert_eq!(parse_number(bytes, "x"), Ok(value), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bytes in [&b"-0000644"[..], b"0x1\0\0\0\0\0", b"8\0\0\0\0\0\0\0"] {
            assert_eq!(parse_number(bytes, "x"), Err(HeaderError::NotANumber { field: "x" }));
        }
        let huge = b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(parse_number(huge, "x"), Err(HeaderError::OutOfRange { field: "x" }));
    }
}
