//! Caches of many machines: read before a build, added to after it.
//!
//! What a cache holds is in [`boatyard_builder::cache::shared`]; where it lies is here: a tag of a
//! registry, or a directory. Both are added to by reading, merging and writing, and who writes says what
//! he has read: where somebody else was faster, all of it is done again. Nobody's records are lost so.

mod directory;
pub mod options;
mod registry;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use boatyard_builder::cache::shared::mount::FileList;
use boatyard_builder::cache::shared::{Depot, Imports, Ledger, SharedMount, Source};
use boatyard_content::{Expected, IngestKey, Lease, Root};
use boatyard_oci::{Descriptor, Digest, RepositoryName};
use boatyard_upstream::Client;
use jiff::Timestamp;
use tokio::runtime::Handle;

use self::directory::DirectoryKeeper;
use self::options::{Export, Place};
use self::registry::RegistryKeeper;
use crate::remote;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// How often an export begins again because others were faster.
const ATTEMPTS: usize = 10;
/// The most bytes of the list of a cache mount's files that is read to add to it.
const LIST_BYTES_MAX: usize = 64 << 20;

/// Where a cache lies.
trait Keeper {
    /// Returns where its blobs are had from.
    fn depot(&self) -> Arc<dyn Depot>;
    /// Reads its records; `None` where nothing is there.
    fn read(&self) -> Result<Option<Kept>>;
    /// Puts a ledger in the place of what was read.
    fn write(&self, writing: &Writing<'_>) -> Result<Written>;
}

/// What is there.
struct Kept {
    ledger: Ledger,
    /// What names this state of it.
    version: Option<Digest>,
    /// It is no cache that can be added to.
    is_image: bool,
}

/// What is to be there.
struct Writing<'a> {
    ledger: &'a Ledger,
    /// What was read.
    over: Option<&'a Digest>,
    /// The blobs that are there.
    known: &'a HashSet<Digest>,
    /// Brings a blob here that another cache promised.
    lend: &'a dyn Fn(&Descriptor) -> Result<()>,
    /// Repositories that may have some of the blobs.
    mount_from: &'a [RepositoryName],
}

/// How writing ended.
enum Written {
    /// It is there; so many bytes moved.
    Done(u64),
    /// Somebody else was faster.
    Conflict,
    /// What was taken to be there is not.
    Lost,
}

/// What became of an export.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exported {
    /// How many records are there now.
    pub records: usize,
    /// How many bytes moved.
    pub bytes: u64,
}

/// Reads and writes shared caches.
pub struct Exchange<'a> {
    world: &'a World,
    runtime: &'a Handle,
    root: &'a Arc<Root>,
    lease: &'a Lease,
    client: OnceLock<Client>,
}

impl<'a> Exchange<'a> {
    /// Returns what exchanges caches for a build; it has done nothing yet.
    pub fn new(
        world: &'a World,
        runtime: &'a Handle,
        root: &'a Arc<Root>,
        lease: &'a Lease,
    ) -> Exchange<'a> {
        Exchange { world, runtime, root, lease, client: OnceLock::new() }
    }

    /// Reads the records of a cache; `None` where there is none yet.
    pub fn import(&self, place: &Place) -> Result<Option<Source>> {
        let keeper = self.keeper(place)?;
        let kept = keeper.read()?;
        Ok(kept.map(|kept| Source { ledger: kept.ledger, depot: keeper.depot() }))
    }

    /// Adds to a cache what `added` returns, which is told what is there.
    pub fn export(
        &self,
        export: &Export,
        imports: &Imports,
        mount_from: &[RepositoryName],
        added: &mut dyn FnMut(&Ledger, &dyn Depot) -> Result<Ledger>,
    ) -> Result<Exported> {
        let keeper = self.keeper(&export.place)?;
        let depot = keeper.depot();
        let lend = |blob: &Descriptor| lend(imports, blob);
        let (mut new, mut is_lost) = (None, false);
        for _ in 0..ATTEMPTS {
            let kept = keeper.read()?;
            if kept.as_ref().is_some_and(|kept| kept.is_image) {
                return Err(Failure::new(format!("{} is an image, and no cache", export.place))
                    .hint("give the cache a tag of its own, such as `:buildcache`"));
            }
            let (here, version) =
                kept.map_or_else(Default::default, |kept| (kept.ledger, kept.version));
            // What the place says to have, and has not, is not told any more.
            let here = if is_lost { Ledger::default() } else { here };
            if new.is_none() {
                new = Some(added(&here, &*depot)?);
            }
            let mut ledger = here.clone();
            ledger.merge(new.as_ref().unwrap_or(&here));
            ledger.prune(Timestamp::now(), export.max_age);
            let records = ledger.records.len();
            if version.is_some() && !is_lost && ledger.to_bytes() == here.to_bytes() {
                return Ok(Exported { records, bytes: 0 });
            }
            let known = here.blobs().into_iter().map(|blob| blob.digest).collect();
            let over = version.as_ref();
            let writing = Writing { ledger: &ledger, over, known: &known, lend: &lend, mount_from };
            match keeper.write(&writing)? {
                Written::Done(bytes) => return Ok(Exported { records, bytes }),
                Written::Conflict => {}
                Written::Lost if is_lost => break,
                Written::Lost => is_lost = true,
            }
        }
        Err(Failure::new(format!("cannot write the cache {}", export.place))
            .because("others changed it all the time"))
    }

    /// Reads the list of a cache mount's files, to add to it; `None` where it cannot be had.
    pub fn files(&self, mount: &SharedMount, depot: &dyn Depot) -> Option<FileList> {
        depot.fetch(&mount.files).ok()?;
        let blob = self.root.store().open_blocking(&mount.files.digest).ok()??;
        let bytes = boatyard_content::Blob::File(blob).into_bytes(LIST_BYTES_MAX).ok()?;
        FileList::from_bytes(&bytes).ok()
    }

    fn keeper<'k>(&'k self, place: &'k Place) -> Result<Box<dyn Keeper + 'k>> {
        match place {
            Place::Directory { path, tag } => Ok(Box::new(DirectoryKeeper::new(self, path, tag))),
            Place::Registry(image) => {
                if self.client.get().is_none() {
                    let _ = self.client.set(remote::client(self.world)?);
                }
                let client = self.client.get().ok_or_else(|| Failure::new("there is no client"))?;
                Ok(Box::new(RegistryKeeper::new(self, client, image)))
            }
            Place::Inline => Err(Failure::usage("type=inline can only be exported to")),
        }
    }

    /// Puts bytes into the store.
    fn store(&self, bytes: &[u8]) -> Result<()> {
        let failed = "cannot store the records of a cache";
        let store = self.root.store();
        let mut ingest =
            store.ingest_blocking(&IngestKey::fleeting(), self.lease).context(failed)?;
        std::io::Write::write_all(&mut ingest, bytes).context(failed)?;
        ingest.commit_blocking(&Expected::any()).context(failed)?;
        Ok(())
    }
}

/// Brings a blob here that a cache promised which was imported.
pub fn lend(imports: &Imports, blob: &Descriptor) -> Result<()> {
    let missing = || Failure::new(format!("the blob {} is not here any more", blob.digest));
    let depot = imports.depot(&blob.digest).ok_or_else(missing)?;
    depot.fetch(blob).context(format!("cannot fetch {} from {depot}", blob.digest))
}
