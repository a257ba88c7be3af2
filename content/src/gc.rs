//! The collector: the only code that deletes a blob.
//!
//! It runs while everything else does, in any process, and reads no manifest: who needs a blob
//! has said so by the name of a file, or by a line of `refs`. Why it never takes what somebody
//! still needs:
//!
//! 1. Whoever is going to rely on a blob first appends it to a lease, or touches its ctime, under
//!    the *shared* lock of the blob's shard, and only then looks whether it is there, or refers to
//!    it.
//! 2. Whoever writes a file that holds a blob keeps that shared lock meanwhile, and touches the
//!    ctime once the file is there ([`crate::repository`] does both).
//! 3. The collector decides under the *exclusive* lock of that shard, from the leases and the ctime
//!    as they are then. A holder that it did not list was written after it began, so the ctime is
//!    younger than that, and the blob stays.
//! 4. A blob's ctime within the grace period counts as a holder: a client was told of it.

mod why;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use boatyard_oci::{Algorithm, Digest};
use fs_err as fs;

use crate::holders::{self, Holder};
use crate::ingest::IngestKey;
use crate::lease::Holding;
use crate::local::layout::shard_name;
use crate::local::{Lock, Root, changed, discard_ingest, entries, holdings};
use crate::packages;
use crate::repository::{Repository, RepositoryError};
use crate::store::{BlobInfo, StoreError};

pub use why::{Why, why};

/// The clock of ctimes is coarser than ours: what changed this shortly before the collector
/// began may have changed after it.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);

/// How to collect.
#[derive(Clone, Debug)]
pub struct GcOptions {
    /// How long a blob stays that somebody was told of but nobody holds.
    pub grace: Duration,
    /// How long an upload or download that nobody goes on with can still be taken up.
    pub stale_after: Duration,
    /// Deletes nothing, and reports what it would.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        GcOptions {
            grace: Duration::from_secs(3600),
            stale_after: Duration::from_secs(7 * 24 * 3600),
            dry_run: false,
        }
    }
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The blobs that were deleted.
    pub freed: Vec<BlobInfo>,
    /// How many blobs stay.
    pub kept: u64,
    /// How many bytes the blobs have that stay.
    pub kept_bytes: u64,
    /// How many of the blobs that stay are held only because they are young or leased.
    pub kept_for_now: u64,
    /// How many links to blobs that no manifest needs were deleted.
    pub unlinked: u64,
    /// How many unfinished uploads and downloads were given up.
    pub abandoned: u64,
}

impl GcReport {
    /// Returns how many bytes the deleted blobs had.
    pub fn freed_bytes(&self) -> u64 {
        self.freed.iter().map(|blob| blob.size).sum()
    }
}

/// Why a collection could not run.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Another one is running.
    #[error("another collection is running on this root")]
    Running,
    /// The holders of a repository could not be listed: then nothing is deleted.
    #[error("cannot tell what repository {repository} holds")]
    Repository {
        /// Which, by its directory below the root.
        repository: String,
        /// Why.
        #[source]
        source: RepositoryError,
    },
    /// A file could not be read or deleted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says that its bearer may delete blobs of one shard. Only the collector can make one.
#[derive(Debug)]
pub struct SweepPermit {
    shard: String,
    _lock: Option<Lock>,
}

impl SweepPermit {
    /// Says whether it is for this blob's shard.
    pub fn covers(&self, digest: &Digest) -> bool {
        shard_name(digest) == self.shard
    }

    /// Returns a permit for stores without locks, for the suite.
    pub(crate) fn for_suite(digest: &Digest) -> SweepPermit {
        SweepPermit { shard: shard_name(digest).to_owned(), _lock: None }
    }
}

/// Deletes what nobody needs.
///
/// # Errors
/// Where another collection runs, or something could not be read: then nothing more is deleted.
pub fn collect(root: &Root, options: &GcOptions) -> Result<GcReport, GcError> {
    let Some(_running) = Lock::try_exclusive(&root.layout().gc_lock())? else {
        return Err(GcError::Running);
    };
    let began = SystemTime::now();
    let mut report = GcReport::default();
    let before = began - options.grace.max(CLOCK_GRAIN);
    let stale = began - options.stale_after.max(CLOCK_GRAIN);
    let repositories = root.repositories().all()?;
    for repository in &repositories {
        tidy(repository, before, stale, options, &mut report).map_err(|source| {
            GcError::Repository { repository: repository.key().to_owned(), source }
        })?;
    }
    if !options.dry_run {
        report.abandoned += abandon_ingests(root, stale)?;
        remove_temporary(&root.layout().leases(), stale);
        packages::remove_temporary(root, stale);
    }
    let sweep = Sweep { root, held: held(root)?, before, dry_run: options.dry_run };
    for algorithm in Algorithm::ALL {
        for shard in entries(&root.layout().algorithm(algorithm)) {
            if let Some(name) = shard?.file_name().to_str() {
                sweep.shard(algorithm, name, &mut report)?;
            }
        }
    }
    Ok(report)
}

