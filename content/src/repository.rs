//! Repositories: what names blobs, so that they live and can be found.
//!
//! ```text
//! <space>/<name>/_manifests/<digest>/type     the media type it was pushed with
//!                                    /refs    what it refers to, a line each
//!               /_tags/<tag>                  the digest that it points at
//!               /_referrers/<subject>/<digest>  the referrer's descriptor
//!               /_blobs/<digest>              empty: this blob was pushed here
//!               /_uploads/<ingest key>        when the upload session began
//!               /_used/<tag or digest>        empty: its mtime is the last use
//!               /_public                      empty: a mirror's upstream shows it to everybody
//! ```
//!
//! A name cannot have a part that starts with `_`, so none collides with these; a tag or digest
//! cannot start with `.`, so temporary files are told apart. Changes happen under the
//! repository's lock, after they were told to the journal; a file appears whole, by rename.

mod blobs;
mod manifests;
mod names;
mod referrers;
mod retire;
mod tags;
mod uploads;
mod used;
mod visibility;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use boatyard_oci::{Digest, RegistryHost, RepositoryName};

pub use manifests::StoredManifest;
pub use retire::{SeenManifest, SeenTag};

use crate::local::Lock;
use crate::local::journal::{Change, Event, EventKind, Journal};
use crate::local::layout::{escape, shard_name, unescape};
use crate::local::{Root, Shared, make_directories, touch};
use crate::store::StoreError;

/// Whose repositories: what was pushed, mirrored, or made here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// What was pushed to the registry: served.
    Hosted,
    /// What was mirrored from the upstream of this canonical name: served.
    Mirror(String),
    /// What was built or pulled on this machine under names of this registry: not served.
    Images(RegistryHost),
}

/// What a repository could not do.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The files could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A manifest needs the blob that was to be unlinked.
    #[error("manifest {by} refers to blob {digest}")]
    BlobReferenced {
        /// The blob.
        digest: Digest,
        /// The first manifest found that needs it.
        by: Digest,
    },
    /// A tag points at another manifest, and was not to be moved.
    #[error("tag {tag} points at another manifest")]
    TagTaken {
        /// The tag.
        tag: boatyard_oci::Tag,
    },
    /// A tag was not to be taken away.
    #[error("tag {tag} is kept")]
    TagKept {
        /// The tag.
        tag: boatyard_oci::Tag,
    },
}

/// The repositories of a root. Cloning is cheap. All calls block.
#[derive(Clone, Debug)]
pub struct Repositories {
    root: Arc<Shared>,
}

impl Repositories {
    pub(crate) fn new(root: Arc<Shared>) -> Repositories {
        Repositories { root }
    }

    /// Returns a repository, which need not exist yet. Touches nothing.
    pub fn repository(&self, space: &Space, name: &RepositoryName) -> Repository {
        let key = format!("{}/{name}", self.space_key(space));
        Repository {
            directory: self.root.layout.root().join(&key),
            name: name.clone(),
            key,
            note: None,
            root: Arc::clone(&self.root),
        }
    }

    /// Returns the directory of a space below the root.
    fn space_key(&self, space: &Space) -> String {
        match space {
            Space::Hosted => "hosted".to_owned(),
            Space::Mirror(upstream) => format!("mirror/{}", escape(upstream)),
            Space::Images(host) => format!("images/{}", escape(host.as_str())),
        }
    }

    fn space_directory(&self, space: &Space) -> PathBuf {
        self.root.layout.root().join(self.space_key(space))
    }

    /// Returns the spaces in which there is something.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn spaces(&self) -> Result<Vec<Space>, StoreError> {
        let layout = &self.root.layout;
        let mut spaces = Vec::new();
        if layout.hosted().is_dir() {
            spaces.push(Space::Hosted);
        }
        for name in names::children(&layout.mirror())? {
            spaces.extend(unescape(&name).map(Space::Mirror));
        }
        for name in names::children(&layout.images())? {
            spaces.extend(unescape(&name).and_then(|host| host.parse().ok()).map(Space::Images));
        }
        Ok(spaces)
    }

    /// Returns the names of a space's repositories that have had a manifest, in ASCII order: at
    /// most `most`, those behind `after`.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn names(
        &self,
        space: &Space,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        names::list(&self.space_directory(space), after, most)
    }

    /// Returns every repository of every space.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn all(&self) -> Result<Vec<Repository>, StoreError> {
        let mut all = Vec::new();
        for space in self.spaces()? {
            let names = names::list_all(&self.space_directory(&space))?;
            all.extend(names.iter().map(|name| self.repository(&space, name)));
        }
        Ok(all)
    }
}

