//! Entries of the cache proxy: which URL's bytes are which blob.
//!
//! ```text
//! ROOT/entries/ab/<key>/vary        the request's headers that choose between variants, a line each;
//!                                   absent where none do
//! ROOT/entries/ab/<key>/<variant>   `blob <digest>`, then a note: what the cache proxy knows of it
//! ROOT/entries/ab/<key>/used        empty; its time says when the entry was last used
//! ```
//!
//! A variant holds its blob. Files are created whole, synced and renamed: without any index, and
//! with the upstreams gone, they are the cache. One that cannot be read holds nothing and hinders
//! nobody: what it said can be fetched again.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boatyard_oci::Digest;
use fs_err as fs;

use crate::local::layout::shard_name;
use crate::local::{Lock, Shared, Staged, changed, entries, read_if_there, touch};
use crate::store::{Doing as _, StoreError};

/// How exact the time of the last use is: a use within this time of the last one is not written.
const GRAIN: Duration = Duration::from_secs(3600);
/// Nobody takes longer to write the small files of an entry.
const WRITING: Duration = Duration::from_secs(60);
const VARY: &str = "vary";
const USED: &str = "used";

/// The entries of a root.
#[derive(Clone, Debug)]
pub struct Entries {
    root: Arc<Shared>,
}

/// Names an entry, or one variant of it.
///
/// - 64 lower-case hex digits: the SHA-256 of a text that is never shown to a file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey(Arc<str>);

impl EntryKey {
    /// Returns the key of a text, such as a normalised URL.
    pub fn of(text: &str) -> EntryKey {
        EntryKey(Digest::sha256(text.as_bytes()).hex().into())
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that names no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the key of an entry: that has 64 hex digits")]
pub struct EntryKeyError;

impl FromStr for EntryKey {
    type Err = EntryKeyError;

    fn from_str(text: &str) -> Result<Self, EntryKeyError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(EntryKey(text.into()));
        }
        Err(EntryKeyError)
    }
}

/// One variant of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub key: EntryKey,
    /// Its bytes.
    pub blob: Digest,
    /// What is known of it; the cache proxy's to read.
    pub note: Vec<u8>,
}

/// What is kept under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The names of the headers that choose between the variants.
    pub vary: Vec<String>,
    /// The variants, in no order.
    pub variants: Vec<Variant>,
}

impl Entries {
    pub(crate) fn new(root: Arc<Shared>) -> Entries {
        Entries { root }
    }

    /// Keeps a variant, and so holds its blob. It takes the place of one with the same name; one
    /// whose headers that choose are others than `vary` loses all other variants. `false` where the
    /// blob is not there: then nothing is kept.
    ///
    /// # Errors
    /// Where the files could not be written.
    pub fn put(
        &self,
        key: &EntryKey,
        vary: &[String],
        variant: &Variant,
    ) -> Result<bool, StoreError> {
        let layout = &self.root.layout;
        let _shared = Lock::shared(&layout.shard_lock(shard_name(&variant.blob)))?;
        if touch(&layout.blob(&variant.blob))?.is_none() {
            return Ok(false);
        }
        let directory = self.directory(key);
        let text = vary.iter().map(|name| format!("{name}\n")).collect::<String>();
        let known = read_if_there(&directory.join(VARY))?.unwrap_or_default();
        let mut staged = Staged::new(&*self.root.disk);
        if known != text.as_bytes() {
            self.remove(key)?;
            if !text.is_empty() {
                staged.put(directory.join(VARY), text.as_bytes())?;
            }
        }
        let mut bytes = format!("blob {}\n", variant.blob).into_bytes();
        bytes.extend_from_slice(&variant.note);
        staged.put(directory.join(variant.key.as_str()), &bytes)?;
        staged.publish()?;
        touch(&layout.blob(&variant.blob))?;
        Ok(true)
    }

