//! Backups: what a root held at moments in time, in a directory elsewhere.
//!
//! ```text
//! DIR/boatyard-backup             the format; whoever changes the backup holds a lock on it
//! DIR/blobs/<algorithm>/ab/<hex>  bytes that hash to their own name, once for all snapshots
//! DIR/snapshots/<time>            what there was, a line of JSON for each thing; see [`snapshot`]
//! DIR/staging/                    files without a name yet: what a killed backup leaves
//! DIR/damaged/                    blobs that [`verify`] found wrong: the next backup brings them anew
//! ```
//!
//! A snapshot is written last, whole, when all that it names is there and durable: so a backup that is
//! killed leaves no half of one, and the next goes on from the blobs that came. Each repository is
//! read while nothing can be taken from it, and what it names joins a lease in that moment; so every
//! image of a snapshot is whole, whatever is pushed, deleted and collected meanwhile.

mod keep;
mod restore;
mod snapshot;
mod take;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use boatyard_oci::Digest;
use fs_err as fs;
use rustix::fs::FlockOperation;

use crate::gc::GcError;
use crate::local::layout::shard_name;
use crate::local::lock_file;
use crate::repository::RepositoryError;
use crate::store::{Doing as _, StoreError};

pub use keep::{Pruned, Verified, prune, verify};
pub use restore::{RestoreOptions, Restored, restore};
pub use snapshot::{Head, Snapshot, SnapshotName};
pub use take::{BackupOptions, Taken, take};

/// What the format's file holds.
const FORMAT: &str = "boatyard backup 1\n";

