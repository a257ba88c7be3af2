//! A root: the directory in which everything lies, and this process's membership of it.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use rustix::fs::FlockOperation;

use crate::encodings::Encodings;
use crate::entries::Entries;
use crate::generations::Generations;
use crate::lease::{Holding, Lease};
use crate::local::disk::{Disk, RealDisk};
use crate::local::durable::{Staged, make_directories};
use crate::local::fitness::{self, Missing};
use crate::local::journal::Journal;
use crate::local::layout::Layout;
use crate::local::leases::{Member, Membership, holdings, members};
use crate::local::lock::try_lock;
use crate::local::shelves::{LocalStore, entries};
use crate::packages::Packages;
use crate::repository::Repositories;
use crate::store::{Doing as _, StoreError};

/// The format of what lies below a root. A change that older versions would misread raises it.
pub const FORMAT: u32 = 1;

/// What the parts of an open root share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) disk: Arc<dyn Disk>,
}

/// How to open a root.
#[derive(Clone, Debug)]
pub struct RootOptions {
    /// What the process is called in the messages of others, such as `boatyard serve`.
    pub command: String,
    /// What writes; tests bring one that loses what was not synced.
    pub disk: Arc<dyn Disk>,
}

impl Default for RootOptions {
    fn default() -> Self {
        RootOptions { command: "boatyard".to_owned(), disk: Arc::new(RealDisk) }
    }
}

/// An open root.
///
/// As long as it is open, the process holds a shared lock on `version`, and has a directory of
/// leases with a file that it keeps locked. Many processes can have a root open; all must run as
/// the user who owns it.
#[derive(Debug)]
pub struct Root {
    shared: Arc<Shared>,
    membership: Membership,
    /// Holds the shared lock; closing it gives the lock up.
    _version: fs::File,
}

/// Why a root could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// There is something else in the directory.
    #[error("{} is not a Boatyard root: it is not empty, and has no file `version`", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// A newer Boatyard made it.
    #[error(
        "{} has format {found}, and this version of Boatyard knows formats up to {FORMAT}",
        path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another user owns it.
    #[error("{} belongs to uid {owner}, and this process runs as uid {own}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who asks.
        own: u32,
    },
    /// Its file system cannot do what a root relies on.
    #[error("{} cannot be kept on the file system there ({kind}): no {}", path.display(), missing.feature)]
    Unfit {
        /// The directory.
        path: PathBuf,
        /// The file system.
        kind: String,
        /// What it lacks.
        #[source]
        missing: Missing,
    },
    /// Others have it open, and the caller needs it alone.
    #[error("{} is in use by {}", path.display(), list(members))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it open.
        members: Vec<Member>,
    },
    /// Somebody has it open alone.
    #[error("{} is being upgraded or repaired by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("cannot open the root {}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

fn list(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
    if names.is_empty() { "another process".to_owned() } else { names.join(", ") }
}

impl Root {
    /// Opens a root, and makes it where there is none.
    ///
    /// # Errors
    /// Where the directory is something else, another user's, of a newer format, or being
    /// upgraded.
    pub fn open(path: &Path, options: RootOptions) -> Result<Arc<Root>, RootError> {
        Root::open_with(path, options, FlockOperation::NonBlockingLockShared)
    }

    /// Opens a root that nobody else has open, and keeps others out: for an upgrade or a repair.
    ///
    /// # Errors
    /// As [`Root::open`]; and [`RootError::InUse`] says who has it open.
    pub fn open_alone(path: &Path, options: RootOptions) -> Result<Arc<Root>, RootError> {
        Root::open_with(path, options, FlockOperation::NonBlockingLockExclusive)
    }

    fn open_with(
        path: &Path,
        options: RootOptions,
        lock: FlockOperation,
    ) -> Result<Arc<Root>, RootError> {
        let failed = |source| RootError::Store { path: path.to_path_buf(), source };
        make_root(path, &*options.disk).map_err(failed)?;
        let path = &fs::canonicalize(path).doing("find a directory").map_err(failed)?;
        check_owner(path)?;
        let layout = Layout::new(path);
        let version = open_version(&layout, &*options.disk)?;
        if !try_lock(&version, lock).map_err(failed)? {
            let path = path.clone();
            return Err(match lock {
                FlockOperation::NonBlockingLockShared => RootError::Locked { path },
                _ => RootError::InUse { members: members(&layout).map_err(failed)?, path },
            });
        }
        let shared = Arc::new(Shared { layout, disk: options.disk });
        let membership = Membership::join(&shared.layout, &options.command).map_err(failed)?;
        Ok(Arc::new(Root { shared, membership, _version: version }))
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        self.shared.layout.root()
    }

    /// Returns where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Returns the store of blobs.
    pub fn store(&self) -> LocalStore {
        LocalStore::new(Arc::clone(&self.shared))
    }

    /// Returns the repositories.
    pub fn repositories(&self) -> Repositories {
        Repositories::new(Arc::clone(&self.shared))
    }

    /// Returns which blobs hold which layers, as builds noted it.
    pub fn encodings(&self) -> Encodings {
        Encodings::new(Arc::clone(&self.shared))
    }

    /// Returns the entries of the cache proxy.
    pub fn entries(&self) -> Entries {
        Entries::new(Arc::clone(&self.shared))
    }

