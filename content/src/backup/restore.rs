//! Restoring a snapshot.
//!
//! Blobs first, each read and compared, then what names them. Into an empty root that is one thing:
//! as long as the file `restoring` is there, nobody else opens the root, and a restore that is run
//! again goes on. Into one that is in use it only adds: a tag that is there stays where it points.

use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boatyard_oci::{Digest, Manifest, Reference, Tag};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use super::snapshot::{FileLine, Line, RepositoryLine, SnapshotName};
use super::{Backup, BackupError, sync};
use crate::Lease;
use crate::local::adopt::{self, Came, Sharing};
use crate::local::{Root, entries, temporary_name, write_whole};
use crate::repository::Repository;
use crate::store::{BlobInfo, Doing as _, StoreError};

/// Below which directories of a root files may be restored.
const FILES: [&str; 4] = ["access", "packages", "generations", "entries"];
/// What an empty root has.
const NOTHING: [&str; 8] =
    ["version", "locks", "leases", "journal", "index", "lost+found", "ingest", "restoring"];

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Adds to what is there.
    pub into_existing: bool,
}

/// What was restored.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// How many repositories got something.
    pub repositories: u64,
    /// How many tags were written.
    pub tags: u64,
    /// The tags that pointed elsewhere and stayed, as `repository:tag`.
    pub kept: Vec<String>,
    /// How many blobs the snapshot has.
    pub blobs: u64,
    /// How many of these came.
    pub new: u64,
    /// What the backup does not have, or has damaged; what needs it is not restored.
    pub lost: Vec<Digest>,
    /// The manifests that were left out because they need something that is lost, as
    /// `repository@digest`.
    pub left_out: Vec<String>,
    /// The files of others that the snapshot has: the configuration.
    pub also: Vec<(String, Vec<u8>)>,
}

/// Restores a snapshot into a root: one that was opened alone, or, to add to what is there, with
/// others.
///
/// # Errors
/// Where the root has something in it, or a file cannot be read or written. A restore into an empty
/// root is not to be seen by others then; run it again to go on.
pub fn restore(
    backup: &Backup,
    name: &SnapshotName,
    root: &Root,
    options: &RestoreOptions,
    seen: &mut dyn FnMut(&BlobInfo),
) -> Result<Restored, BackupError> {
    // First, so that a damaged snapshot changes nothing.
    backup.describe(name)?;
    if !options.into_existing {
        begin(root, name)?;
    }
    let lease = root.lease()?;
    let mut restored = Restored::default();
    backup.read(name, &mut |line| match line {
        Line::Blob(blob) => bring(backup, root, &lease, &blob.digest, seen, &mut restored),
        _ => Ok(()),
    })?;
    let mut work = Work { root, lease: &lease, restored, options };
    backup.read(name, &mut |line| match line {
        Line::Repository(repository) => work.repository(&repository),
        Line::File(file) => work.file(&file),
        _ => Ok(()),
    })?;
    if !options.into_existing {
        fs::remove_file(root.layout().restoring()).doing("end a restore")?;
        sync(root.path())?;
    }
    Ok(work.restored)
}

