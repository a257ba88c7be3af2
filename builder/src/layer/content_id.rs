//! The content ID: what a layer says, whatever its times and its archive's bytes are.
//!
//! BLAKE3 over the entries in the order of a sorted walk. Each field is either of fixed size or has
//! its length before it, so no two sequences of entries give the same bytes:
//!
//! ```text
//! "boatyard layer content 1\n"
//! per entry:  type (1 byte)  path (length, bytes)
//!             unless a whiteout:
//!             mode uid gid (u32)  time (1 byte: 0 = not part; else 1, then i64 seconds)
//!             link target or its path (length, bytes)  major minor (u32)
//!             size (u64)  BLAKE3 of the content (32 bytes, zeros if no file)
//!             number of extended attributes (u64), each: name, value (length, bytes)
//! ```
//!
//! Integers are little-endian, lengths u64. A hard link names the first path of its group. The golden
//! vectors below fix the format: where one changes, every cache in the world is lost.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::entry::{Entry, EntryPath, Kind, is_written_xattr};
use super::times::ContentTimes;

const FORMAT: &[u8] = b"boatyard layer content 1\n";

/// Identifies what a layer changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId([u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a content ID is 64 lower-case hexadecimal digits")]
pub struct ContentIdError;

impl ContentId {
    /// Returns the identity of something else than a layer, which was hashed for it.
    pub(crate) fn from_hasher(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the hash itself, to feed into a key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, ContentIdError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ContentIdError);
        }
        let hash = blake3::Hash::from_hex(text).map_err(|_| ContentIdError)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Computes a content ID, entry by entry.
#[derive(Debug)]
pub(crate) struct ContentHasher {
    hasher: blake3::Hasher,
    times: ContentTimes,
    entries: u64,
}

