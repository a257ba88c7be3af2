//! Generations of index sets: what the cache proxy holds of an archive, whole sets only.
//!
//! ```text
//! ROOT/generations/<set>/newest               the number of the newest that was served
//! ROOT/generations/<set>/<number>/note        what the cache proxy knows of it
//! ROOT/generations/<set>/<number>/<algorithm>-<hex>   empty: its name holds the blob
//! ```
//!
//! A set is named for its address at the upstream. Numbers only grow, and `newest` is written last:
//! who finds it finds all that it needs, also after a power cut. The other files beside `newest` are
//! the cache proxy's own.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use boatyard_oci::{Algorithm, Digest};

use crate::local::layout::{escape, shard_name};
use crate::local::{Lock, Shared, Staged, entries, read_if_there, touch};
use crate::store::{Doing as _, StoreError};

const NEWEST: &str = "newest";
const NOTE: &str = "note";
/// A longer name becomes its digest: a file name has 255 bytes at most.
const NAME_LEN_MAX: usize = 200;

/// Names an index set: its address, as one file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(Box<str>);

impl SetName {
    /// Returns the name of the set at an address, such as a URL.
    pub fn of(address: &str) -> SetName {
        let name = escape(address);
        if name.len() <= NAME_LEN_MAX {
            return SetName(name.into());
        }
        SetName(Digest::sha256(address.as_bytes()).hex().into())
    }

    /// Returns the file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What came of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is the newest now.
    Newest(u64),
    /// Somebody else published since: look at that one first.
    Behind,
    /// A blob that it needs is not there.
    Absent,
}

/// The generations of a root.
#[derive(Clone, Debug)]
pub struct Generations {
    root: Arc<Shared>,
}

impl Generations {
    pub(crate) fn new(root: Arc<Shared>) -> Generations {
        Generations { root }
    }

    /// Returns the directory of a set.
    pub fn directory(&self, set: &SetName) -> PathBuf {
        self.root.layout.generations().join(set.as_str())
    }