/// Deletes those of some blobs that nobody needs: what was given up just now. Of all others it says
/// nothing, and it ends nothing that is stale.
///
/// # Errors
/// As [`collect`].
pub fn collect_only(
    root: &Root,
    blobs: &[Digest],
    options: &GcOptions,
) -> Result<GcReport, GcError> {
    let Some(_running) = Lock::try_exclusive(&root.layout().gc_lock())? else {
        return Err(GcError::Running);
    };
    let before = SystemTime::now() - options.grace.max(CLOCK_GRAIN);
    let held = held(root)?;
    let sweep = Sweep { root, held, before, dry_run: options.dry_run };
    let mut report = GcReport::default();
    let mut shards: BTreeMap<&str, Vec<BlobInfo>> = BTreeMap::new();
    for digest in blobs.iter().collect::<BTreeSet<_>>() {
        if let Some(blob) = root.store().stat_blocking(digest)? {
            shards.entry(shard_name(digest)).or_default().push(blob);
        }
    }
    for (shard, blobs) in shards {
        let candidates = sweep.unheld(blobs, &mut report);
        sweep.delete(shard, candidates, &mut report)?;
    }
    Ok(report)
}

/// Returns the blobs that stay whatever the build cache gives up: those of repositories and of the
/// cache proxy.
///
/// # Errors
/// Where something cannot be read.
pub fn held_beside_builds(root: &Root) -> Result<HashSet<Digest>, GcError> {
    let mut held = HashSet::new();
    holders::each(root, &mut |blob, holder| {
        if !matches!(holder, Holder::Layer(_)) {
            note(&mut held, blob);
        }
    })?;
    Ok(held)
}

/// Returns all blobs that files hold.
///
/// # Errors
/// Where something cannot be read.
pub fn held(root: &Root) -> Result<HashSet<Digest>, GcError> {
    let mut held = HashSet::new();
    holders::each(root, &mut |blob, _| note(&mut held, blob))?;
    Ok(held)
}

fn note(held: &mut HashSet<Digest>, blob: &Digest) {
    if !held.contains(blob) {
        held.insert(blob.clone());
    }
}

/// Ends what is stale in a repository.
fn tidy(
    repository: &Repository,
    before: SystemTime,
    stale: SystemTime,
    options: &GcOptions,
    report: &mut GcReport,
) -> Result<(), RepositoryError> {
    if !options.dry_run {
        report.abandoned += repository.end_stale_uploads(stale)? as u64;
        repository.remove_temporary(stale);
    }
    report.unlinked += repository.unlink_unneeded(before, options.dry_run)?.len() as u64;
    Ok(())
}

