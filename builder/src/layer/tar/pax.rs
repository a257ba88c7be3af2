//! PAX extended headers: `length key=value\n` records that override fields of the next header.
//!
//! POSIX.1-2001 pax: "The `<length>` field shall be the decimal length of the extended header record
//! in octets, including length string itself and the trailing `<newline>`"; "a zero-length value:
//! any header block value or global extended header value is overridden, the default is used".

use std::collections::BTreeMap;

use thiserror::Error;

use crate::layer::entry::{Mtime, Xattrs};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Why an extended header cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PaxError {
    /// A record's length, separator or newline is not where it must be.
    #[error("a record of the extended header is malformed")]
    Malformed,
    /// A record's value is not what its key asks for.
    #[error("the extended header's {key} is not a valid value")]
    Value {
        /// Which record.
        key: &'static str,
    },
}

/// The records that apply to one entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sparse format 0.0 repeats its keys, so their order counts.
    sparse_pairs: Vec<(SparseKey, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SparseKey {
    Offset,
    Bytes,
}

impl Records {
    /// Adds the records of one extended header; later ones override.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) -> Result<(), PaxError> {
        while !bytes.is_empty() {
            let (key, value, rest) = next_record(bytes)?;
            self.insert(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), PaxError> {
        let pair = match key {
            b"GNU.sparse.offset" => SparseKey::Offset,
            b"GNU.sparse.numbytes" => SparseKey::Bytes,
            _ => {
                self.values.insert(key.to_vec(), value.to_vec());
                return Ok(());
            }
        };
        self.sparse_pairs.push((pair, decimal(value, "GNU.sparse.offset")?));
        Ok(())
    }

    /// Returns a record's value; an empty one counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Returns a record that is a whole number.
    pub(super) fn number(&self, key: &'static str) -> Result<Option<u64>, PaxError> {
        self.get(key).map(|value| decimal(value, key)).transpose()
    }

    /// Returns the time of modification.
    pub(super) fn mtime(&self) -> Result<Option<Mtime>, PaxError> {
        self.get("mtime").map(|value| time(value, "mtime")).transpose()
    }

    /// Returns the extended attributes. An empty name (BuildKit writes one) is no attribute.
    pub(super) fn xattrs(&self) -> Xattrs {
        let named = self.values.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(XATTR_PREFIX).filter(|name| !name.is_empty())?;
            Some((name.to_vec(), value.clone()))
        });
        named.collect()
    }

    /// Returns the pairs of sparse format 0.0.
    pub(super) fn sparse_pairs(&self) -> &[(SparseKey, u64)] {
        &self.sparse_pairs
    }
}

type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn next_record(bytes: &[u8]) -> Result<Record<'_>, PaxError> {
    let space = bytes.iter().position(|byte| *byte == b' ').ok_or(PaxError::Malformed)?;
    let length = decimal(&bytes[..space], "length").map_err(|_| PaxError::Malformed)?;
    let length = usize::try_from(length).map_err(|_| PaxError::Malformed)?;
    if length <= space + 1 || length > bytes.len() {
        return Err(PaxError::Malformed);
    }
    let (record, rest) = bytes.split_at(length);
    let body = record[space + 1..].strip_suffix(b"\n").ok_or(PaxError::Malformed)?;
    let equals = body.iter().position(|byte| *byte == b'=').ok_or(PaxError::Malformed)?;
    if equals == 0 {
        return Err(PaxError::Malformed);
    }
    Ok((&body[..equals], &body[equals + 1..], rest))
}

/// Reads a whole number; signs, blanks and more than 19 digits are refused.
pub(super) fn decimal(bytes: &[u8], key: &'static str) -> Result<u64, PaxError> {
    if bytes.is_empty() || bytes.len() > 20 || !bytes.iter().all(u8::is_ascii_digit) {
        return Err(PaxError::Value { key });
    }
    bytes.iter().try_fold(0_u64, |value, digit| {
        value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .ok_or(PaxError::Value { key })
    })
}

/// Reads `seconds[.fraction]`, negative before 1970. Digits beyond nanoseconds are cut.
fn time(bytes: &[u8], key: &'static str) -> Result<Mtime, PaxError> {
    let (negative, digits) = match bytes.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, bytes),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let seconds = decimal(&digits[..point], key)?;
    let seconds = i64::try_from(seconds).map_err(|_| PaxError::Value { key })?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(PaxError::Value { key });
    }
    let nanoseconds = (0..9).fold(0_u32, |value, i| {
        value * 10 + fraction.get(i).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Ok(match (negative, nanoseconds) {
        (false, nanoseconds) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds: 0 },
        // -1.25 is 0.75 s after -2.
        (true, part) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - part },
    })
}

/// Collects records for writing, sorted by key.
#[derive(Debug, Default)]
pub(super) struct Writing(BTreeMap<Vec<u8>, Vec<u8>>);

impl Writing {
    pub(super) fn set(&mut self, key: &str, value: &[u8]) {
        self.0.insert(key.as_bytes().to_vec(), value.to_vec());
    }

    pub(super) fn set_xattr(&mut self, name: &[u8], value: &[u8]) {
        self.0.insert([XATTR_PREFIX, name].concat(), value.to_vec());
    }

    /// Returns the extended header's content; empty if there is no record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let records = self.0.iter().map(|(key, value)| {
            let body = key.len() + value.len() + 3; // space, equals sign, newline
            let length = with_own_digits(body);
            [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
        });
        records.collect::<Vec<_>>().concat()
    }
}

/// Returns `body` plus the number of digits that state the sum.
fn with_own_digits(body: usize) -> usize {
    let mut length = body;
    loop {
        let next = body + length.to_string().len();
        if next == length {
            return length;
        }
        length = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_whatever_their_length() {
        for length in (0..200).chain(980..1010).chain(9980..10_010) {
            let mut writing = Writing::default();
            writing.set("path", &vec![b'\n'; length]);
            writing.set_xattr(b"user.x", b"a=b\0c");
            let mut records = Records::default();
            records.extend(&writing.encode()).unwrap();
            assert_eq!(records.get("path").unwrap_or_default().len(), length);
            assert_eq!(records.xattrs()[&b"user.x"[..]], b"a=b\0c");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"6 a=b",
            b"7 a=b\n",
            b"5 a=b\n",
            b"+6 a=b\n",
            b"4 a\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"0 a=b\n",
            b" a=b\n",
        ] {
            let mut records = Records::default();
            assert_eq!(records.extend(bytes), Err(PaxError::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn times_may_be_negative_and_fractional() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("1.1234567899", 1, 123_456_789),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("5.", 5, 0),
        ] {
            let expected = Ok(Mtime { seconds, nanoseconds });
            assert_eq!(time(text.as_bytes(), "mtime"), expected, "{text}");
        }
        for text in ["", "-", "a", "1.x", "--1", "1e5", "99999999999999999999"] {
            assert!(time(text.as_bytes(), "mtime").is_err(), "{text}");
        }
    }

    #[test]
    fn an_xattr_without_a_name_is_none() {
        let mut records = Records::default();
        records.extend(b"18 SCHILY.xattr.=\n").unwrap();
        assert!(records.xattrs().is_empty());
    }
}
