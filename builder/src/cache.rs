//! What builds reuse: which steps ran, and the layers that came of them.
//!
//! ```text
//! ROOT/cache/records/ab/<key>                     a [`Record`]; its mtime says when it was used
//! ROOT/cache/layers/<content id>/<time policy>    a diff ID: the first layer of this content; below it,
//!                                                 as JSON, which of its times its step chose
//! ROOT/cache/encodings/<diff id>/<compression>/<blob digest>   holds a layer's blob
//! ROOT/cache/inputs/<content id>                  what a COPY selected, for `--explain`
//! ROOT/cache/mounts/<name>/                       what steps keep for themselves: [`mounts`]
//! ROOT/cache/near/{place,text}/<hash>             the newest records of a place, and of a text
//! ROOT/cache/{http,git}/                          what was fetched for ADD and contexts
//! ROOT/locks/steps/<key>                          as long as a step runs
//! ```
//!
//! The order of writes, which makes a record something to rely on:
//!
//! 1. the driver makes the layer's blob durable ([`boatyard_content::Ingest::commit`]), or its
//!    unpacked tree ([`crate::snapshot::Layers::make_durable`]);
//! 2. [`Cache::put_encoding`] holds the blob, under the shared lock of its shard, and touches it;
//! 3. [`Cache::adopt`] names the layer of this content;
//! 4. [`Cache::put_input`] keeps what was copied;
//! 5. [`Cache::put`] writes the record under each key, and last what finds it by its place.
//!
//! Each file appears whole, by a rename. None is synced: all of it can be made again, and a hundred
//! steps would wait for some hundred syncs. A power cut therefore takes the newest of them, or leaves
//! them empty or torn. That is told from what they should be (a record has a check, the others are
//! names and digests) and counts as absent; nothing wrong is ever found.
//!
//! A record promises nothing by itself. Who wants to use one holds the layer first: a blob of
//! [`Cache::encodings`] by [`boatyard_content::Store::hold`], or the tree by
//! [`crate::snapshot::Layers::find`]; if neither is there, it is a miss.

mod changed_files;
mod difference;
mod fetched;
mod files;
pub mod key;
pub mod limits;
pub mod mounts;
mod near;
pub mod prune;
pub mod record;
pub mod shared;
mod step_lock;
pub mod usage;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boatyard_content::gc::GcError;
use boatyard_content::local::{create_unsynced, write_unsynced};
use boatyard_content::{Root, StoreError};
use boatyard_oci::{Descriptor, DiffId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::contents::{Table, TableError};
use crate::layer::{Chosen, ContentId, Restamp};
use crate::snapshot::LayersError;

pub use self::changed_files::{ChangedFile, ChangedFiles, FileChange};
pub use self::difference::{Change, Difference, differences};
pub use self::key::{Key, Part, Parts};
pub use self::limits::{Amount, Limits};
pub use self::mounts::{CacheId, CacheMounts, KeptMount};
pub use self::prune::{Pruned, Rules};
pub use self::record::{Below, Ground, Input, Record, RecordedLayer};
pub use self::step_lock::StepLock;
pub use self::usage::{Kept, KeptRecord, Usage, What};

/// How exact the time of use is: a use within this time of the last one is not written.
const USED_GRAIN: Duration = Duration::from_secs(3600);

/// How many epochs' layers of one content are named at once.
const EPOCHS_MAX: usize = 4;

/// Why the cache could not be used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// A file could not be read or written; the error names the path.
    #[error("cannot {doing} of the build cache")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("cannot {doing} of the build cache")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The table of what was copied could not be read or written.
    #[error("cannot keep what was copied, {content}")]
    Input {
        /// Its content ID.
        content: ContentId,
        /// Why not.
        #[source]
        source: TableError,
    },
    /// Unpacked layers could not be removed.
    #[error("cannot {doing} of the build cache")]
    Layers {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: LayersError,
    },
    /// The collector failed.
    #[error("cannot {doing} of the build cache")]
    Collect {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: GcError,
    },
}