impl ContentHasher {
    pub(crate) fn new(times: ContentTimes) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        Self { hasher, times, entries: 0 }
    }

    /// Returns the time that counts of the entry that comes next.
    pub(crate) fn chosen(&self, entry: &Entry) -> Option<i64> {
        self.times.of(self.entries, entry.mtime.seconds)
    }

    /// Returns which times count.
    pub(crate) fn into_times(self) -> ContentTimes {
        self.times
    }

    /// Adds an entry. `content` is the BLAKE3 of a file's bytes, zeros for everything else.
    pub(crate) fn add(&mut self, entry: &Entry, content: &[u8; 32]) {
        let chosen = self.chosen(entry);
        self.add_chosen(entry, content, chosen);
    }

    /// The same for an entry whose time that counts is known.
    pub(crate) fn add_chosen(&mut self, entry: &Entry, content: &[u8; 32], chosen: Option<i64>) {
        self.entries += 1;
        self.hasher.update(&[type_byte(&entry.kind)]);
        self.bytes(entry.path.as_bytes());
        if matches!(entry.kind, Kind::Whiteout | Kind::OpaqueWhiteout) {
            return;
        }
        for number in [entry.mode, entry.uid, entry.gid] {
            self.hasher.update(&number.to_le_bytes());
        }
        match chosen {
            Some(seconds) => self.hasher.update(&[1]).update(&seconds.to_le_bytes()),
            None => self.hasher.update(&[0]),
        };
        self.bytes(link(&entry.kind));
        let (major, minor) = device(&entry.kind);
        self.hasher.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
        self.hasher.update(&entry.size.to_le_bytes()).update(content);
        let xattrs = || entry.xattrs.iter().filter(|(name, _)| is_written_xattr(name));
        self.hasher.update(&(xattrs().count() as u64).to_le_bytes());
        for (name, value) in xattrs() {
            self.bytes(name);
            self.bytes(value);
        }
    }

    pub(crate) fn finish(&self) -> ContentId {
        ContentId(*self.hasher.finalize().as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
}

fn type_byte(kind: &Kind) -> u8 {
    match kind {
        Kind::File => b'f',
        Kind::Directory => b'd',
        Kind::Symlink { .. } => b'l',
        Kind::HardLink { .. } => b'h',
        Kind::CharDevice { .. } => b'c',
        Kind::BlockDevice { .. } => b'b',
        Kind::Fifo => b'p',
        Kind::Whiteout => b'w',
        Kind::OpaqueWhiteout => b'o',
    }
}

fn link(kind: &Kind) -> &[u8] {
    match kind {
        Kind::Symlink { target } => target,
        Kind::HardLink { target } => EntryPath::as_bytes(target),
        _ => &[],
    }
}

fn device(kind: &Kind) -> (u32, u32) {
    match kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => (*major, *minor),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::testing::path;
    use crate::layer::{LayerWriter, Mtime, Restamp, WriteOptions};

    fn entry(name: &str, kind: Kind) -> Entry {
        let mut entry = Entry::new(path(name), kind, 0o644);
        entry.mtime = Mtime::from_seconds(1_700_000_000);
        entry
    }

    fn file(name: &str, content: &str) -> (Entry, String) {
        let entry = Entry { size: content.len() as u64, ..entry(name, Kind::File) };
        (entry, content.to_owned())
    }

    fn plain(name: &str, kind: Kind) -> (Entry, String) {
        (entry(name, kind), String::new())
    }

    fn id(entries: &[(Entry, String)], times: ContentTimes) -> String {
        let options = WriteOptions { times, restamp: Restamp::AS_MADE };
        let mut writer = LayerWriter::new(std::io::sink(), options);
        for (entry, content) in entries {
            writer.append(entry.clone(), &mut content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().1.content_id.to_string()
    }

    fn everything() -> Vec<(Entry, String)> {
        let mut file = file("d/file", "content\n");
        (file.0.mode, file.0.uid, file.0.gid) = (0o4755, 1000, 100);
        file.0.xattrs.insert(b"user.x".to_vec(), b"1".to_vec());
        file.0.xattrs.insert(b"trusted.x".to_vec(), b"not part of it".to_vec());
        vec![
            plain("d", Kind::Directory),
            plain("d/gone", Kind::Whiteout),
            plain("d/b", Kind::BlockDevice { major: 8, minor: 1 }),
            plain("d/c", Kind::CharDevice { major: 1, minor: 3 }),
            file,
            plain("d/h", Kind::HardLink { target: path("d/file") }),
            plain("d/p", Kind::Fifo),
            plain("d/s", Kind::Symlink { target: b"file".to_vec() }),
        ]
    }

    /// These are the format. A change here makes every record of every cache miss.
    #[test]
    fn golden_vectors() {
        let ids = [
            id(&[], ContentTimes::All),
            id(&[file("a", "")], ContentTimes::All),
            id(&[file("a", "")], ContentTimes::None),
            id(&[file("a", "x")], ContentTimes::All),
            id(&[plain("", Kind::OpaqueWhiteout)], ContentTimes::All),
            id(&everything(), ContentTimes::All),
        ];
        let expected = [
            "6f5e495060c5ff880f0d6fdf10e95c4a80e1b190591dba3633cf8712b7c083a6",
            "b072e1b768d6ee943f7268656535d913b4c7fca5b3174dac4ad8816bb24aa0fd",
            "db862d9996cee259dc4661183e060a7ded118dfcac5098a5061fd06c8166e4a0",
            "f42fa18a7fa86997141b3d376a9dd7efef5f87ab3127e8591ae6f026fd86112b",
            "1db9516c8afb2a3cda1bc66dff9e3449f751f1cc15071cd1cfea70f8aeb6d9c5",
            "f98cf2341398b375e50b8f5786f0af289fa3d16268e86d146e701db16ac9a6b2",
        ];
        assert_eq!(ids.as_slice(), expected);
    }

    #[test]
    fn every_part_counts() {
        let base = id(&everything(), ContentTimes::All);
        let changes: [fn(&mut Entry); 6] = [
            |entry| entry.mode = 0o755,
            |entry| entry.uid = 1,
            |entry| entry.gid = 1,
            |entry| entry.mtime.seconds += 1,
            |entry| drop(entry.xattrs.insert(b"user.x".to_vec(), b"2".to_vec())),
            |entry| entry.xattrs.clear(),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut entries = everything();
            change(&mut entries[4].0);
            assert_ne!(id(&entries, ContentTimes::All), base, "{i}");
        }
        let mut entries = everything();
        entries[4].1 = "CONTENT\n".to_owned();
        assert_ne!(id(&entries, ContentTimes::All), base);
    }

    #[test]
    fn what_no_layer_holds_does_not_count() {
        let mut entries = everything();
        entries[4].0.xattrs.remove(&b"trusted.x"[..]);
        entries[4].0.mtime.nanoseconds = 5;
        assert_eq!(id(&entries, ContentTimes::All), id(&everything(), ContentTimes::All));
    }

    #[test]
    fn times_within_the_steps_run_do_not_count() {
        let at = |seconds| {
            let mut made = file("a", "");
            made.0.mtime.seconds = seconds;
            id(&[made], ContentTimes::Outside(100..=200))
        };
        assert_eq!(at(100), at(200));
        assert_ne!(at(99), at(100));
        assert_ne!(at(201), at(202));
    }

    #[test]
    fn ids_read_back() {
        let id: ContentId = "ab".repeat(32).parse().unwrap();
        assert_eq!(id.to_string(), "ab".repeat(32));
        for text in ["", "ab", &"AB".repeat(32), &"g".repeat(64)] {
            assert_eq!(text.parse::<ContentId>(), Err(ContentIdError));
        }
    }
}