    /// Returns the index generations that the cache proxy holds.
    pub fn generations(&self) -> Generations {
        Generations::new(Arc::clone(&self.shared))
    }

    /// Returns the private packages.
    pub fn packages(&self) -> Packages {
        Packages::new(Arc::clone(&self.shared))
    }

    /// Returns the journal of what changes in repositories.
    pub fn journal(&self) -> Journal {
        Journal::new(self.shared.layout.clone())
    }

    /// Begins a lease of this process.
    ///
    /// # Errors
    /// Where its file could not be created.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        self.membership.lease()
    }

    /// Returns the processes that have the root open, this one among them.
    ///
    /// # Errors
    /// Where the leases could not be listed.
    pub fn members(&self) -> Result<Vec<Member>, StoreError> {
        members(&self.shared.layout)
    }

    /// Returns the unpacked layers that living processes rely on, by their directories below
    /// `layers/`.
    ///
    /// # Errors
    /// Where the leases could not be read.
    pub fn held_layers(&self) -> Result<HashSet<String>, StoreError> {
        let layers =
            holdings(&self.shared.layout)?.into_iter().filter_map(|holding| match holding {
                Holding::Layer(name) => Some(name),
                Holding::Blob(_) | Holding::Mount(_) => None,
            });
        Ok(layers.collect())
    }

    /// Returns all that living processes rely on.
    ///
    /// # Errors
    /// Where the leases could not be read.
    pub fn holdings(&self) -> Result<HashSet<Holding>, StoreError> {
        holdings(&self.shared.layout)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// Makes the directory, closed to others: unpacked layers hold other systems' setuid programs.
fn make_root(path: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directories(disk, parent)?;
    }
    if disk.make_directory(path).doing("create a directory")? {
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .doing("close a directory to others")?;
    }
    Ok(())
}

fn check_owner(path: &Path) -> Result<(), RootError> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path)
        .doing("look at a directory")
        .map_err(|source| RootError::Store { path: path.to_path_buf(), source })?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() == own {
        return Ok(());
    }
    Err(RootError::Owner { path: path.to_path_buf(), owner: metadata.uid(), own })
}

/// Opens `version`, and writes it first where the directory is empty.
fn open_version(layout: &Layout, disk: &dyn Disk) -> Result<fs::File, RootError> {
    let path = layout.root().to_path_buf();
    let failed = |source| RootError::Store { path: path.clone(), source };
    let open = || fs::File::open(layout.version());
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A temporary file there is another process's that is about to write `version`.
            let foreign =
                entries(&path).any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name())));
            if foreign && open().is_err() {
                return Err(RootError::Foreign { path });
            }
            check_fitness(&path)?;
            let mut staged = Staged::new(disk);
            staged
                .put(layout.version(), format!("boatyard {FORMAT}\n").as_bytes())
                .map_err(failed)?;
            staged.publish().map_err(failed)?;
            open()
        }
        result => result,
    }
    .doing("open a file")
    .map_err(failed)?;
    check_version(layout, &path)?;
    Ok(file)
}

/// Tries what cannot be done without, once: where a root begins.
fn check_fitness(path: &Path) -> Result<(), RootError> {
    let failed = |source| RootError::Store { path: path.to_path_buf(), source };
    let Some(missing) = fitness::unfit(path).doing("try out the file system").map_err(failed)?
    else {
        return Ok(());
    };
    let kind = fitness::kind(path).unwrap_or_default();
    Err(RootError::Unfit { path: path.to_path_buf(), kind, missing })
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name == "version" || name == "lost+found" || name.starts_with(".new-")
}

fn check_version(layout: &Layout, path: &Path) -> Result<(), RootError> {
    let text = fs::read_to_string(layout.version())
        .doing("read a file")
        .map_err(|source| RootError::Store { path: path.to_path_buf(), source })?;
    let format = text.strip_prefix("boatyard ").and_then(|number| number.trim().parse().ok());
    match format {
        None => Err(RootError::Foreign { path: path.to_path_buf() }),
        Some(found) if found > FORMAT => Err(RootError::Newer { path: path.to_path_buf(), found }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Arc<Root>, RootError> {
        Root::open(path, RootOptions::default())
    }

    #[test]
    fn makes_a_root_and_opens_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/root");
        drop(open(&path).unwrap());
        let first = open(&path).unwrap();
        let second = open(&path).unwrap();
        assert_eq!(first.members().unwrap().len(), 2);
        drop(second);
        assert_eq!(first.members().unwrap().len(), 1);
    }

    #[test]
    fn refuses_what_is_not_a_root_and_what_is_newer() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("precious"), "x").unwrap();
        assert!(matches!(open(directory.path()), Err(RootError::Foreign { .. })));
        let newer = tempfile::tempdir().unwrap();
        fs::write(newer.path().join("version"), "boatyard 2\n").unwrap();
        assert!(matches!(open(newer.path()), Err(RootError::Newer { found: 2, .. })));
    }

    #[test]
    fn alone_means_alone_and_says_who_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root");
        let first = open(&path).unwrap();
        let error = Root::open_alone(&path, RootOptions::default()).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        let alone = Root::open_alone(&path, RootOptions::default()).unwrap();
        assert!(matches!(open(&path), Err(RootError::Locked { .. })));
        drop(alone);
        open(&path).unwrap();
    }
}
