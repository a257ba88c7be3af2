//! Taking a snapshot.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use boatyard_oci::{Digest, Reference};
use fs_err as fs;
use jiff::Timestamp;

use super::snapshot::{BlobLine, End, FileLine, Head, Line, RepositoryLine, SnapshotName, TagLine};
use super::{Backup, BackupError};
use crate::Lease;
use crate::generations;
use crate::holders::{self, Holder};
use crate::local::adopt::{self, Came, Sharing};
use crate::local::{Root, entries};
use crate::repository::{Repository, RepositoryError};
use crate::store::{BlobInfo, Doing as _, StoreError};

/// What is kept as files, beside repositories: whose loss nothing else makes good.
const KEPT: [&str; 3] = ["access", "packages", "generations"];
/// What can be fetched or made again.
const CACHED: [&str; 2] = ["entries", "cache/encodings"];
/// A larger file is none of ours.
const FILE_LEN_MAX: u64 = 64 << 20;

/// What to back up.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// Also what can be fetched again: mirrors, the cache proxy's entries, the build cache's layers.
    pub with_cache: bool,
    /// How blobs share their bytes with the backup, where it lies on the same file system.
    pub sharing: Sharing,
    /// Other small files, under the names that they are to have: the configuration.
    pub also: Vec<(String, Vec<u8>)>,
}

/// What was backed up.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The snapshot.
    pub name: SnapshotName,
    /// How many repositories it has.
    pub repositories: u64,
    /// How many tags these have.
    pub tags: u64,
    /// How many blobs it needs.
    pub blobs: u64,
    /// How many of these were new to the backup.
    pub new: u64,
    /// How many bytes the new ones have.
    pub new_bytes: u64,
    /// What is needed and was not there, or was damaged.
    pub lost: Vec<Digest>,
}

/// Takes a snapshot of a root. `seen` is told of each blob that is in the backup then.
///
/// # Errors
/// Where something cannot be read or written. No snapshot is left then; the blobs that came are,
/// and the next one needs not bring them again.
pub fn take(
    root: &Root,
    backup: &Backup,
    options: &BackupOptions,
    seen: &mut dyn FnMut(&BlobInfo, Came),
) -> Result<Taken, BackupError> {
    let taken = Timestamp::now();
    let lease = root.lease()?;
    let mut take =
        Take { root, lease, blobs: BTreeMap::new(), lost: Vec::new(), lines: Vec::new() };
    for repository in root.repositories().all()? {
        if options.with_cache || !repository.is_mirrored() {
            take.repository(&repository)?;
        }
    }
    let files = KEPT.iter().chain(CACHED.iter().filter(|_| options.with_cache));
    for name in files {
        take.files(&root.path().join(name))?;
    }
    take.held(options.with_cache)?;
    for (path, bytes) in &options.also {
        let (path, bytes) = (path.clone(), bytes.clone());
        take.lines.push(Line::File(FileLine { path, mode: 0o600, modified: None, bytes }));
    }
    let (new, new_bytes) = take.copy(backup, options.sharing, seen)?;
    let name = take.write(backup, taken, options.with_cache)?;
    let count = |is: fn(&Line) -> u64| take.lines.iter().map(is).sum();
    Ok(Taken {
        name,
        repositories: count(|line| u64::from(matches!(line, Line::Repository(_)))),
        tags: count(|line| match line {
            Line::Repository(repository) => repository.tags.len() as u64,
            _ => 0,
        }),
        blobs: take.blobs.len() as u64,
        new,
        new_bytes,
        lost: take.lost,
    })
}

/// A snapshot that is being taken.
struct Take<'a> {
    root: &'a Root,
    /// Holds every blob of the snapshot until it is in the backup.
    lease: Lease,
    blobs: BTreeMap<Digest, u64>,
    lost: Vec<Digest>,
    lines: Vec<Line>,
}

