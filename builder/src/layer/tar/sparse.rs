//! Sparse files: which parts of a file an archive stores; the rest are zeros.
//!
//! Four ways to say it: the GNU header of type `S`, and PAX records in formats 0.0 (repeated
//! offset/numbytes), 0.1 (one list) and 1.0 (a list at the head of the content). Whatever the way,
//! one [`Map`] comes out, checked against the size that is stored and the size that is meant.

use thiserror::Error;

use super::header::{self, BLOCK_BYTES, Block};
use super::pax::{self, Records, SparseKey};

/// More parts than any real file has; each costs 16 bytes of memory.
const PARTS_MAX: usize = 1 << 20;

/// Why a sparse file's map is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SparseError {
    /// Parts overlap, run backwards or lie outside the file.
    #[error("the parts of the sparse file contradict each other")]
    Contradiction,
    /// The map is not written as its format demands.
    #[error("the map of the sparse file is malformed")]
    Malformed,
    /// More parts than any real file has.
    #[error("the sparse file has more than {PARTS_MAX} parts")]
    TooManyParts,
}

/// The stored parts of one file, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Map {
    pub(super) fn push(&mut self, offset: u64, length: u64) -> Result<(), SparseError> {
        if self.parts.len() >= PARTS_MAX {
            return Err(SparseError::TooManyParts);
        }
        self.parts.push(Part { offset, length });
        Ok(())
    }

    /// Checks that the parts ascend, end within `size` and are exactly the `stored` bytes.
    pub(super) fn check(&self, size: u64, stored: u64) -> Result<(), SparseError> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for part in &self.parts {
            let part_end = part.offset.checked_add(part.length);
            let part_end = part_end.ok_or(SparseError::Contradiction)?;
            if part.offset < end || part_end > size {
                return Err(SparseError::Contradiction);
            }
            end = part_end;
            sum += part.length; // cannot overflow: the parts are disjoint below `size`
        }
        if sum == stored { Ok(()) } else { Err(SparseError::Contradiction) }
    }

    /// Adds the entries of a GNU block: `count` pairs from `at`, ended by an empty one.
    pub(super) fn extend_gnu(
        &mut self,
        block: &Block,
        at: usize,
        count: usize,
    ) -> Result<(), SparseError> {
        for pair in block[at..at + count * 24].chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            let number = |bytes| {
                let value = header::parse_number(bytes, "sparse map");
                value.ok().and_then(|value| u64::try_from(value).ok()).ok_or(SparseError::Malformed)
            };
            self.push(number(&pair[..12])?, number(&pair[12..])?)?;
        }
        Ok(())
    }

    /// Reads formats 0.0 and 0.1 from PAX records; `None` if they hold neither.
    pub(super) fn from_records(records: &Records) -> Result<Option<Self>, SparseError> {
        if let Some(list) = records.get("GNU.sparse.map") {
            return Self::from_list(list).map(Some);
        }
        let pairs = records.sparse_pairs();
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut map = Self::default();
        for pair in pairs.chunks(2) {
            let [(SparseKey::Offset, offset), (SparseKey::Bytes, length)] = pair else {
                return Err(SparseError::Malformed);
            };
            map.push(*offset, *length)?;
        }
        Ok(Some(map))
    }

    fn from_list(list: &[u8]) -> Result<Self, SparseError> {
        let mut numbers = list.split(|byte| *byte == b',').map(whole);
        let mut map = Self::default();
        while let Some(offset) = numbers.next() {
            let length = numbers.next().ok_or(SparseError::Malformed)?;
            map.push(offset?, length?)?;
        }
        Ok(map)
    }
}

/// Reads the map of format 1.0, which comes in whole blocks at the head of the content.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    text: Vec<u8>,
    map: Map,
    expected: Option<u64>,
    offset: Option<u64>,
}

impl MapReader {
    /// Takes the next block; returns the map once it is whole.
    pub(super) fn take(&mut self, block: &Block) -> Result<Option<Map>, SparseError> {
        self.text.extend_from_slice(block);
        let mut used = 0;
        while let Some(end) = self.text[used..].iter().position(|byte| *byte == b'\n') {
            let value = whole(&self.text[used..used + end])?;
            used += end + 1;
            if self.number(value)? {
                return Ok(Some(std::mem::take(&mut self.map)));
            }
        }
        self.text.drain(..used);
        // A number has at most 20 digits: a longer rest is no map.
        if self.text.len() > BLOCK_BYTES { Err(SparseError::Malformed) } else { Ok(None) }
    }

    /// Takes one number; returns whether the map is whole.
    fn number(&mut self, value: u64) -> Result<bool, SparseError> {
        match (self.expected, self.offset.take()) {
            (None, _) => self.expected = Some(value),
            (Some(_), None) => self.offset = Some(value),
            (Some(_), Some(offset)) => self.map.push(offset, value)?,
        }
        Ok(self.offset.is_none() && self.expected == Some(self.map.parts.len() as u64))
    }
}

fn whole(bytes: &[u8]) -> Result<u64, SparseError> {
    pax::decimal(bytes, "GNU.sparse.map").map_err(|_| SparseError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(parts: &[(u64, u64)]) -> Map {
        let mut map = Map::default();
        for (offset, length) in parts {
            map.push(*offset, *length).unwrap();
        }
        map
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(map(&[(0, 5), (10, 5)]).check(20, 10), Ok(()));
        assert_eq!(map(&[]).check(20, 0), Ok(()));
        for (parts, size, stored) in [
            (&[(0, 5), (4, 5)][..], 20, 10),
            (&[(10, 5), (0, 5)], 20, 10),
            (&[(0, 5)], 4, 5),
            (&[(0, 5)], 20, 6),
            (&[(u64::MAX, 2)], 20, 2),
        ] {
            let checked = map(parts).check(size, stored);
            assert_eq!(checked, Err(SparseError::Contradiction), "{parts:?}");
        }
    }

    #[test]
    fn lists_come_in_pairs() {
        assert_eq!(Map::from_list(b"0,5,10,5"), Ok(map(&[(0, 5), (10, 5)])));
        assert_eq!(Map::from_list(b"0,5,10"), Err(SparseError::Malformed));
        assert_eq!(Map::from_list(b"0,-5"), Err(SparseError::Malformed));
    }

    #[test]
    fn a_list_may_span_blocks() {
        let mut text = b"60\n".to_vec();
        for i in 0..60 {
            text.extend_from_slice(format!("{}\n1\n", i * 1_000_000).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK_BYTES), 0);
        let mut reader = MapReader::default();
        let maps: Vec<_> = text
            .chunks_exact(BLOCK_BYTES)
            .filter_map(|block| reader.take(block.try_into().unwrap()).unwrap())
            .collect();
        assert_eq!(maps.len(), 1);
        assert_eq!(maps[0].parts.len(), 60);
        assert_eq!(MapReader::default().take(&[b'1'; 512]), Ok(None));
    }
}
