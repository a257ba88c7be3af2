//! Files of others that become blobs, and blobs that become files of others: by sharing their bytes
//! where the file system can, else by copying them.
//!
//! A copy is hashed while its bytes pass. What shares bytes is read once to be hashed, if it comes
//! from outside: nothing gets a blob's name unseen.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use boatyard_oci::{Digest, Hasher};
use fs_err as fs;

use crate::ingest::IngestKey;
use crate::lease::{Holding, Lease};
use crate::local::layout::shard_name;
use crate::local::{Lock, Root, make_directories};
use crate::store::{BlobInfo, Doing as _, StoreError};

/// How bytes may be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// By reflink, or else by hard link: what damages one file in its place damages the other.
    Links,
    /// By reflink alone.
    #[default]
    Reflinks,
}

/// How a file came to where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was there.
    AlreadyThere,
    /// It shares its bytes with the other.
    Shared,
    /// It was copied.
    Copied,
}

/// Makes a blob of a file. The file must not be written any more. The blob joins the lease.
///
/// # Errors
/// [`StoreError::DigestMismatch`] where the file's bytes have another digest; or where it cannot be
/// read, or the blob not be written.
pub fn take_in(
    root: &Root,
    from: &Path,
    digest: &Digest,
    lease: &Lease,
    sharing: Sharing,
) -> Result<(BlobInfo, Came), StoreError> {
    let size = fs::metadata(from).doing("look at a file")?.len();
    if let Some(there) = root.store().hold_blocking(digest, Some(lease))?
        && there.size == size
    {
        return Ok((there, Came::AlreadyThere));
    }
    let (layout, disk) = (root.layout(), &*root.shared().disk);
    // It has the form of an ingest: what a killed process leaves is found by the collector.
    let directory = layout.ingest(&IngestKey::random());
    make_directories(disk, &directory)?;
    let data = directory.join("data");
    let came = bring(from, &data, digest, sharing, true);
    let landed = came.and_then(|came| {
        let shard = layout.shard(digest);
        make_directories(disk, &shard)?;
        let _shared = Lock::shared(&layout.shard_lock(shard_name(digest)))?;
        lease.add(&Holding::Blob(digest.clone()))?;
        disk.rename(&data, &layout.blob(digest)).doing("give a blob its name")?;
        disk.sync_directory(&shard).doing("sync the directory of a blob")?;
        Ok((BlobInfo { digest: digest.clone(), size }, came))
    });
    if landed.is_err() {
        let _ = disk.remove_file(&data);
    }
    let _ = disk.remove_directory(&directory);
    landed
}

/// Writes a blob into a file of others, which must not be there, and syncs it. What shares its bytes
/// is not read.
///
/// # Errors
/// [`StoreError::DigestMismatch`] where the blob is damaged; or where it cannot be read, or the file
/// not be written. The file is not there then.
pub(crate) fn give_out(
    root: &Root,
    digest: &Digest,
    to: &Path,
    sharing: Sharing,
) -> Result<Came, StoreError> {
    bring(&root.layout().blob(digest), to, digest, sharing, false)
}

/// Brings a file's bytes to a new file.
fn bring(
    from: &Path,
    to: &Path,
    digest: &Digest,
    sharing: Sharing,
    is_unseen: bool,
) -> Result<Came, StoreError> {
    let brought = try_bring(from, to, digest, sharing, is_unseen);
    if brought.is_err() {
        let _ = fs::remove_file(to);
    }
    brought
}

fn try_bring(
    from: &Path,
    to: &Path,
    digest: &Digest,
    sharing: Sharing,
    is_unseen: bool,
) -> Result<Came, StoreError> {
    let mut source = fs::File::open(from).doing("open a file")?;
    let target = fs::File::create_new(to).doing("create a file")?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        if is_unseen {
            check(&mut source, digest)?;
        }
        finish(&target)?;
        return Ok(Came::Shared);
    }
    if sharing == Sharing::Links {
        fs::remove_file(to).doing("make room for a link")?;
        if fs::hard_link(from, to).is_ok() {
            if is_unseen {
                check(&mut source, digest)?;
            }
            source.sync_all().doing("sync a file")?;
            return Ok(Came::Shared);
        }
        let target = fs::File::create_new(to).doing("create a file")?;
        copy(&mut source, target, digest)?;
        return Ok(Came::Copied);
    }
    copy(&mut source, target, digest)?;
    Ok(Came::Copied)
}

fn finish(target: &fs::File) -> Result<(), StoreError> {
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    target.file().set_permissions(read_only).doing("make a file read-only")?;
    target.sync_all().doing("sync a file")
}

fn copy(source: &mut fs::File, mut target: fs::File, digest: &Digest) -> Result<(), StoreError> {
    let mut hasher = Hasher::new(digest.algorithm());
    pass(source, |bytes| {
        hasher.update(bytes);
        target.write_all(bytes)
    })?;
    agree(digest, hasher.finish())?;
    finish(&target)
}

/// Reads a file and compares its digest.
///
/// # Errors
/// [`StoreError::DigestMismatch`] where it has another; or where it cannot be read.
pub(crate) fn check(source: &mut fs::File, digest: &Digest) -> Result<(), StoreError> {
    let mut hasher = Hasher::new(digest.algorithm());
    pass(source, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    agree(digest, hasher.finish())
}

fn agree(expected: &Digest, got: Digest) -> Result<(), StoreError> {
    if got == *expected {
        return Ok(());
    }
    Err(StoreError::DigestMismatch { expected: expected.clone(), got })
}

fn pass(
    source: &mut fs::File,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read]).doing("write a file")?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing("read a file"),
        }
    }
}
