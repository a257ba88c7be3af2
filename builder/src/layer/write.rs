//! Writing a layer: the archive, its diff ID and its content ID in one pass over the bytes.
//!
//! The writer holds its callers to what makes a layer canonical: entries come in the order of a
//! sorted walk, each path once, each below a directory that was written before it. So equal layers
//! have equal diff IDs, and no layer that we write depends on the attributes of what lies beneath.

use std::cmp::Ordering;
use std::io::{self, Read, Write};

use boatyard_oci::{Algorithm, DiffId, Hasher};
use thiserror::Error;

use super::content_id::{ContentHasher, ContentId};
use super::entry::{Entry, EntryPath, Kind, Mtime};
use super::hashed::{Content, HashedRead, Keeping};
use super::times::{Chosen, ContentTimes, Notes, Restamp};
use super::{tar, whiteout};
use crate::contents::recorder::{Kept, Recorder};
use crate::contents::{Table, TableError};

/// How times are treated.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Which times are part of the content ID.
    pub times: ContentTimes,
    /// What times become: `SOURCE_DATE_EPOCH` changes them.
    pub restamp: Restamp,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of the archive.
    pub diff_id: DiffId,
    /// The identity of what the archive says.
    pub content_id: ContentId,
    /// Bytes of the archive.
    pub size: u64,
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Whether anything beneath is removed.
    pub whiteouts: bool,
    /// Which of its times were chosen.
    pub chosen: Chosen,
}

/// Why a layer cannot be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The sink or an entry's content failed.
    #[error("cannot write {path} to the layer")]
    Entry {
        /// Which entry.
        path: EntryPath,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The sink failed at the archive's end.
    #[error("cannot end the layer's archive")]
    End(#[source] io::Error),
    /// The name is one that layers use for whiteouts.
    #[error(
        "{0} cannot be part of an image: names that start with `.wh.` mark what a layer removes"
    )]
    Reserved(EntryPath),
    /// Entries did not come sorted, or a path came twice.
    #[error("{0} comes out of order")]
    Order(EntryPath),
    /// No directory was written for an entry.
    #[error("the directory of {0} is not in the layer")]
    NoParent(EntryPath),
}

/// A layer that is being written.
#[derive(Debug)]
pub struct LayerWriter<W> {
    tar: tar::Writer<Hashing<W>>,
    content: ContentHasher,
    restamp: Restamp,
    notes: Notes,
    /// The time of the entry that comes next came along from the layers below.
    inherits: bool,
    last: Option<Entry>,
    directories: Vec<EntryPath>,
    entries: u64,
    whiteouts: bool,
    table: Result<Recorder<'static>, TableError>,
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer.
    pub fn new(sink: W, options: WriteOptions) -> Self {
        let hasher = Hasher::new(Algorithm::Sha256);
        Self {
            tar: tar::Writer::new(Hashing { inner: sink, hasher, bytes: 0 }),
            content: ContentHasher::new(options.times),
            restamp: options.restamp,
            notes: Notes::new(options.restamp),
            inherits: false,
            last: None,
            directories: Vec::new(),
            entries: 0,
            whiteouts: false,
            table: Ok(Recorder::default()),
        }
    }

    /// Writes the next entry and, for a file, its content. Returns the BLAKE3 of the content.
    ///
    /// # Errors
    /// Fails if the sink or the content does, and on an entry that has no place here.
    pub fn append(&mut self, entry: Entry, content: &mut dyn Read) -> Result<[u8; 32], WriteError> {
        self.append_content(entry, &mut HashedRead::new(content))
    }