impl Root {
    /// Returns the repository of one image name among those made here.
    pub fn images_of(&self, name: &boatyard_oci::ImageName) -> Repository {
        self.repositories().repository(&Space::Images(name.registry.clone()), &name.repository)
    }
}

/// One repository. Cloning is cheap. All calls block.
#[derive(Clone, Debug)]
pub struct Repository {
    root: Arc<Shared>,
    name: RepositoryName,
    directory: PathBuf,
    /// The directory below the root, as the journal says it.
    key: String,
    /// For whom it is changed, as the journal says it.
    note: Option<Arc<str>>,
}

/// What the journal is told of one thing.
struct Told {
    kind: EventKind,
    change: Change,
    name: String,
    digest: Option<String>,
}

impl Told {
    fn of(kind: EventKind, change: Change, name: &impl ToString) -> Told {
        Told { kind, change, name: name.to_string(), digest: None }
    }

    fn tagged(tag: &boatyard_oci::Tag, digest: &Digest) -> Told {
        let digest = Some(digest.to_string());
        Told { digest, ..Told::of(EventKind::Tag, Change::Put, tag) }
    }
}

impl Repository {
    /// Returns its name within its space.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// Returns its directory below the root, as the journal names it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the same repository, whose changes are told to the journal with a note that says who
    /// makes them: what follows the journal knows then.
    #[must_use]
    pub fn on_behalf_of(mut self, note: Arc<str>) -> Repository {
        self.note = Some(note);
        self
    }

    /// Waits until whoever changes this repository now is done: what the journal said before can
    /// be seen in the files then.
    ///
    /// # Errors
    /// Where the lock cannot be had.
    pub fn settle(&self) -> Result<(), RepositoryError> {
        drop(self.lock()?);
        Ok(())
    }

    /// Says whether it is a mirror's: what it has can be fetched again.
    pub fn is_mirrored(&self) -> bool {
        self.key.starts_with("mirror/")
    }

    /// Says whether anything was ever pushed into it.
    ///
    /// # Errors
    /// None today; the file system of another store may not answer.
    pub fn exists(&self) -> Result<bool, RepositoryError> {
        Ok(["_manifests", "_blobs"].iter().any(|part| self.directory.join(part).is_dir()))
    }

    fn lock_path(&self) -> PathBuf {
        let hash = Digest::sha256(self.key.as_bytes());
        self.root.layout.repository_lock(&hash.hex()[..2])
    }

    /// Keeps out everybody who changes this repository.
    fn lock(&self) -> Result<Lock, StoreError> {
        Lock::exclusive(&self.lock_path())
    }

    /// Keeps out whoever takes something away.
    fn lock_shared(&self) -> Result<Lock, StoreError> {
        Lock::shared(&self.lock_path())
    }

    /// Writes what refers to blobs, as the collector needs it: under the shared locks of their
    /// shards, and with their ctimes touched once it is written. A collection that listed the
    /// holders before cannot delete them then, even if the caller's lease ends at once.
    fn refer(
        &self,
        digests: &[Digest],
        write: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let layout = &self.root.layout;
        let shards: BTreeSet<&str> = digests.iter().map(shard_name).collect();
        let mut locks = Vec::with_capacity(shards.len());
        for shard in shards {
            locks.push(Lock::shared(&layout.shard_lock(shard))?);
        }
        write()?;
        for digest in digests {
            touch(&layout.blob(digest))?;
        }
        Ok(())
    }

    /// Tells the journal what may change next.
    fn tell(&self, changes: Vec<Told>) -> Result<(), StoreError> {
        let at = jiff::Timestamp::now();
        let events: Vec<Event> = changes
            .into_iter()
            .map(|told| Event {
                at,
                repository: self.key.clone(),
                kind: told.kind,
                name: told.name,
                change: told.change,
                digest: told.digest,
                note: self.note.as_deref().map(str::to_owned),
            })
            .collect();
        Journal::new(self.root.layout.clone()).append(&events)
    }

    /// Deletes what a killed process left under temporary names.
    pub(crate) fn remove_temporary(&self, stale: std::time::SystemTime) {
        for part in ["_manifests", "_tags", "_blobs", "_uploads", "_referrers"] {
            crate::gc::remove_temporary(&self.directory.join(part), stale);
        }
    }

    fn make(&self, part: &str) -> Result<PathBuf, StoreError> {
        let directory = self.directory.join(part);
        make_directories(&*self.root.disk, &directory)?;
        Ok(directory)
    }
}

#[cfg(test)]
mod tests;
