//! One generation that is held: its root's files, what they list, and since when it is what it is.
//!
//! ```text
//! generation 1\n
//! modified <time>\n               what clients are told; later than that of the one before
//! root <name> <digest>\n          each file of the root
//! ```
//!
//! That is its note among [`boatyard_content::generations`], which hold the bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_content::generations::SetName;
use boatyard_content::{Root, StoreError};
use boatyard_oci::Digest;
use jiff::Timestamp;

use super::format::{Format, RootFile};
use super::listing::{Child, Listing};

/// The most bytes of a file that lists others.
pub const INDEX_LEN_MAX: usize = 32 << 20;

/// A file of a root, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootBlob {
    /// Its name, below the set's address.
    pub name: String,
    /// Its bytes.
    pub blob: Digest,
}

/// What a root says, before it is a generation: also one that is not complete yet.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The files of the root.
    pub roots: Vec<RootBlob>,
    /// What they list.
    pub listing: Arc<Listing>,
    /// When the upstream says that it last changed.
    pub modified: Option<Timestamp>,
}

/// What a child lists, by the paths below the set's address.
pub type Further = Arc<BTreeMap<Box<str>, Child>>;

/// A generation.
#[derive(Debug)]
pub struct Generation {
    /// Its number; the later, the larger.
    pub number: u64,
    /// The files of the root.
    pub roots: Vec<RootBlob>,
    /// What they list.
    pub listing: Arc<Listing>,
    /// The time that clients are told; no two generations of a set have the same.
    pub modified: Timestamp,
    /// What children list, by the digests of these children.
    further: Mutex<HashMap<Digest, Further>>,
}

impl Generation {
    /// Makes a generation of a complete candidate.
    pub fn new(number: u64, candidate: &Candidate, modified: Timestamp) -> Generation {
        let Candidate { roots, listing, .. } = candidate.clone();
        Generation { number, roots, listing, modified, further: Mutex::default() }
    }

    /// Returns the note of a generation that is about to be published.
    pub fn note(roots: &[RootBlob], modified: Timestamp) -> Vec<u8> {
        let mut note = format!("generation 1\nmodified {modified}\n");
        for root in roots {
            note.push_str(&format!("root {} {}\n", root.name, root.blob));
        }
        note.into_bytes()
    }

    /// Loads a generation. `None` where another version of us wrote it, or a part is missing.
    /// Blocking.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn load(
        root: &Root,
        set: &SetName,
        number: u64,
        format: &dyn Format,
    ) -> Result<Option<Generation>, StoreError> {
        let Some(note) = root.generations().note(set, number)? else { return Ok(None) };
        let Some((modified, roots)) = parse(&note) else { return Ok(None) };
        let Some(files) = read_roots(root, &roots)? else { return Ok(None) };
        let Ok(listing) = format.read(&borrowed(&roots, &files)) else { return Ok(None) };
        let candidate = Candidate { roots, listing: Arc::new(listing), modified: None };
        Ok(Some(Generation::new(number, &candidate, modified)))
    }

    /// Returns a file of the root.
    pub fn root(&self, name: &str) -> Option<&RootBlob> {
        self.roots.iter().find(|root| root.name == name)
    }

    /// Returns the child at a path: one that the root lists, or that a child lists which is held.
    /// Blocking where it is not the root.
    pub fn child(&self, path: &str, format: &dyn Format, root: &Root) -> Option<Child> {
        if let Some(child) = self.listing.children.get(path) {
            return Some(child.clone());
        }
        let index = format.index_of(path)?;
        self.further(&index, format, root)?.get(path).cloned()
    }

    /// Returns the child below a directory that has this digest, with its path. Blocking.
    pub fn named(
        &self,
        (directory, algorithm, hex): (&str, &str, &str),
        format: &dyn Format,
        root: &Root,
    ) -> Option<(Box<str>, Child)> {
        if let Some((path, child)) = self.listing.named(directory, algorithm, hex) {
            return Some((path.into(), child.clone()));
        }
        let index = format.index_of(&format!("{directory}x"))?;
        let further = self.further(&index, format, root)?;
        let mut named = further.iter().filter(|(_, child)| child.is_named(algorithm, hex));
        named.next().map(|(path, child)| (path.clone(), child.clone()))
    }

    /// Returns what a child lists, where it is held. Blocking.
    pub fn further(&self, index: &str, format: &dyn Format, root: &Root) -> Option<Further> {
        let digest = &self.listing.children.get(index)?.digest;
        let known = |further: &HashMap<_, Arc<_>>| further.get(digest).map(Arc::clone);
        if let Some(known) = known(&self.further.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Some(known);
        }
        let blob = root.store().open_blocking(digest).ok()??;
        let bytes = boatyard_content::Blob::File(blob).into_bytes(INDEX_LEN_MAX).ok()?;
        let read = Arc::new(format.read_index(index, &bytes));
        let mut further = self.further.lock().unwrap_or_else(PoisonError::into_inner);
        further.insert(digest.clone(), Arc::clone(&read));
        Some(read)
    }
}

/// Reads the files of a root; `None` where one is not there or too large. Blocking.
///
/// # Errors
/// Where one cannot be read.
pub fn read_roots(
    root: &Root,
    roots: &[RootBlob],
) -> Result<Option<Vec<bytes::Bytes>>, StoreError> {
    let mut files = Vec::new();
    for file in roots {
        let Some(blob) = root.store().open_blocking(&file.blob)? else { return Ok(None) };
        if blob.size() > INDEX_LEN_MAX as u64 {
            return Ok(None);
        }
        files.push(boatyard_content::Blob::File(blob).into_bytes(INDEX_LEN_MAX)?);
    }
    Ok(Some(files))
}

/// Returns the files of a root as a format reads them.
pub fn borrowed<'a>(roots: &'a [RootBlob], files: &'a [bytes::Bytes]) -> Vec<RootFile<'a>> {
    let file =
        |(root, bytes): (&'a RootBlob, &'a bytes::Bytes)| RootFile { name: &root.name, bytes };
    roots.iter().zip(files).map(file).collect()
}

fn parse(note: &[u8]) -> Option<(Timestamp, Vec<RootBlob>)> {
    let mut lines = std::str::from_utf8(note).ok()?.strip_suffix('\n')?.lines();
    if lines.next()? != "generation 1" {
        return None;
    }
    let modified = lines.next()?.strip_prefix("modified ")?.parse().ok()?;
    let roots = lines.map(|line| {
        let (name, blob) = line.strip_prefix("root ")?.rsplit_once(' ')?;
        Some(RootBlob { name: name.to_owned(), blob: blob.parse().ok()? })
    });
    let roots: Vec<RootBlob> = roots.collect::<Option<_>>()?;
    (!roots.is_empty()).then_some((modified, roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_say_what_was_said() {
        let modified = Timestamp::from_second(1_795_289_400).unwrap();
        let root =
            |name: &str| RootBlob { name: name.to_owned(), blob: Digest::sha256(name.as_bytes()) };
        let roots = vec![root("Release"), root("Release.gpg")];
        let note = Generation::note(&roots, modified);
        assert_eq!(parse(&note), Some((modified, roots)));
        for bad in ["", "generation 2\n", "generation 1\nmodified now\n", "generation 1\nmodified"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse(&note[..note.len() - 1]), None);
    }
}