/// Why a backup could not be taken, kept or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory is something else.
    #[error("{} is not a backup of Boatyard: it is not empty, and has no file `boatyard-backup`", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// There is no backup there.
    #[error("there is no backup in {}", path.display())]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else changes it just now.
    #[error("another process takes or prunes a backup in {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such snapshot.
    #[error("the backup in {} has no snapshot {name}", path.display())]
    NoSnapshot {
        /// The directory.
        path: PathBuf,
        /// What was asked for.
        name: String,
    },
    /// A snapshot cannot be read.
    #[error("the snapshot {} is damaged: {problem}", path.display())]
    Snapshot {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A blob of a snapshot is not there, or not what its name says.
    #[error("the backup has lost the blob {digest}")]
    Blob {
        /// Which.
        digest: Digest,
        /// How.
        #[source]
        source: StoreError,
    },
    /// The root that is to be restored has something in it.
    #[error("{} is not empty", path.display())]
    Occupied {
        /// The root.
        path: PathBuf,
    },
    /// Another snapshot was being restored into the root.
    #[error("the restore of snapshot {under_way} into {} has not come to its end", path.display())]
    Restoring {
        /// The root.
        path: PathBuf,
        /// Which one.
        under_way: String,
    },
    /// Who holds what could not be listed.
    #[error(transparent)]
    Holders(#[from] GcError),
    /// A repository cannot be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The directory of a backup.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: fs::File,
}

impl Backup {
    /// Opens a backup to change it, and makes it where there is none.
    ///
    /// # Errors
    /// Where the directory is something else, or somebody else changes it.
    pub fn open_or_make(path: &Path) -> Result<Backup, BackupError> {
        if !path.exists() {
            fs::create_dir_all(path).doing("create the directory of a backup")?;
            // It has password hashes and keys.
            let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(path, closed).doing("close a directory to others")?;
        }
        if !path.join("boatyard-backup").exists() {
            let is_ours = |name: &str| name == "lost+found" || name.starts_with(".new-");
            for entry in fs::read_dir(path).doing("list a directory")? {
                let name = entry.doing("list a directory")?.file_name();
                if !is_ours(&name.to_string_lossy()) {
                    return Err(BackupError::Foreign { path: path.to_path_buf() });
                }
            }
            crate::local::write_whole(&path.join("boatyard-backup"), FORMAT.as_bytes())?;
        }
        let backup = Backup::open_with(path, FlockOperation::NonBlockingLockExclusive)?;
        for directory in ["blobs", "snapshots"] {
            fs::create_dir_all(path.join(directory)).doing("create the directory of a backup")?;
        }
        let staging = path.join("staging");
        // Nobody else writes here now: it is of one who died.
        if staging.exists() {
            fs::remove_dir_all(&staging).doing("tidy up a backup")?;
        }
        fs::create_dir(staging).doing("create the directory of a backup")?;
        Ok(backup)
    }

    /// Opens a backup to change what is there.
    ///
    /// # Errors
    /// Where there is none, or somebody else changes it.
    pub fn open_to_change(path: &Path) -> Result<Backup, BackupError> {
        Backup::open_with(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Opens a backup to read it. Nobody prunes it meanwhile.
    ///
    /// # Errors
    /// Where there is none, or somebody changes it.
    pub fn open(path: &Path) -> Result<Backup, BackupError> {
        Backup::open_with(path, FlockOperation::NonBlockingLockShared)
    }

    fn open_with(path: &Path, lock: FlockOperation) -> Result<Backup, BackupError> {
        let file = match fs::File::open(path.join("boatyard-backup")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::Nothing { path: path.to_path_buf() });
            }
            file => file.doing("open a backup")?,
        };
        let text = fs::read_to_string(path.join("boatyard-backup")).doing("open a backup")?;
        if text != FORMAT {
            return Err(BackupError::Foreign { path: path.to_path_buf() });
        }
        if !lock_file(&file, lock)? {
            return Err(BackupError::Busy { path: path.to_path_buf() });
        }
        Ok(Backup { path: path.to_path_buf(), _lock: file })
    }

    /// Returns the snapshots, the oldest first.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn snapshots(&self) -> Result<Vec<SnapshotName>, BackupError> {
        let mut names = BTreeSet::new();
        for entry in crate::local::entries(&self.path.join("snapshots")) {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<SnapshotName>().ok()));
        }
        Ok(names.into_iter().collect())
    }

    /// Finds a snapshot: the one of a name, or the newest.
    ///
    /// # Errors
    /// Where there is no such one.
    pub fn find(&self, name: Option<&str>) -> Result<SnapshotName, BackupError> {
        let mut snapshots = self.snapshots()?;
        let found = match name {
            None => snapshots.pop(),
            Some(name) => snapshots.into_iter().find(|known| known.as_str() == name),
        };
        found.ok_or_else(|| BackupError::NoSnapshot {
            path: self.path.clone(),
            name: name.unwrap_or("at all").to_owned(),
        })
    }

    fn snapshot_path(&self, name: &SnapshotName) -> PathBuf {
        self.path.join("snapshots").join(name.as_str())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().name();
        self.path.join("blobs").join(algorithm).join(shard_name(digest)).join(digest.hex())
    }

    fn staging(&self) -> PathBuf {
        self.path.join("staging").join(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Gives a staged file, whose content is synced, its name.
    fn publish(&self, staged: &Path, place: &Path) -> Result<(), StoreError> {
        let directory = place.parent().unwrap_or(&self.path);
        if !directory.is_dir() {
            fs::create_dir_all(directory).doing("create the directory of a backup")?;
            for above in directory.ancestors().skip(1).take(3) {
                sync(above)?;
            }
        }
        fs::rename(staged, place).doing("give a file of a backup its name")?;
        sync(directory)
    }

    /// Writes a file whole.
    fn write(
        &self,
        place: &Path,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let staged = self.staging();
        let file = fs::File::create_new(&staged).doing("create a file")?;
        let mut writer = io::BufWriter::new(file);
        write(&mut writer).and_then(|()| writer.flush()).doing("write a backup")?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).doing("sync a backup")?;
        self.publish(&staged, place)
    }
}

fn sync(directory: &Path) -> Result<(), StoreError> {
    fs::File::open(directory).and_then(|directory| directory.sync_all()).doing("sync a directory")
}