/// What there is under a key.
#[derive(Debug)]
pub enum Lookup {
    /// A record. Its layer is still to be held.
    Hit(Box<Record>),
    /// Nothing.
    Miss,
    /// A file that was no record, and is gone now: worth a warning, else a miss.
    Damaged {
        /// Where it was.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// What the times in a layer are: layers of the same content differ by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TimePolicy {
    /// As the step made them.
    AsMade,
    /// None later than `SOURCE_DATE_EPOCH`, in seconds.
    Epoch(i64),
}

impl TimePolicy {
    /// Returns what times become under this policy.
    pub fn restamp(self) -> Restamp {
        match self {
            Self::AsMade => Restamp::AS_MADE,
            Self::Epoch(seconds) => Restamp::epoch(seconds),
        }
    }
}

impl FromStr for TimePolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("epoch-") {
            None => (text == "as-made").then_some(Self::AsMade).ok_or(()),
            Some(seconds) => seconds.parse().map(Self::Epoch).map_err(|_| ()),
        }
    }
}

impl TryFrom<String> for TimePolicy {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse().map_err(|()| "this is no policy of times")
    }
}

impl From<TimePolicy> for String {
    fn from(times: TimePolicy) -> String {
        times.to_string()
    }
}

/// A layer of some content under some policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLayer {
    /// What its times are.
    pub times: TimePolicy,
    /// The layer.
    pub diff_id: DiffId,
    /// Which of its times its step chose.
    pub chosen: Chosen,
}

impl fmt::Display for TimePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsMade => f.write_str("as-made"),
            Self::Epoch(seconds) => write!(f, "epoch-{seconds}"),
        }
    }
}

/// The build cache of a root. All of it is blocking code; clones are one cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: Arc<Root>,
    directory: PathBuf,
}

impl Cache {
    /// Opens the cache of a root; it needs nothing to be there.
    pub fn open(root: &Arc<Root>) -> Cache {
        Cache { root: Arc::clone(root), directory: root.layout().cache() }
    }

    /// Looks for a record, and notes that it is used.
    ///
    /// # Errors
    /// Where the file is there but cannot be read.
    pub fn find(&self, key: &Key) -> Result<Lookup, CacheError> {
        let path = self.record_path(key);
        let found = self.read(&path)?;
        match &found {
            Lookup::Hit(_) => mark_used(&path).doing("note a use")?,
            Lookup::Damaged { .. } => {
                files::remove(&path).doing("remove a damaged record")?;
            }
            Lookup::Miss => {}
        }
        Ok(found)
    }

    /// Writes a record under each of its keys; what was there is replaced.
    ///
    /// What is under several keys counts as one record, known by the key of its parts: that must be
    /// among them.
    ///
    /// # Errors
    /// Where a file could not be written.
    pub fn put(&self, keys: &[Key], record: &Record) -> Result<(), CacheError> {
        let bytes = record.to_bytes();
        for key in keys {
            write_unsynced(&self.record_path(key), &bytes).storing("write a record")?;
        }
        let mut added = (bytes.len() * keys.len()) as u64;
        if self.encodings(&record.layer.diff_id)?.is_empty() {
            // Then its tree is all that there is of it.
            added += record.layer.size;
        }
        self.note_added(added)?;
        near::note(&self.directory.join("near"), record).storing("note the place of a record")
    }

    /// Names the layer of a content, unless one has been named: returns the first one.
    ///
    /// # Errors
    /// Where the file could not be read or written.
    pub fn adopt(
        &self,
        content: &ContentId,
        times: TimePolicy,
        diff_id: &DiffId,
        chosen: &Chosen,
    ) -> Result<DiffId, CacheError> {
        let path = self.layer_path(content, times);
        if create_unsynced(&path, &layer_name(diff_id, chosen)).storing("name a layer")? {
            self.forget_epochs(content, times)?;
            return Ok(diff_id.clone());
        }
        match self.layer(content, times)? {
            Some(first) => Ok(first),
            // A power cut tore it, or it was removed just now.
            None => self.readopt(content, times, diff_id, chosen).map(|()| diff_id.clone()),
        }
    }