    /// Returns what is kept under a key; nothing where there is no such entry.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn get(&self, key: &EntryKey) -> Result<Kept, StoreError> {
        let directory = self.directory(key);
        let vary = read_if_there(&directory.join(VARY))?.unwrap_or_default();
        let vary = String::from_utf8_lossy(&vary).lines().map(str::to_owned).collect();
        let mut variants = Vec::new();
        for name in names(&directory) {
            let path = directory.join(name.as_str());
            // Another process may just have removed it.
            let Some(bytes) = read_if_there(&path)? else { continue };
            variants.extend(parse(name, &bytes));
        }
        Ok(Kept { vary, variants })
    }

    /// Gives up one variant of an entry; one that is not there is fine. The blob is the
    /// collector's business.
    ///
    /// # Errors
    /// Where the file could not be deleted.
    pub fn remove_variant(&self, key: &EntryKey, variant: &EntryKey) -> Result<(), StoreError> {
        let path = self.directory(key).join(variant.as_str());
        self.root.disk.remove_file(&path).doing("give up an entry").map(drop)
    }

    /// Gives up an entry; one that is not there is fine.
    ///
    /// # Errors
    /// Where a file could not be deleted.
    pub fn remove(&self, key: &EntryKey) -> Result<(), StoreError> {
        let directory = self.directory(key);
        for entry in entries(&directory) {
            let path = entry?.path();
            // Without it, what is left would look as if nothing chose between it.
            if !path.ends_with(VARY) {
                self.root.disk.remove_file(&path).doing("give up an entry")?;
            }
        }
        self.root.disk.remove_file(&directory.join(VARY)).doing("give up an entry")?;
        // Somebody may be putting another variant there: then it stays.
        self.root.disk.remove_directory(&directory).doing("give up an entry").map(drop)
    }

    /// Returns the keys of all entries, in no order.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn keys(&self) -> Result<Vec<EntryKey>, StoreError> {
        let mut keys = Vec::new();
        for shard in entries(&self.root.layout.entries()) {
            for entry in entries(&shard?.path()) {
                keys.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
            }
        }
        Ok(keys)
    }

    /// Returns what changes whenever a variant of an entry is put or given up: who keeps what
    /// [`Entries::get`] said asks before that is used again. One system call.
    pub fn stamp(&self, key: &EntryKey) -> Option<SystemTime> {
        fs::metadata(self.directory(key)).ok()?.modified().ok()
    }

    /// Says whether somebody writes an entry just now: then it may have no variant yet. What a killed
    /// process left behind does not count for long.
    pub fn is_being_written(&self, key: &EntryKey) -> bool {
        let is_new = |path: &std::path::Path| {
            let at = changed(path).ok().flatten();
            at.is_some_and(|at| at.elapsed().is_ok_and(|since| since < WRITING))
        };
        entries(&self.directory(key)).flatten().any(|entry| {
            entry.file_name().as_encoded_bytes().starts_with(b".new-") && is_new(&entry.path())
        })
    }

    /// Returns the blobs that an entry holds, without reading its notes.
    pub fn blobs(&self, key: &EntryKey) -> Vec<Digest> {
        let directory = self.directory(key);
        names(&directory)
            .iter()
            .filter_map(|name| blob_of(&directory.join(name.as_str())))
            .collect()
    }

    /// Notes that an entry was used now.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn mark_used(&self, key: &EntryKey) -> Result<(), StoreError> {
        let now = SystemTime::now();
        let last = self.last_used(key)?;
        if last.is_some_and(|last| now.duration_since(last).is_ok_and(|since| since < GRAIN)) {
            return Ok(());
        }
        let path = self.directory(key).join(USED);
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
        match file {
            Ok(file) => file.into_file().set_modified(now).doing("note a use"),
            // It was given up meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).doing("note a use"),
        }
    }

    /// Returns when an entry was last used, give or take an hour; `None` where nobody noted it,
    /// which counts as now.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn last_used(&self, key: &EntryKey) -> Result<Option<SystemTime>, StoreError> {
        match fs::metadata(self.directory(key).join(USED)) {
            Ok(metadata) => Ok(metadata.modified().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("look for a use"),
        }
    }

    fn directory(&self, key: &EntryKey) -> PathBuf {
        self.root.layout.entries().join(&key.as_str()[..2]).join(key.as_str())
    }
}

/// Returns the names of the variants in an entry's directory.
fn names(directory: &std::path::Path) -> Vec<EntryKey> {
    entries(directory).filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn parse(key: EntryKey, bytes: &[u8]) -> Option<Variant> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    let blob = line.strip_prefix("blob ")?.parse().ok()?;
    Some(Variant { key, blob, note: bytes[end + 1..].to_vec() })
}

/// Reads the first line of a variant only: notes can be long, and there are many.
fn blob_of(path: &std::path::Path) -> Option<Digest> {
    use std::io::Read as _;
    let mut line = Vec::with_capacity(256);
    fs::File::open(path).ok()?.take(256).read_to_end(&mut line).ok()?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    std::str::from_utf8(&line[..end]).ok()?.strip_prefix("blob ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gc::{GcOptions, collect};
    use crate::local::{Root, RootOptions};
    use crate::testing;

    fn put(root: &Root, bytes: &[u8]) -> Digest {
        testing::put(root, &root.lease().unwrap(), bytes)
    }

    #[test]
    fn entries_hold_their_blobs_and_a_broken_one_hinders_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let entries = root.entries();
        let key = EntryKey::of("http://deb.example/a.deb");
        let variant = |name: &str, blob: &Digest| Variant {
            key: EntryKey::of(name),
            blob: blob.clone(),
            note: b"status 200\n\xff".to_vec(),
        };
        let (one, two, loose) = (put(&root, b"one"), put(&root, b"two"), put(&root, b"loose"));
        assert!(!entries.put(&key, &[], &variant("", &Digest::sha256(b"absent"))).unwrap());
        assert!(entries.put(&key, &["accept".to_owned()], &variant("a", &one)).unwrap());
        assert!(entries.put(&key, &["accept".to_owned()], &variant("b", &two)).unwrap());
        let kept = entries.get(&key).unwrap();
        assert_eq!((kept.vary.as_slice(), kept.variants.len()), (&["accept".to_owned()][..], 2));
        assert!(kept.variants.contains(&variant("b", &two)));
        assert_eq!(entries.get(&EntryKey::of("x")).unwrap(), Kept::default());

        entries.mark_used(&key).unwrap();
        assert!(entries.last_used(&key).unwrap().is_some());
        assert!(!entries.is_being_written(&key));
        let writing = entries.directory(&key).join(".new-variant");
        fs::write(&writing, "blob").unwrap();
        assert!(entries.is_being_written(&key));
        fs::remove_file(writing).unwrap();
        let broken = entries.directory(&key).join(EntryKey::of("broken").as_str());
        fs::write(broken, "blo").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        let freed = collect(&root, &options).unwrap().freed;
        assert_eq!(freed.iter().map(|blob| &blob.digest).collect::<Vec<_>>(), [&loose]);

        // Another set of headers that choose: the variants before mean nothing any more.
        assert!(entries.put(&key, &[], &variant("", &one)).unwrap());
        assert_eq!(entries.get(&key).unwrap().variants, [variant("", &one)]);
        entries.remove(&key).unwrap();
        entries.remove(&key).unwrap();
        assert_eq!(entries.keys().unwrap(), []);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(collect(&root, &options).unwrap().freed.len(), 2);
    }
}