    /// The same for content that is hashed by whoever reads it.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_content(
        &mut self,
        mut entry: Entry,
        content: &mut dyn Content,
    ) -> Result<[u8; 32], WriteError> {
        self.check(&entry)?;
        let chosen = self.chosen(&entry);
        self.make_canonical(&mut entry);
        let kept = Kept::of(&entry);
        let mut keeping = Keeping::new(content);
        let archived = match kept {
            Some(_) => self.tar.append(&entry, &mut keeping),
            None => self.tar.append(&entry, keeping.inner()),
        };
        archived.map_err(|source| WriteError::Entry { path: entry.path.clone(), source })?;
        let digest = match entry.kind {
            Kind::File => keeping.digest(),
            _ => [0; 32],
        };
        self.content.add_chosen(&entry, &digest, chosen);
        if !is_whiteout(&entry.kind) {
            self.notes.add(self.entries, chosen, entry.mtime.seconds);
            if self.inherits {
                self.notes.inherit(self.entries);
            }
        }
        self.inherits = false;
        if let Ok(table) = &mut self.table {
            match (table.add(&entry, &digest), kept) {
                (Ok(()), Some(kept)) => table.keep(kept, keeping.into_bytes()),
                (Ok(()), None) => {}
                (Err(error), _) => self.table = Err(error),
            }
        }
        self.entries += 1;
        self.whiteouts |= is_whiteout(&entry.kind);
        self.last = Some(entry);
        Ok(digest)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Fails if the sink does.
    pub fn finish(self) -> Result<(W, Written), WriteError> {
        self.finish_with_table().map(|(sink, written, _)| (sink, written))
    }

    /// The same, with the layer's table of contents; `None` where that would be too large.
    ///
    /// # Errors
    /// Fails if the sink does.
    pub fn finish_with_table(self) -> Result<(W, Written, Option<Table>), WriteError> {
        let Hashing { mut inner, hasher, bytes } = self.tar.finish().map_err(WriteError::End)?;
        inner.flush().map_err(WriteError::End)?;
        let written = Written {
            diff_id: DiffId::new(hasher.finish()),
            content_id: self.content.finish(),
            size: bytes,
            entries: self.entries,
            whiteouts: self.whiteouts,
            chosen: self.notes.finish(self.content.into_times()),
        };
        Ok((inner, written, self.table.and_then(Recorder::finish).ok()))
    }

    /// Says that the time of the entry that comes next came along from the layers below.
    pub(crate) fn inherit_next(&mut self) {
        self.inherits = true;
    }

    fn chosen(&self, entry: &Entry) -> Option<i64> {
        self.content.chosen(entry).filter(|_| !self.inherits)
    }

    /// Returns the time that the entry that comes next gets.
    pub(crate) fn stamp(&self, entry: &Entry) -> Mtime {
        let chosen = self.chosen(entry);
        Mtime::from_seconds(self.restamp.of(entry.mtime.seconds, chosen))
    }

    /// Gives every entry the one form that it has in a layer of ours.
    fn make_canonical(&self, entry: &mut Entry) {
        if is_whiteout(&entry.kind) {
            *entry = Entry::new(entry.path.clone(), entry.kind.clone(), 0);
            return;
        }
        entry.mtime = self.stamp(entry);
        if matches!(entry.kind, Kind::Symlink { .. }) {
            // Linux has no permissions of links, but others' trees may.
            entry.mode = 0o777;
        }
        if entry.kind != Kind::File {
            entry.size = 0;
        }
    }

    fn check(&mut self, entry: &Entry) -> Result<(), WriteError> {
        let path = || entry.path.clone();
        if entry.path.components().any(whiteout::is_reserved) {
            return Err(WriteError::Reserved(path()));
        }
        let ascends =
            self.last.as_ref().is_none_or(|last| walk_order(last, entry) == Ordering::Less);
        if !ascends || (entry.path.is_root() && entry.kind != Kind::OpaqueWhiteout) {
            return Err(WriteError::Order(path()));
        }
        self.directories.retain(|directory| entry.path.starts_with(directory));
        let parent = match &entry.kind {
            Kind::OpaqueWhiteout => path(),
            _ => entry.path.parent().unwrap_or_default(),
        };
        if !parent.is_root() && self.directories.last() != Some(&parent) {
            return Err(WriteError::NoParent(path()));
        }
        if entry.kind == Kind::Directory {
            self.directories.push(path());
        }
        Ok(())
    }
}

/// The order in which a layer's entries come: as a sorted walk meets them, but in each directory
/// its whiteouts before everything else ("whiteout files SHOULD precede their siblings").
pub fn walk_order(left: &Entry, right: &Entry) -> Ordering {
    sort_key(left).cmp(sort_key(right))
}

/// Components, each with its place among its siblings: opaque whiteout, whiteouts, the rest.
fn sort_key(entry: &Entry) -> impl Iterator<Item = (u8, &[u8])> {
    let last = entry.path.components().count().saturating_sub(1);
    let opaque = (entry.kind == Kind::OpaqueWhiteout).then_some((0, &b""[..]));
    let whiteout = entry.kind == Kind::Whiteout;
    let place = move |i| if whiteout && i == last { 1 } else { 2 };
    let components = entry.path.components().enumerate();
    components.map(move |(i, component)| (place(i), component)).chain(opaque)
}