    /// Returns the number of the newest generation that was served.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn newest(&self, set: &SetName) -> Result<Option<u64>, StoreError> {
        let bytes = read_if_there(&self.directory(set).join(NEWEST))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.trim_end().parse().ok()))
    }

    /// Returns the numbers of the generations that are held, ascending.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn numbers(&self, set: &SetName) -> Result<Vec<u64>, StoreError> {
        let mut numbers = Vec::new();
        for entry in entries(&self.directory(set)) {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Returns what is known of a generation; `None` where there is no such one.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn note(&self, set: &SetName, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        read_if_there(&self.generation(set, number).join(NOTE))
    }

    /// Makes a generation the newest of its set, unless the newest is another than `after`. It
    /// holds `blobs` from then on. Durable when it returns.
    ///
    /// # Errors
    /// Where a file could not be written.
    pub fn publish(
        &self,
        set: &SetName,
        after: Option<u64>,
        note: &[u8],
        blobs: &[Digest],
    ) -> Result<Published, StoreError> {
        let _alone = Lock::exclusive(&self.root.layout.generation_lock(set.as_str()))?;
        if self.newest(set)? != after {
            return Ok(Published::Behind);
        }
        let last = self.numbers(set)?.last().copied().max(after);
        let number = last.map_or(1, |last| last.saturating_add(1));
        let directory = self.generation(set, number);
        for blob in blobs {
            if !self.hold(set, number, blob)? {
                self.remove(set, number)?;
                return Ok(Published::Absent);
            }
        }
        let mut staged = Staged::new(&*self.root.disk);
        staged.put(directory.join(NOTE), note)?;
        staged.publish()?;
        let mut staged = Staged::new(&*self.root.disk);
        staged.put(self.directory(set).join(NEWEST), format!("{number}\n").as_bytes())?;
        staged.publish()?;
        Ok(Published::Newest(number))
    }

    /// Says that a generation needs a blob, and so holds it. `false` where it is not there.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn hold(&self, set: &SetName, number: u64, blob: &Digest) -> Result<bool, StoreError> {
        let layout = &self.root.layout;
        let _shared = Lock::shared(&layout.shard_lock(shard_name(blob)))?;
        if touch(&layout.blob(blob))?.is_none() {
            return Ok(false);
        }
        let name = format!("{}-{}", blob.algorithm(), blob.hex());
        let path = self.generation(set, number).join(name);
        if !path.try_exists().doing("look for a generation's blob")? {
            let mut staged = Staged::new(&*self.root.disk);
            staged.put(path, b"")?;
            staged.publish()?;
            touch(&layout.blob(blob))?;
        }
        Ok(true)
    }

    /// Returns the blobs that a generation holds.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn blobs(&self, set: &SetName, number: u64) -> Result<HashSet<Digest>, StoreError> {
        let mut blobs = HashSet::new();
        for entry in entries(&self.generation(set, number)) {
            blobs.extend(entry?.file_name().to_str().and_then(blob));
        }
        Ok(blobs)
    }

    /// Gives a generation up; one that is not there is fine. Its blobs are the collector's business.
    ///
    /// # Errors
    /// Where a file could not be deleted.
    pub fn remove(&self, set: &SetName, number: u64) -> Result<(), StoreError> {
        let directory = self.generation(set, number);
        self.root.disk.remove_file(&directory.join(NOTE)).doing("give up a generation")?;
        for entry in entries(&directory) {
            let path = entry?.path();
            self.root.disk.remove_file(&path).doing("give up a generation")?;
        }
        self.root.disk.remove_directory(&directory).doing("give up a generation")
    }

    /// Returns all blobs that generations hold.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn held(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut held = HashSet::new();
        self.each(&mut |_, blob| {
            held.insert(blob.clone());
        })?;
        Ok(held)
    }

    /// Visits all blobs that generations hold, with the directory of the set.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub(crate) fn each(&self, visit: &mut dyn FnMut(&str, &Digest)) -> Result<(), StoreError> {
        for set in entries(&self.root.layout.generations()) {
            let set = set?;
            let set_name = set.file_name().to_string_lossy().into_owned();
            for number in entries(&set.path()) {
                let number = number?;
                if number.file_name().to_str().is_some_and(|name| name.parse::<u64>().is_ok()) {
                    for name in entries(&number.path()) {
                        if let Some(blob) = name?.file_name().to_str().and_then(blob) {
                            visit(&set_name, &blob);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn generation(&self, set: &SetName, number: u64) -> PathBuf {
        self.directory(set).join(number.to_string())
    }
}

/// Returns the blob that a file of a generation holds by its name.
pub(crate) fn blob(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::from_parts(algorithm.parse::<Algorithm>().ok()?, hex).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gc::{GcOptions, collect};
    use crate::local::{Root, RootOptions};
    use crate::testing;

    fn put(root: &Root, bytes: &[u8]) -> Digest {
        testing::put(root, &root.lease().unwrap(), bytes)
    }

    #[test]
    fn generations_hold_their_blobs_and_only_grow() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let generations = root.generations();
        let set = SetName::of("http://deb.example/debian/dists/stable");
        let [one, two, loose] = ["one", "two", "loose"].map(|text| put(&root, text.as_bytes()));
        assert_eq!(generations.newest(&set).unwrap(), None);
        let absent = Digest::sha256(b"absent");
        let publish = |after, blobs: &[Digest]| generations.publish(&set, after, b"note", blobs);
        assert_eq!(publish(None, &[absent]).unwrap(), Published::Absent);
        assert_eq!(publish(None, std::slice::from_ref(&one)).unwrap(), Published::Newest(1));
        assert_eq!(publish(None, std::slice::from_ref(&two)).unwrap(), Published::Behind);
        assert_eq!(publish(Some(1), std::slice::from_ref(&two)).unwrap(), Published::Newest(2));
        assert!(generations.hold(&set, 2, &one).unwrap());
        assert_eq!(generations.blobs(&set, 2).unwrap().len(), 2);
        assert_eq!(generations.note(&set, 2).unwrap().as_deref(), Some(&b"note"[..]));
        fs_err::write(generations.directory(&set).join("wanted"), "x").unwrap();

        generations.remove(&set, 1).unwrap();
        generations.remove(&set, 1).unwrap();
        assert_eq!(generations.numbers(&set).unwrap(), [2]);
        std::thread::sleep(Duration::from_millis(50));
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        let freed = collect(&root, &options).unwrap().freed;
        assert_eq!(freed.iter().map(|blob| &blob.digest).collect::<Vec<_>>(), [&loose]);

        // Numbers grow even where the newest was forgotten.
        fs_err::remove_file(generations.directory(&set).join(NEWEST)).unwrap();
        assert_eq!(publish(None, &[two]).unwrap(), Published::Newest(3));
    }

    #[test]
    fn long_addresses_are_file_names_too() {
        let long = format!("http://deb.example/{}", "x".repeat(400));
        assert_eq!(SetName::of(&long).as_str().len(), 64);
        assert_ne!(SetName::of(&long), SetName::of(&format!("{long}y")));
    }
}
