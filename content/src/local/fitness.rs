//! Whether a file system can hold a root.
//!
//! Nothing is concluded from its name: network file systems may or may not lock, depending on
//! server and mount options, and what a container calls `overlay` lies on anything. So everything
//! that the store relies on is tried in a temporary directory. It takes a few milliseconds, and is
//! done when a root is made; `boatyard doctor` shows all of it.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use fs_err as fs;
use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, StatVfs, XattrFlags, flock, openat, setxattr, statfs,
    statvfs,
};
use rustix::io::Errno;

/// What is asked of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A lock that one process holds keeps another out.
    Locks,
    /// A file that is renamed replaces another, at once.
    Rename,
    /// Files and directories can be synced.
    Sync,
    /// `a` and `A` are two names.
    Case,
    /// Modes are kept.
    Modes,
    /// Symbolic and hard links.
    Links,
    /// Extended attributes: capabilities of programs.
    Attributes,
    /// Files without a name.
    Unnamed,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 8] = [
        Feature::Locks,
        Feature::Rename,
        Feature::Sync,
        Feature::Case,
        Feature::Modes,
        Feature::Links,
        Feature::Attributes,
        Feature::Unnamed,
    ];

    /// Returns whether a root cannot be without it.
    #[must_use]
    pub fn is_needed(self) -> bool {
        !matches!(self, Feature::Attributes | Feature::Unnamed)
    }

    /// Returns what is to be done where it is missing.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Feature::Locks => {
                "NFS locks with version 4, or with `local_lock=none` and lockd on both sides; \
                 better is a disk of this machine"
            }
            Feature::Attributes => "capabilities of programs in images are lost here",
            Feature::Unnamed => "nothing: files get temporary names instead",
            Feature::Rename | Feature::Sync | Feature::Case | Feature::Modes | Feature::Links => {
                "use a file system of Linux's own, such as ext4, xfs or btrfs"
            }
        }
    }

    fn test(self, directory: &Path) -> io::Result<()> {
        match self {
            Feature::Locks => locks(directory),
            Feature::Rename => rename(directory),
            Feature::Sync => sync(directory),
            Feature::Case => case(directory),
            Feature::Modes => modes(directory),
            Feature::Links => links(directory),
            Feature::Attributes => attributes(directory),
            Feature::Unnamed => unnamed(directory),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::Locks => "locks",
            Feature::Rename => "atomic rename",
            Feature::Sync => "sync",
            Feature::Case => "names that differ in case",
            Feature::Modes => "modes",
            Feature::Links => "links",
            Feature::Attributes => "extended attributes",
            Feature::Unnamed => "files without a name",
        })
    }
}

/// What a file system lacks.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Missing {
    /// What.
    pub feature: Feature,
    /// What happened when it was tried.
    pub why: io::Error,
}

/// A file system, as seen from a directory in it.
#[derive(Debug)]
pub struct FileSystem {
    /// Its name: `ext4`, `overlay`; a number where we know none.
    pub kind: String,
    /// How many bytes this user may still write.
    pub bytes_free: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many files can still be made; `None` where that is not counted.
    pub files_free: Option<u64>,
    /// What it lacks.
    pub missing: Vec<Missing>,
}

impl FileSystem {
    /// Examines the file system of an existing directory, in which files can be made.
    ///
    /// # Errors
    /// Where nothing can be made in it, so nothing can be tried.
    pub fn examine(directory: &Path) -> io::Result<FileSystem> {
        let StatVfs { f_bavail, f_frsize, f_blocks, f_files, f_favail, .. } = statvfs(directory)?;
        Ok(FileSystem {
            kind: kind(directory)?,
            bytes_free: f_bavail.saturating_mul(f_frsize),
            bytes: f_blocks.saturating_mul(f_frsize),
            files_free: (f_files > 0).then_some(f_favail),
            missing: missing(directory, &Feature::ALL)?,
        })
    }

    /// Returns what a root cannot be without, if that is missing.
    #[must_use]
    pub fn unfit(&self) -> Option<&Missing> {
        self.missing.iter().find(|missing| missing.feature.is_needed())
    }
}

/// Returns the first thing that a root needs and the file system of `directory` lacks.
pub(super) fn unfit(directory: &Path) -> io::Result<Option<Missing>> {
    let needed: Vec<_> = Feature::ALL.into_iter().filter(|feature| feature.is_needed()).collect();
    Ok(missing(directory, &needed)?.into_iter().next())
}

