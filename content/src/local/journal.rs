//! The journal: what changes in repositories, told before it happens.
//!
//! Whoever changes a repository first appends a line, under the repository's lock. A server that
//! keeps something in memory, or owes a webhook, follows, and reads the files again: the line says
//! what *may* have changed, the files say what did. Segments are bounded, and only the newest are
//! kept; who finds its place gone looks at everything.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::local::layout::Layout;
use crate::local::lock::Lock;
use crate::local::shelves::entries;
use crate::store::{Doing as _, StoreError};

/// How long a segment becomes before the next one begins, in bytes.
const SEGMENT_LEN_MAX: u64 = 1 << 20;
/// How many segments are kept.
const SEGMENTS_KEPT: usize = 8;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: jiff::Timestamp,
    /// The repository's directory below the root, such as `hosted/library/app`.
    pub repository: String,
    /// What kind of thing.
    pub kind: EventKind,
    /// Which: a tag, or a digest.
    pub name: String,
}

/// The kinds of thing that change in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A manifest was put or deleted.
    Manifest,
    /// A tag was moved or deleted.
    Tag,
    /// A blob was linked or unlinked.
    Blob,
    /// A file of a private package was published, withdrawn or removed. The repository is
    /// `packages/<ecosystem>/<name>/<package>`.
    Package,
}

/// The journal of a root.
#[derive(Clone, Debug)]
pub struct Journal {
    layout: Layout,
}

impl Journal {
    pub(crate) fn new(layout: Layout) -> Journal {
        Journal { layout }
    }

    /// Appends events. It is not synced: after a power cut everybody looks at everything anyway.
    pub(crate) fn append(&self, events: &[Event]) -> Result<(), StoreError> {
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, event).expect("texts always serialise");
            lines.push(b'\n');
        }
        let _lock = Lock::exclusive(&self.layout.journal_lock())?;
        let path = self.current()?;
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .doing("open the journal")?;
        file.write_all(&lines).doing("write to the journal")
    }

    /// Returns the segment to append to, and begins a new one where the last is full.
    fn current(&self) -> Result<PathBuf, StoreError> {
        let segments = self.segments()?;
        let Some(&last) = segments.last() else {
            fs::create_dir_all(self.layout.journal()).doing("create the journal")?;
            return Ok(self.segment(1));
        };
        let len = fs::metadata(self.segment(last)).doing("look at the journal")?.len();
        if len < SEGMENT_LEN_MAX {
            return Ok(self.segment(last));
        }
        for &old in segments.iter().rev().skip(SEGMENTS_KEPT - 1) {
            let _ = fs::remove_file(self.segment(old));
        }
        Ok(self.segment(last + 1))
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.layout.journal().join(format!("{number:012}"))
    }

    fn segments(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers = Vec::new();
        for entry in entries(&self.layout.journal()) {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Returns a follower that begins at the end: it sees what changes from now on.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn follow(&self) -> Result<Follower, StoreError> {
        let segment = self.segments()?.last().copied().unwrap_or(1);
        let offset = match fs::metadata(self.segment(segment)) {
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        Ok(Follower { journal: self.clone(), segment, offset })
    }
}

/// What a follower found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// These things may have changed.
    Events(Vec<Event>),
    /// The follower's place is gone, or cannot be read: anything may have changed.
    Gap,
}

/// A place in the journal.
#[derive(Clone, Debug)]
pub struct Follower {
    journal: Journal,
    segment: u64,
    offset: u64,
}

impl Follower {
    /// Returns what was appended since the last call.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn read(&mut self) -> Result<Followed, StoreError> {
        let segments = self.journal.segments()?;
        let Some((&first, &last)) = segments.first().zip(segments.last()) else {
            return Ok(Followed::Events(Vec::new()));
        };
        if first > self.segment || last < self.segment {
            (self.segment, self.offset) = (last, self.journal.follow()?.offset);
            return Ok(Followed::Gap);
        }
        let mut events = Vec::new();
        loop {
            if !self.read_segment(&mut events)? {
                (self.segment, self.offset) = (last, self.journal.follow()?.offset);
                return Ok(Followed::Gap);
            }
            if self.segment >= last {
                return Ok(Followed::Events(events));
            }
            (self.segment, self.offset) = (self.segment + 1, 0);
        }
    }

    /// Reads to the last whole line of the segment; `false` where it is gone or garbled.
    fn read_segment(&mut self, events: &mut Vec<Event>) -> Result<bool, StoreError> {
        let mut file = match fs::File::open(self.journal.segment(self.segment)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).doing("open the journal"),
        };
        file.seek(SeekFrom::Start(self.offset)).doing("read the journal")?;
        let mut bytes = Vec::new();
        file.take(4 * SEGMENT_LEN_MAX).read_to_end(&mut bytes).doing("read the journal")?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        for line in bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(event) => events.push(event),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Event {
        Event {
            at: jiff::Timestamp::UNIX_EPOCH,
            repository: "hosted/app".to_owned(),
            kind: EventKind::Tag,
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_follower_sees_what_comes_and_notices_a_gap() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(Layout::new(directory.path()));
        journal.append(&[event("before")]).unwrap();
        let mut follower = journal.follow().unwrap();
        journal.append(&[event("a"), event("b")]).unwrap();
        assert_eq!(follower.read().unwrap(), Followed::Events(vec![event("a"), event("b")]));
        assert_eq!(follower.read().unwrap(), Followed::Events(vec![]));

        let long = "x".repeat(SEGMENT_LEN_MAX as usize);
        journal.append(&[event(&long)]).unwrap();
        journal.append(&[event("next segment")]).unwrap();
        assert_eq!(
            follower.read().unwrap(),
            Followed::Events(vec![event(&long), event("next segment")])
        );
        for _ in 0..2 * SEGMENTS_KEPT {
            journal.append(&[event(&long)]).unwrap();
        }
        assert_eq!(follower.read().unwrap(), Followed::Gap);
        assert!(journal.segments().unwrap().len() <= SEGMENTS_KEPT);
        journal.append(&[event("after")]).unwrap();
        assert_eq!(follower.read().unwrap(), Followed::Events(vec![event("after")]));
    }
}