fn is_whiteout(kind: &Kind) -> bool {
    matches!(kind, Kind::Whiteout | Kind::OpaqueWhiteout)
}

/// Hashes and counts what passes to the sink.
#[derive(Debug)]
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::testing::{path, read_all};

    fn write(
        entries: &[(&str, Kind)],
        epoch: Option<i64>,
    ) -> Result<(Vec<u8>, Written), WriteError> {
        let restamp = epoch.map_or(Restamp::AS_MADE, Restamp::epoch);
        let options = WriteOptions { times: ContentTimes::All, restamp };
        let mut writer = LayerWriter::new(Vec::new(), options);
        for (name, kind) in entries {
            let mut entry = Entry::new(path(name), kind.clone(), 0o755);
            entry.mtime.seconds = 1000;
            writer.append(entry, &mut io::empty())?;
        }
        writer.finish()
    }

    #[test]
    fn whiteouts_come_before_their_siblings() {
        let entries = [
            ("", Kind::OpaqueWhiteout),
            ("z", Kind::Whiteout),
            ("a", Kind::Directory),
            ("a", Kind::OpaqueWhiteout),
            ("a/x", Kind::Whiteout),
            ("a/b", Kind::File),
            ("a.b", Kind::File),
        ];
        let (archive, written) = write(&entries, None).unwrap();
        let names: Vec<_> = read_all(&archive)
            .unwrap()
            .into_iter()
            .map(|(entry, _)| String::from_utf8(entry.path.as_bytes().to_vec()).unwrap())
            .collect();
        let expected = [".wh..wh..opq", ".wh.z", "a", "a/.wh..wh..opq", "a/.wh.x", "a/b", "a.b"];
        assert_eq!(names, expected);
        assert!(written.whiteouts);
        assert_eq!(written.size, archive.len() as u64);
        assert_eq!(*written.diff_id.digest(), boatyard_oci::Digest::sha256(&archive));
    }

    #[test]
    fn what_is_out_of_place_is_refused() {
        for (entries, error) in [
            (&[("b", Kind::File), ("a", Kind::File)][..], "/a comes out of order"),
            (&[("a", Kind::File), ("a", Kind::File)], "/a comes out of order"),
            (&[("a", Kind::File), ("b", Kind::Whiteout)], "/b comes out of order"),
            (&[("", Kind::Directory)], "/ comes out of order"),
            (&[("a/b", Kind::File)], "the directory of /a/b is not in the layer"),
            (
                &[("a", Kind::File), ("a/b", Kind::File)],
                "the directory of /a/b is not in the layer",
            ),
            (&[("a", Kind::Directory), ("ab/c", Kind::File)], "the directory of /ab/c is not"),
        ] {
            let refused = write(entries, None).unwrap_err().to_string();
            assert!(refused.starts_with(error), "{refused}");
        }
        let reserved = write(&[(".wh.x", Kind::File)], None).unwrap_err().to_string();
        assert!(reserved.contains("cannot be part of an image"), "{reserved}");
    }

    #[test]
    fn entries_have_one_form() {
        let options = WriteOptions { times: ContentTimes::All, restamp: Restamp::AS_MADE };
        let mut writer = LayerWriter::new(Vec::new(), options);
        for kind in [Kind::Whiteout, Kind::Symlink { target: b"t".to_vec() }] {
            let mut entry = Entry::new(path("a"), kind, 0o600);
            (entry.uid, entry.size, entry.mtime) = (7, 5, Mtime { seconds: 9, nanoseconds: 9 });
            writer.append(entry, &mut io::empty()).unwrap();
        }
        let read = read_all(&writer.finish().unwrap().0).unwrap();
        let shown = |entry: &Entry| (entry.mode, entry.uid, entry.mtime.seconds, entry.size);
        assert_eq!(shown(&read[0].0), (0, 0, 0, 0));
        assert_eq!(shown(&read[1].0), (0o777, 7, 9, 0));
    }

    #[test]
    fn the_epoch_bounds_times() {
        for (epoch, seconds) in [(None, 1000), (Some(500), 500), (Some(2000), 1000)] {
            let (archive, _) = write(&[("a", Kind::File)], epoch).unwrap();
            assert_eq!(read_all(&archive).unwrap()[0].0.mtime.seconds, seconds);
        }
    }
}
