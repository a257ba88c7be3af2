//! Looking after a backup: reading it again, and giving up what is old.

use std::collections::{BTreeMap, BTreeSet};

use boatyard_oci::{Algorithm, Digest};
use fs_err as fs;

use super::snapshot::{Line, SnapshotName};
use super::{Backup, BackupError, sync};
use crate::local::{adopt, entries};
use crate::store::{Doing as _, StoreError};

/// What came of reading a backup again.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The snapshots that are whole.
    pub whole: Vec<SnapshotName>,
    /// Those that cannot be restored, each with why.
    pub broken: Vec<(SnapshotName, String)>,
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The blobs that are not what their names say, or not there.
    pub lost: Vec<Digest>,
}

/// Reads every blob that a snapshot names, and every snapshot. What is wrong is moved out of the way,
/// so that the next backup brings it anew.
///
/// # Errors
/// Where directories cannot be listed.
pub fn verify(
    backup: &Backup,
    only: Option<&SnapshotName>,
    seen: &mut dyn FnMut(u64),
) -> Result<Verified, BackupError> {
    let mut verified = Verified::default();
    let mut needed: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut snapshots = Vec::new();
    for name in backup.snapshots()? {
        if only.is_some_and(|only| *only != name) {
            continue;
        }
        let mut blobs = Vec::new();
        let read = backup.read(&name, &mut |line| {
            if let Line::Blob(blob) = line {
                blobs.push(blob);
            }
            Ok(())
        });
        match read {
            Ok(_) => {
                needed.extend(blobs.iter().map(|blob| (blob.digest.clone(), blob.size)));
                snapshots.push((name, blobs));
            }
            Err(error) => verified.broken.push((name, error.to_string())),
        }
    }
    let mut lost = BTreeSet::new();
    for (digest, size) in needed {
        verified.blobs += 1;
        verified.bytes += size;
        if !is_whole(backup, &digest)? {
            lost.insert(digest);
        }
        seen(size);
    }
    for (name, blobs) in snapshots {
        match blobs.iter().filter(|blob| lost.contains(&blob.digest)).count() {
            0 => verified.whole.push(name),
            lost => verified.broken.push((name, format!("{lost} of its blobs are lost"))),
        }
    }
    verified.lost = lost.into_iter().collect();
    Ok(verified)
}

fn is_whole(backup: &Backup, digest: &Digest) -> Result<bool, StoreError> {
    let path = backup.blob_path(digest);
    let Ok(mut file) = fs::File::open(&path) else { return Ok(false) };
    match adopt::check(&mut file, digest) {
        Ok(()) => Ok(true),
        Err(_) => {
            let damaged = backup.path.join("damaged");
            fs::create_dir_all(&damaged).doing("create the directory of a backup")?;
            fs::rename(path, damaged.join(digest.to_string())).doing("move a damaged blob away")?;
            Ok(false)
        }
    }
}

/// What was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The snapshots.
    pub snapshots: Vec<SnapshotName>,
    /// How many blobs no other snapshot names.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// Gives up all but the newest snapshots, and the blobs that only they named. With `dry_run` nothing
/// is done, and it is said what would be.
///
/// # Errors
/// Where a snapshot that stays cannot be read: then nothing is given up.
pub fn prune(backup: &Backup, keep: usize, dry_run: bool) -> Result<Pruned, BackupError> {
    let mut snapshots = backup.snapshots()?;
    let stays = snapshots.split_off(snapshots.len().saturating_sub(keep.max(1)));
    let mut needed = BTreeSet::new();
    for name in &stays {
        backup.read(name, &mut |line| {
            if let Line::Blob(blob) = line {
                needed.insert(blob.digest);
            }
            Ok(())
        })?;
    }
    if !dry_run {
        for name in &snapshots {
            fs::remove_file(backup.snapshot_path(name)).doing("give up a snapshot")?;
        }
        // Before any blob goes: a snapshot that came back would lack it.
        sync(&backup.path.join("snapshots"))?;
    }
    let mut pruned = Pruned { snapshots, ..Pruned::default() };
    for algorithm in Algorithm::ALL {
        for shard in entries(&backup.path.join("blobs").join(algorithm.name())) {
            for blob in entries(&shard?.path()) {
                let blob = blob?;
                let name = blob.file_name();
                let digest = name.to_str().and_then(|hex| Digest::from_parts(algorithm, hex).ok());
                if digest.is_some_and(|digest| !needed.contains(&digest)) {
                    pruned.blobs += 1;
                    pruned.bytes += blob.metadata().doing("look at a blob")?.len();
                    if !dry_run {
                        fs::remove_file(blob.path()).doing("give up a blob of a backup")?;
                    }
                }
            }
        }
    }
    Ok(pruned)
}
