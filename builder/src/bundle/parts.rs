//! Where the files of a layer lie in its archive.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::rc::Rc;

use super::spool::Spool;
use crate::layer::tar::TarError;
use crate::layer::{Archive, EntryPath, Kind, Limits};

const READ_BYTES: usize = 256 << 10;
const BLOCK_BYTES: u64 = 512;

/// One entry: its headers, and what follows them.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) path: EntryPath,
    /// The headers, extended ones too.
    pub(super) head: Range<u64>,
    /// The content, padding included; empty for what is no file.
    pub(super) content: Range<u64>,
    /// BLAKE3 of the content as it lies there.
    pub(super) hash: [u8; 32],
}

/// Lists the entries of an archive; what follows the last one belongs to none.
pub(super) fn parts(spool: &Spool) -> Result<Vec<Part>, TarError> {
    let place = Rc::new(Cell::new(0));
    let buffered = BufReader::with_capacity(READ_BYTES, spool.reader().map_err(TarError::Read)?);
    let counting = Counting { inner: buffered, place: Rc::clone(&place) };
    let mut archive = Archive::new(counting, Limits::default());
    let (mut found, mut end) = (Vec::new(), 0);
    while let Some(entry) = archive.next_entry()? {
        let start = place.get();
        let mut hasher = blake3::Hasher::new();
        if entry.kind == Kind::File {
            let mut content = archive.content();
            hasher.update_reader(&mut content).map_err(TarError::Read)?;
        }
        let stored = (place.get() - start).next_multiple_of(BLOCK_BYTES);
        let is_whole = place.get() - start == entry.size;
        // Of a sparse file, what lies there is not what was hashed: no other has this hash.
        let hash = match is_whole {
            true => *hasher.finalize().as_bytes(),
            false => *blake3::hash(&start.to_le_bytes()).as_bytes(),
        };
        let content = start..(start + stored).min(spool.size());
        found.push(Part { path: entry.path, head: end..start, content: content.clone(), hash });
        end = content.end;
    }
    Ok(found)
}

/// Entries to be found by what they are.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    by_hash: HashMap<[u8; 32], (u32, u32)>,
    by_path: HashMap<EntryPath, (u32, u32)>,
    by_name: HashMap<Vec<u8>, (u32, u32)>,
}

impl Lookup {
    /// Adds the entries of a source. What earlier sources have is kept.
    pub(super) fn add(&mut self, source: u32, parts: &[Part]) {
        for (index, part) in parts.iter().enumerate() {
            let Ok(index) = u32::try_from(index) else { return };
            let place = (source, index);
            self.by_path.entry(part.path.clone()).or_insert(place);
            if part.content.is_empty() {
                continue;
            }
            self.by_hash.entry(part.hash).or_insert(place);
            if let Some(name) = part.path.name() {
                self.by_name.entry(name.to_vec()).or_insert(place);
            }
        }
    }

    /// Returns an entry with the same content; the one of the same path before any other.
    pub(super) fn same(&self, part: &Part, all: &[&[Part]]) -> Option<(u32, u32)> {
        let at_path = self.by_path.get(&part.path).copied();
        let same = |place: &(u32, u32)| {
            all[place.0 as usize][place.1 as usize].hash == part.hash
                && !all[place.0 as usize][place.1 as usize].content.is_empty()
        };
        at_path.filter(same).or_else(|| self.by_hash.get(&part.hash).copied())
    }

    /// Returns the entry that this one probably was made from.
    pub(super) fn older(&self, part: &Part) -> Option<(u32, u32)> {
        let named = || self.by_name.get(part.path.name()?).copied();
        self.by_path.get(&part.path).copied().or_else(named)
    }
}

/// Counts what is read.
struct Counting<R> {
    inner: R,
    place: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.place.set(self.place.get() + read as u64);
        Ok(read)
    }
}