/// Gives up ingests that nobody went on with.
fn abandon_ingests(root: &Root, stale: SystemTime) -> Result<u64, StoreError> {
    let mut abandoned = 0;
    for entry in entries(&root.layout().ingests()) {
        let entry = entry?;
        let Some(key) = entry.file_name().to_str().and_then(|key| key.parse::<IngestKey>().ok())
        else {
            continue;
        };
        let last = changed(&entry.path())?.max(changed(&entry.path().join("data"))?);
        if last.is_some_and(|last| last < stale) {
            match discard_ingest(root.shared(), &key) {
                Ok(()) => abandoned += 1,
                Err(StoreError::IngestBusy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(abandoned)
}

/// Deletes what a killed process left under temporary names.
pub(crate) fn remove_temporary(directory: &Path, stale: SystemTime) {
    for entry in entries(directory).flatten() {
        let temporary = entry.file_name().as_encoded_bytes().starts_with(b".new-");
        let path = entry.path();
        if temporary && changed(&path).is_ok_and(|at| at.is_some_and(|at| at < stale)) {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

/// A collection under way, once it is known who holds what.
struct Sweep<'a> {
    root: &'a Root,
    held: HashSet<Digest>,
    before: SystemTime,
    dry_run: bool,
}

impl Sweep<'_> {
    /// Deletes from one shard what nobody holds.
    fn shard(
        &self,
        algorithm: Algorithm,
        shard: &str,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        let directory = self.root.layout().algorithm(algorithm).join(shard);
        let mut blobs = Vec::new();
        self.root.store().each_in_shard(algorithm, &directory, &mut |blob| blobs.push(blob))?;
        let candidates = self.unheld(blobs, report);
        self.delete(shard, candidates, report)
    }

    /// Deletes blobs of one shard, unless they are young or leased.
    fn delete(
        &self,
        shard: &str,
        candidates: Vec<BlobInfo>,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let layout = self.root.layout();
        let lock = Lock::exclusive(&layout.shard_lock(shard))?;
        let permit = SweepPermit { shard: shard.to_owned(), _lock: Some(lock) };
        let leased = holdings(layout)?;
        for blob in candidates {
            let old = changed(&layout.blob(&blob.digest))?.is_some_and(|at| at < self.before);
            if !old || leased.contains(&Holding::Blob(blob.digest.clone())) {
                report.kept += 1;
                report.kept_for_now += 1;
                report.kept_bytes += blob.size;
                continue;
            }
            if !self.dry_run {
                self.root.store().remove_blocking(&blob.digest, &permit)?;
            }
            report.freed.push(blob);
        }
        Ok(())
    }

    /// Returns those that no file holds, and counts the others.
    fn unheld(&self, blobs: Vec<BlobInfo>, report: &mut GcReport) -> Vec<BlobInfo> {
        let (held, unheld): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|blob| self.held.contains(&blob.digest));
        report.kept += held.len() as u64;
        report.kept_bytes += held.iter().map(|blob| blob.size).sum::<u64>();
        unheld
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::local::RootOptions;
    use crate::repository::Space;
    use crate::testing;

    struct World {
        root: Arc<Root>,
        _directory: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let directory = tempfile::tempdir().unwrap();
            let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
            World { root, _directory: directory }
        }

        fn put(&self, bytes: &[u8], lease: &crate::Lease) -> Digest {
            testing::put(&self.root, lease, bytes)
        }

        fn collect(&self, grace: Duration) -> GcReport {
            std::thread::sleep(2 * CLOCK_GRAIN);
            let options = GcOptions { grace, ..GcOptions::default() };
            collect(&self.root, &options).unwrap()
        }
    }

    #[test]
    fn takes_what_nobody_holds_and_leaves_what_is_leased_linked_or_young() {
        let world = World::new();
        let lease = world.root.lease().unwrap();
        let leased = world.put(b"leased", &lease);
        let other = world.root.lease().unwrap();
        let (linked, loose) = (world.put(b"linked", &other), world.put(b"loose", &other));
        let app = world.root.repositories().repository(&Space::Hosted, &"app".parse().unwrap());
        app.link_blob(&linked).unwrap();
        other.release();
        let report = world.collect(Duration::from_secs(60));
        assert_eq!((report.freed.len(), report.kept, report.kept_for_now), (0, 3, 2));
        // The link is old, and no manifest needs it: it goes first, and the blob with it.
        let report = world.collect(Duration::ZERO);
        let freed: HashSet<_> = report.freed.into_iter().map(|blob| blob.digest).collect();
        assert_eq!(freed, HashSet::from([linked, loose]));
        assert_eq!(report.unlinked, 1);
        assert!(world.root.store().stat_blocking(&leased).unwrap().is_some());
        lease.release();
        assert_eq!(world.collect(Duration::ZERO).freed.len(), 1);
    }

    #[test]
    fn a_dry_run_deletes_nothing() {
        let world = World::new();
        let lease = world.root.lease().unwrap();
        let loose = world.put(b"loose", &lease);
        lease.release();
        std::thread::sleep(2 * CLOCK_GRAIN);
        let options = GcOptions { grace: Duration::ZERO, dry_run: true, ..GcOptions::default() };
        assert_eq!(collect(&world.root, &options).unwrap().freed.len(), 1);
        assert!(world.root.store().stat_blocking(&loose).unwrap().is_some());
    }

    #[test]
    fn an_ingest_that_nobody_goes_on_with_is_given_up() {
        let world = World::new();
        let lease = world.root.lease().unwrap();
        let key = IngestKey::random();
        let ingest = world.root.store().ingest_blocking(&key, &lease).unwrap();
        let options = GcOptions { stale_after: Duration::ZERO, ..GcOptions::default() };
        std::thread::sleep(2 * CLOCK_GRAIN);
        assert_eq!(collect(&world.root, &options).unwrap().abandoned, 0, "it is being written");
        drop(ingest);
        assert_eq!(collect(&world.root, &options).unwrap().abandoned, 1);
        assert!(!world.root.layout().ingest(&key).exists());
    }
}