    /// Forgets the layers of old epochs: each can be written again from any other. A build for every
    /// commit would leave as many.
    ///
    /// # Errors
    /// Where files could not be read or removed.
    pub(crate) fn forget_epochs(
        &self,
        content: &ContentId,
        kept: TimePolicy,
    ) -> Result<(), CacheError> {
        let mut epochs = Vec::new();
        for path in files::list(&self.layers_path(content)).doing("list the layers of a content")? {
            let times = policy_of(&path);
            if !matches!(times, Some(TimePolicy::Epoch(_))) || times == Some(kept) {
                continue;
            }
            if let Some((_, named)) = files::size_and_time(&path).doing("look at a layer's name")? {
                epochs.push((named, path));
            }
        }
        epochs.sort();
        let many = (epochs.len() + 1).saturating_sub(EPOCHS_MAX);
        for (_, path) in epochs.into_iter().take(many) {
            files::remove(&path).doing("forget the layer of an old epoch")?;
        }
        Ok(())
    }

    /// Names the layer of a content, in place of one that cannot be had any more.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn readopt(
        &self,
        content: &ContentId,
        times: TimePolicy,
        diff_id: &DiffId,
        chosen: &Chosen,
    ) -> Result<(), CacheError> {
        let path = self.layer_path(content, times);
        write_unsynced(&path, &layer_name(diff_id, chosen)).storing("name a layer")
    }

    /// Returns the layer of a content, where one has been named.
    ///
    /// # Errors
    /// Where the file is there but cannot be read.
    pub fn layer(
        &self,
        content: &ContentId,
        times: TimePolicy,
    ) -> Result<Option<DiffId>, CacheError> {
        let bytes = files::read(&self.layer_path(content, times)).doing("read a layer's name")?;
        Ok(bytes.and_then(|bytes| named_layer(&bytes)))
    }

    /// Returns all layers of a content of which it is known which times were chosen: as made first,
    /// then the newest epoch's.
    ///
    /// # Errors
    /// Where the files could not be read.
    pub fn layers(&self, content: &ContentId) -> Result<Vec<NamedLayer>, CacheError> {
        let mut layers = Vec::new();
        for path in files::list(&self.layers_path(content)).doing("list the layers of a content")? {
            let Some(times) = policy_of(&path) else { continue };
            let bytes = files::read(&path).doing("read a layer's name")?.unwrap_or_default();
            let mut lines = bytes.splitn(2, |byte| *byte == b'\n').skip(1);
            let chosen = lines.next().and_then(|json| serde_json::from_slice(json).ok());
            if let (Some(diff_id), Some(chosen)) = (named_layer(&bytes), chosen) {
                layers.push(NamedLayer { times, diff_id, chosen });
            }
        }
        layers.sort_by_key(|layer| match layer.times {
            TimePolicy::AsMade => (0, 0),
            TimePolicy::Epoch(seconds) => (1, i64::MAX.saturating_sub(seconds)),
        });
        Ok(layers)
    }

    /// Returns the blobs that hold a layer, each with the name of its compression. Hold one in a
    /// lease before you rely on it: it may be gone.
    ///
    /// # Errors
    /// Where the files could not be read.
    pub fn encodings(&self, diff_id: &DiffId) -> Result<Vec<(String, Descriptor)>, CacheError> {
        self.root.encodings().of(diff_id).storing("read the encodings")
    }

    /// Says that a durable blob holds a layer, and so holds the blob. `false` where it is not there.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub fn put_encoding(
        &self,
        diff_id: &DiffId,
        compression: &str,
        blob: &Descriptor,
    ) -> Result<bool, CacheError> {
        self.note_added(blob.size)?;
        self.root.encodings().put(diff_id, compression, blob).storing("write an encoding")
    }

    /// Waits until no other build or stage runs this step, and returns the right to run it. Look for
    /// its record again then. `waiting` is called now and then while another runs it; where it
    /// says so, waiting ends with `None`.
    ///
    /// # Errors
    /// Where the lock cannot be made.
    pub fn lock_step(
        &self,
        key: &Key,
        waiting: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<StepLock>, CacheError> {
        let path = self.root.layout().step_locks().join(key.to_string());
        StepLock::take(&path, waiting).doing("lock a step")
    }

    /// Returns the earlier record that says most about why a step was not found: the one of the same
    /// place that agrees with it in most parts, else of the same text. The layer, times and key of
    /// `now` do not matter. Ask before [`Cache::put`].
    pub fn nearest(&self, now: &Record) -> Option<Record> {
        let find = |key: &Key| match self.read(&self.record_path(key)) {
            Ok(Lookup::Hit(record)) => Some(*record),
            _ => None,
        };
        near::best(&self.directory.join("near"), now, find)
    }

    /// Says why an earlier record is not what is wanted now, with the files that differ where what
    /// was copied is kept. Nothing, where all is the same.
    pub fn differences(&self, earlier: &Record, now: &Record) -> Vec<Difference> {
        differences(earlier, now, &|content| self.input(content).ok().flatten())
    }

    /// Keeps what a source selected, so that a later build can say what changed in it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn put_input(&self, content: &ContentId, table: &Table) -> Result<(), CacheError> {
        let path = self.input_path(content);
        if files::size_and_time(&path).doing("look for an input")?.is_some() {
            return Ok(());
        }
        table.write(&path).map_err(|source| CacheError::Input { content: *content, source })
    }

    /// Returns what a source selected; `None` where that is not kept, or damaged.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn input(&self, content: &ContentId) -> Result<Option<Table>, CacheError> {
        Table::read(&self.input_path(content))
            .map_err(|source| CacheError::Input { content: *content, source })
    }

    fn input_path(&self, content: &ContentId) -> PathBuf {
        self.directory.join("inputs").join(content.to_string())
    }

    fn read(&self, path: &Path) -> Result<Lookup, CacheError> {
        let Some(bytes) = files::read(path).doing("read a record")? else {
            return Ok(Lookup::Miss);
        };
        match Record::from_bytes(&bytes) {
            Ok(Some(record)) => Ok(Lookup::Hit(Box::new(record))),
            Ok(None) => Ok(Lookup::Miss),
            Err(error) => {
                Ok(Lookup::Damaged { path: path.to_path_buf(), reason: error.to_string() })
            }
        }
    }

    fn record_path(&self, key: &Key) -> PathBuf {
        let name = key.to_string();
        self.records().join(&name[..2]).join(name)
    }

    fn records(&self) -> PathBuf {
        self.directory.join("records")
    }

    fn layer_path(&self, content: &ContentId, times: TimePolicy) -> PathBuf {
        self.layers_path(content).join(times.to_string())
    }

    fn layers_path(&self, content: &ContentId) -> PathBuf {
        self.directory.join("layers").join(content.to_string())
    }
}

/// Writes what names a layer.
fn layer_name(diff_id: &DiffId, chosen: &Chosen) -> Vec<u8> {
    let mut name = format!("{diff_id}\n").into_bytes();
    name.extend(serde_json::to_vec(chosen).expect("numbers always serialise"));
    name
}

/// Reads what names a layer; nothing, where a power cut tore it.
fn named_layer(bytes: &[u8]) -> Option<DiffId> {
    let first = bytes.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(first).ok()?.parse().ok()
}

fn policy_of(path: &Path) -> Option<TimePolicy> {
    path.file_name()?.to_str()?.parse().ok()
}

fn mark_used(path: &Path) -> io::Result<()> {
    let Some((_, used)) = files::size_and_time(path)? else { return Ok(()) };
    match SystemTime::now().duration_since(used) {
        Ok(since) if since < USED_GRAIN => Ok(()),
        _ => files::touch(path),
    }
}

/// Names what was being done when something failed.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, CacheError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::Io { doing, source })
    }
}

trait Storing<T> {
    fn storing(self, doing: &'static str) -> Result<T, CacheError>;
}

impl<T> Storing<T> for Result<T, StoreError> {
    fn storing(self, doing: &'static str) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::Store { doing, source })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