/// Returns the name of the file system of a directory.
///
/// # Errors
/// Where the directory cannot be examined.
pub fn kind(directory: &Path) -> io::Result<String> {
    let number = statfs(directory)?.f_type;
    // linux/magic.h, and the file systems' own headers.
    Ok(match u32::try_from(number & 0xffff_ffff).unwrap_or_default() {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xca45_1a4e => "bcachefs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x0102_1997 => "9p",
        0x6573_5546 => "fuse",
        0x00c3_6400 => "ceph",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x7366_746e => "ntfs3",
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        other => return Ok(format!("{other:#x}")),
    }
    .to_owned())
}

fn missing(directory: &Path, features: &[Feature]) -> io::Result<Vec<Missing>> {
    // The prefix tells another process that opens the same new root that this is no stranger's.
    let scratch = tempfile::Builder::new().prefix(".new-fitness-").tempdir_in(directory)?;
    let mut missing = Vec::new();
    for &feature in features {
        let own = scratch.path().join(format!("{feature:?}"));
        fs::create_dir(&own)?;
        if let Err(why) = feature.test(&own) {
            missing.push(Missing { feature, why });
        }
    }
    Ok(missing)
}

fn locks(directory: &Path) -> io::Result<()> {
    let path = directory.join("lock");
    let (first, second) = (fs::File::create(&path)?, fs::File::open(&path)?);
    flock(&first, FlockOperation::NonBlockingLockShared)?;
    flock(&second, FlockOperation::NonBlockingLockShared)?;
    match flock(&second, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(errno.into()),
        Ok(()) => return Err(io::Error::other("two processes can hold one lock")),
    }
    // A lock is given up by closing the file.
    drop(first);
    Ok(flock(&second, FlockOperation::NonBlockingLockExclusive)?)
}

fn rename(directory: &Path) -> io::Result<()> {
    let (old, new) = (directory.join("old"), directory.join("new"));
    fs::write(&old, "old")?;
    fs::write(&new, "new")?;
    fs::rename(&new, &old)?;
    if fs::read(&old)? != b"new" || new.exists() {
        return Err(io::Error::other("a renamed file does not replace another"));
    }
    // An unpacked layer gets its name so.
    fs::create_dir_all(directory.join("tree/full"))?;
    fs::rename(directory.join("tree"), directory.join("layer"))
}

fn sync(directory: &Path) -> io::Result<()> {
    let mut file = fs::File::create(directory.join("file"))?;
    file.write_all(b"bytes")?;
    file.sync_all()?;
    fs::File::open(directory)?.sync_all()
}

fn case(directory: &Path) -> io::Result<()> {
    fs::write(directory.join("name"), "small")?;
    fs::write(directory.join("NAME"), "large")?;
    match fs::read(directory.join("name"))?.as_slice() {
        b"small" => Ok(()),
        _ => Err(io::Error::other("it takes `name` and `NAME` for one file")),
    }
}

fn modes(directory: &Path) -> io::Result<()> {
    let path = directory.join("file");
    fs::write(&path, "")?;
    for mode in [0o400, 0o4751] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        let found = fs::metadata(&path)?.permissions().mode() & 0o7777;
        if found != mode {
            return Err(io::Error::other(format!("a file of mode {mode:o} has {found:o}")));
        }
    }
    Ok(())
}

fn links(directory: &Path) -> io::Result<()> {
    let path = directory.join("file");
    fs::write(&path, "")?;
    fs::hard_link(&path, directory.join("hard"))?;
    symlink("file", directory.join("soft"))
}

fn attributes(directory: &Path) -> io::Result<()> {
    let path = directory.join("file");
    fs::write(&path, "")?;
    Ok(setxattr(&path, "user.boatyard", b"value", XattrFlags::empty())?)
}

fn unnamed(directory: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_file_system_is_fit() {
        let directory = tempfile::tempdir().unwrap();
        let examined = FileSystem::examine(directory.path()).unwrap();
        assert!(examined.unfit().is_none(), "{:?}", examined.missing);
        assert!(examined.bytes_free <= examined.bytes);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn where_nothing_can_be_made_nothing_can_be_kept() {
        assert!(FileSystem::examine(Path::new("/proc/self")).is_err());
        assert!(FileSystem::examine(Path::new("/nowhere")).is_err());
    }
}