impl Take<'_> {
    /// Notes a repository as it is in one moment, and holds what it needs.
    fn repository(&mut self, repository: &Repository) -> Result<(), RepositoryError> {
        let _still = repository.hold_still()?;
        let mut line = RepositoryLine {
            key: repository.key().to_owned(),
            manifests: BTreeMap::new(),
            tags: BTreeMap::new(),
            blobs: repository.blobs()?,
            used: BTreeMap::new(),
            is_public: repository.is_public()?,
        };
        let mut use_of = |reference: Reference| {
            let used = repository.last_used(&reference)?.and_then(seconds);
            line.used.extend(used.map(|used| (reference.to_string(), used)));
            Ok::<_, RepositoryError>(())
        };
        for digest in repository.manifests()? {
            let Some(stored) = repository.manifest(&digest)? else { continue };
            for needed in repository.refs(&digest)? {
                self.hold(&needed, !repository.is_mirrored())?;
            }
            self.hold(&digest, true)?;
            use_of(Reference::Digest(digest.clone()))?;
            line.manifests.insert(digest, stored.media_type);
        }
        let mut tags = Vec::new();
        repository.each_tag(|tag| {
            tags.push(tag);
            Ok(())
        })?;
        for tag in tags {
            // One that cannot be read names nothing; fsck tells of it.
            let Ok(Some(digest)) = repository.tag(&tag) else { continue };
            let written = repository.tag_confirmed(&tag)?.and_then(seconds);
            use_of(Reference::Tag(tag.clone()))?;
            line.tags.insert(tag, TagLine { digest, written });
        }
        for blob in &line.blobs {
            self.hold(blob, false)?;
        }
        self.lines.push(Line::Repository(line));
        Ok(())
    }

    /// Holds a blob until it is in the backup.
    fn hold(&mut self, digest: &Digest, is_needed: bool) -> Result<(), StoreError> {
        if self.blobs.contains_key(digest) {
            return Ok(());
        }
        match self.root.store().hold_blocking(digest, Some(&self.lease))? {
            Some(blob) => drop(self.blobs.insert(blob.digest, blob.size)),
            None if is_needed && !self.lost.contains(digest) => self.lost.push(digest.clone()),
            None => {}
        }
        Ok(())
    }

    /// Holds what others than repositories hold.
    fn held(&mut self, with_cache: bool) -> Result<(), BackupError> {
        let mut held = Vec::new();
        holders::each(self.root, &mut |blob, holder| {
            let is_wanted = match holder {
                Holder::Link(_) | Holder::Manifest(_) | Holder::Needed { .. } => false,
                Holder::Layer(_) | Holder::Entry(_) => with_cache,
                // Whatever else has a name is kept.
                _ => true,
            };
            if is_wanted && !self.blobs.contains_key(blob) {
                held.push(blob.clone());
            }
        })?;
        held.sort_unstable();
        held.dedup();
        held.iter().try_for_each(|blob| self.hold(blob, false))?;
        Ok(())
    }

    /// Notes the small files below a directory.
    fn files(&mut self, directory: &Path) -> Result<(), BackupError> {
        for entry in entries(directory) {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".new-") {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().doing("look at a file")?;
            if kind.is_dir() {
                self.files(&path)?;
            } else if kind.is_file() && name != "lock" {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), BackupError> {
        let below = path.strip_prefix(self.root.path()).unwrap_or(path);
        let (Some(below), Ok(metadata)) = (below.to_str(), fs::metadata(path)) else {
            return Ok(());
        };
        if metadata.len() > FILE_LEN_MAX {
            return Ok(());
        }
        // The name of a file of a generation holds a blob: without it, it would be in nobody's way.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if below.starts_with("generations/")
            && let Some(blob) = generations::blob(name)
        {
            self.hold(&blob, false)?;
            if !self.blobs.contains_key(&blob) {
                return Ok(());
            }
        }
        let bytes = match fs::read(path) {
            // It was given up meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.doing("read a file")?,
        };
        self.lines.push(Line::File(FileLine {
            path: below.to_owned(),
            mode: metadata.mode() & 0o777,
            modified: metadata.modified().ok().and_then(seconds),
            bytes,
        }));
        Ok(())
    }

    /// Brings what the backup lacks, and returns how many blobs and bytes that were.
    fn copy(
        &mut self,
        backup: &Backup,
        sharing: Sharing,
        seen: &mut dyn FnMut(&BlobInfo, Came),
    ) -> Result<(u64, u64), BackupError> {
        let (mut new, mut new_bytes) = (0, 0);
        let mut lost = Vec::new();
        for (digest, &size) in &self.blobs {
            let blob = BlobInfo { digest: digest.clone(), size };
            let place = backup.blob_path(digest);
            if fs::metadata(&place).is_ok_and(|there| there.len() == size) {
                seen(&blob, Came::AlreadyThere);
                continue;
            }
            let staged = backup.staging();
            match adopt::give_out(self.root, digest, &staged, sharing) {
                Ok(came) => {
                    backup.publish(&staged, &place)?;
                    new += 1;
                    new_bytes += size;
                    seen(&blob, came);
                }
                // What is damaged here is not made the last copy of it; fsck tells of it.
                Err(StoreError::DigestMismatch { .. }) => lost.push(digest.clone()),
                // So it was quarantined meanwhile.
                Err(_) if self.root.store().stat_blocking(digest)?.is_none() => {
                    lost.push(digest.clone());
                }
                Err(error) => return Err(error.into()),
            }
        }
        for digest in lost {
            self.blobs.remove(&digest);
            self.lost.push(digest);
        }
        Ok((new, new_bytes))
    }

    fn write(
        &self,
        backup: &Backup,
        taken: Timestamp,
        with_cache: bool,
    ) -> Result<SnapshotName, BackupError> {
        let mut number = 1;
        while backup.snapshot_path(&SnapshotName::of(taken, number)).exists() {
            number += 1;
        }
        let name = SnapshotName::of(taken, number);
        let head = Head { format: 1, taken, root: self.root.path().to_path_buf(), with_cache };
        let mut end = End { blobs: self.blobs.len() as u64, ..End::default() };
        backup.write(&backup.snapshot_path(&name), |to| {
            let mut put = |line: &Line| {
                serde_json::to_writer(&mut *to, line)?;
                to.write_all(b"\n")
            };
            put(&Line::Head(head))?;
            for line in &self.lines {
                match line {
                    Line::Repository(_) => end.repositories += 1,
                    _ => end.files += 1,
                }
                put(line)?;
            }
            for (digest, &size) in &self.blobs {
                end.bytes += size;
                put(&Line::Blob(BlobLine { digest: digest.clone(), size }))?;
            }
            put(&Line::End(end))
        })?;
        Ok(name)
    }
}

fn seconds(at: SystemTime) -> Option<i64> {
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}