/// Says that the root is being restored. One that is not empty must have been so before.
fn begin(root: &Root, name: &SnapshotName) -> Result<(), BackupError> {
    let marker = root.layout().restoring();
    match fs::read_to_string(&marker) {
        Ok(text) if text.trim_end() == name.as_str() => return Ok(()),
        Ok(text) => {
            return Err(BackupError::Restoring {
                path: root.path().to_path_buf(),
                under_way: text.trim_end().to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::Io { doing: "begin a restore", source: error }.into()),
    }
    for entry in entries(root.path()) {
        let entry = entry?;
        let name = entry.file_name();
        let is_nothing = NOTHING.iter().any(|nothing| name == *nothing)
            || name.as_encoded_bytes().starts_with(b".new-")
            || is_bare(&entry.path())?;
        if !is_nothing {
            return Err(BackupError::Occupied { path: root.path().to_path_buf() });
        }
    }
    Ok(write_whole(&marker, format!("{name}\n").as_bytes())?)
}

/// Says whether there is no file below a directory.
fn is_bare(path: &Path) -> Result<bool, StoreError> {
    if !path.is_dir() {
        return Ok(false);
    }
    for entry in entries(path) {
        if !is_bare(&entry?.path())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn bring(
    backup: &Backup,
    root: &Root,
    lease: &Lease,
    digest: &Digest,
    seen: &mut dyn FnMut(&BlobInfo),
    restored: &mut Restored,
) -> Result<(), BackupError> {
    restored.blobs += 1;
    let path = backup.blob_path(digest);
    match adopt::take_in(root, &path, digest, lease, Sharing::Reflinks) {
        Ok((blob, came)) => {
            restored.new += u64::from(came != Came::AlreadyThere);
            seen(&blob);
        }
        Err(StoreError::DigestMismatch { .. }) => restored.lost.push(digest.clone()),
        Err(_) if !path.exists() => restored.lost.push(digest.clone()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

struct Work<'a> {
    root: &'a Root,
    lease: &'a Lease,
    restored: Restored,
    options: &'a RestoreOptions,
}

impl Work<'_> {
    fn repository(&mut self, line: &RepositoryLine) -> Result<(), BackupError> {
        let Some(repository) = self.root.repositories().by_key(&line.key) else { return Ok(()) };
        self.restored.repositories += 1;
        for blob in &line.blobs {
            if self.root.store().hold_blocking(blob, Some(self.lease))?.is_some() {
                repository.link_blob(blob)?;
            }
        }
        for (digest, media_type) in &line.manifests {
            if repository.manifest(digest)?.is_some() {
                continue;
            }
            let parsed = self
                .manifest(digest)
                .and_then(|bytes| Manifest::parse_expecting(bytes, media_type, digest).ok());
            let is_whole = |manifest: &boatyard_oci::Raw<Manifest>| {
                let mut blobs = manifest.value().blobs().into_iter();
                !blobs.any(|blob| self.restored.lost.contains(&blob.digest))
            };
            match parsed.filter(is_whole) {
                Some(manifest) => repository.put_manifest(&manifest, media_type, &[])?,
                None => self.restored.left_out.push(format!("{}@{digest}", line.key)),
            }
        }
        for (tag, to) in &line.tags {
            self.tag(&repository, tag, &to.digest, to.written)?;
        }
        for (name, used) in &line.used {
            if let Ok(reference) = name.parse::<Reference>() {
                repository.set_used(&reference, time(*used))?;
            }
        }
        if line.is_public {
            repository.set_public(true)?;
        }
        Ok(())
    }

    fn manifest(&self, digest: &Digest) -> Option<bytes::Bytes> {
        let file = self.root.store().open_blocking(digest).ok()??;
        crate::Blob::File(file).into_bytes(Manifest::SIZE_MAX).ok()
    }

    fn tag(
        &mut self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        written: Option<i64>,
    ) -> Result<(), BackupError> {
        if repository.manifest(digest)?.is_none() {
            return Ok(());
        }
        match repository.tag(tag) {
            Ok(Some(there)) if there == *digest => return Ok(()),
            Ok(Some(_)) if self.options.into_existing => {
                self.restored.kept.push(format!("{}:{tag}", repository.key()));
                return Ok(());
            }
            _ => {}
        }
        repository.set_tags(std::slice::from_ref(tag), digest)?;
        if let Some(written) = written {
            repository.confirm_tag(tag, time(written))?;
        }
        self.restored.tags += 1;
        Ok(())
    }

    /// Writes a small file, unless there is one.
    fn file(&mut self, file: &FileLine) -> Result<(), BackupError> {
        let Some(place) = place(self.root.path(), &file.path) else {
            self.restored.also.push((file.path.clone(), file.bytes.clone()));
            return Ok(());
        };
        if place.exists() {
            return Ok(());
        }
        write(&place, file).map_err(BackupError::from)
    }
}

/// Returns where a file of a snapshot goes, if it may go into a root at all.
fn place(root: &Path, below: &str) -> Option<PathBuf> {
    let path = Path::new(below);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_ours =
        FILES.iter().any(|known| path.starts_with(known)) || path.starts_with("cache/encodings");
    (is_plain && is_ours).then(|| root.join(path))
}

fn write(place: &Path, file: &FileLine) -> Result<(), StoreError> {
    let directory = place.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        fs::create_dir_all(directory).doing("create a directory")?;
        if file.path.starts_with("access/") {
            let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(directory, closed).doing("close a directory to others")?;
        }
    }
    let staged = directory.join(temporary_name());
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(file.mode & 0o777);
    let mut written = options.open(&staged).doing("create a file")?;
    written.write_all(&file.bytes).doing("write a file")?;
    if let Some(modified) = file.modified {
        written.file().set_modified(time(modified)).doing("set a file's time")?;
    }
    written.sync_all().doing("sync a file")?;
    fs::rename(&staged, place).doing("put a file in its place")?;
    sync(directory)
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
