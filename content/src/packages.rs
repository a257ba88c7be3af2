//! Private packages: what was published here, by whom, and the blob that has it.
//!
//! ```text
//! ROOT/packages/<ecosystem>/<repository>/_changed                       a new word after each change
//! ROOT/packages/<ecosystem>/<repository>/<package>/_<document>          what changes: npm's tags
//! ROOT/packages/<ecosystem>/<repository>/<package>/<version>/<file>/
//!     <algorithm>-<hex>   the record; its name holds the blob
//!     withdrawn           why, as long as it is
//!     removed             it was here; nothing else comes under its name
//! ```
//!
//! A file of a version is published once: whoever comes second is told so, whatever process it is
//! in, and what was removed leaves its name behind. So nobody ever gets other bytes under a version
//! that they know. A record is created whole, synced and renamed, under the lock of its repository,
//! after its blob is durable: a crash in between leaves a blob that nobody holds, which the collector
//! knows. The names of packages, versions and files are any texts; as file names they are escaped,
//! and the record has them as they are.
//!
//! Reading is by [`PackageRepository::listing`]: all of a repository in memory, read again only where
//! something changed. Who asks pays for one `stat`.

mod listing;
mod record;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_oci::{Algorithm, Digest};
use jiff::Timestamp;
use serde_json::Value;

use crate::local::journal::{Event, EventKind};
use crate::local::layout::{escape, shard_name, unescape};
use crate::local::{Lock, Root, Shared, Staged, entries, read_if_there, touch, write_unsynced};
use crate::store::{Doing as _, StoreError};

pub use listing::{Listing, Package};
pub use record::PackageFile;

use listing::Known;
use record::Removed;

const CHANGED: &str = "_changed";
const WITHDRAWN: &str = "withdrawn";
const REMOVED: &str = "removed";
/// A longer name becomes its digest: a file name has 255 bytes at most.
const FILE_NAME_LEN_MAX: usize = 200;
/// The longest name of a package, version or file.
pub const NAME_LEN_MAX: usize = 1024;

/// The private packages of a root.
#[derive(Clone, Debug)]
pub struct Packages {
    root: Arc<Shared>,
}

/// Why something could not be done with private packages.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// A name of a package, a version or a file is empty or too long.
    #[error(
        "a name of a package, version or file has 1 to {NAME_LEN_MAX} bytes and no control character"
    )]
    Name,
    /// A record cannot be read: somebody else wrote there.
    #[error("the record {path} makes no sense")]
    Broken {
        /// Which.
        path: String,
    },
    /// The file system does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file of a version that is to be published.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// The package, by the name that tells it from all others: as the ecosystem normalises it.
    pub package: String,
    /// The version.
    pub version: String,
    /// The file, such as `acme-1.0.gem`: what tells the files of a package apart.
    pub file: String,
    /// Its bytes, which a lease holds until this is done.
    pub blob: Digest,
    /// How many.
    pub size: u64,
    /// What the ecosystem wants to know of it; its own to read.
    pub metadata: Value,
    /// Who publishes it, as the audit log writes it: `user:alice`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What came of publishing.
#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// It is published, and durable.
    New(Arc<PackageFile>),
    /// It was before, with the same bytes. Nothing has changed: what is kept is the first record.
    Same(Arc<PackageFile>),
    /// It was before, with other bytes, which stay.
    Taken(Arc<PackageFile>),
    /// It was removed, and its name is not used again.
    Removed,
    /// Its blob is not there: no lease held it.
    Absent,
}

/// The private packages of one repository: of a configured upstream, in one ecosystem. Clones are
/// one, and share what is in memory.
#[derive(Clone)]
pub struct PackageRepository {
    root: Arc<Shared>,
    ecosystem: Arc<str>,
    name: Arc<str>,
    known: Arc<Mutex<Option<Known>>>,
}

impl fmt::Debug for PackageRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackageRepository({}/{})", self.ecosystem, self.name)
    }
}

impl Packages {
    pub(crate) fn new(root: Arc<Shared>) -> Packages {
        Packages { root }
    }

    /// Returns a repository; it comes to be when something is published.
    pub fn repository(&self, ecosystem: &str, name: &str) -> PackageRepository {
        PackageRepository {
            root: Arc::clone(&self.root),
            ecosystem: ecosystem.into(),
            name: name.into(),
            known: Arc::default(),
        }
    }

    /// Returns all repositories in which something was published.
    ///
    /// # Errors
    /// Where a directory cannot be listed.
    pub fn all(&self) -> Result<Vec<PackageRepository>, StoreError> {
        let mut all = Vec::new();
        for ecosystem in entries(&self.root.layout.packages()) {
            let ecosystem = ecosystem?;
            for repository in entries(&ecosystem.path()) {
                let repository = repository?;
                let names = (ecosystem.file_name(), repository.file_name());
                let names =
                    names.0.to_str().and_then(unescape).zip(names.1.to_str().and_then(unescape));
                all.extend(names.map(|(ecosystem, name)| self.repository(&ecosystem, &name)));
            }
        }
        all.sort_by(|one, two| (&one.ecosystem, &one.name).cmp(&(&two.ecosystem, &two.name)));
        Ok(all)
    }

    /// Visits all blobs that private packages hold, with the place of each below `packages/`.
    ///
    /// # Errors
    /// Where a directory cannot be listed: then what was seen is not all.
    pub(crate) fn each(&self, visit: &mut dyn FnMut(&str, &Digest)) -> Result<(), StoreError> {
        let top = self.root.layout.packages();
        each_file(&top, 5, &mut |directory| {
            let names = names(directory)?;
            if names.iter().any(|name| name == REMOVED) {
                return Ok(());
            }
            let place = directory.strip_prefix(&top).unwrap_or(directory).to_string_lossy();
            names.iter().filter_map(|name| blob_of(name)).for_each(|blob| visit(&place, &blob));
            Ok(())
        })
    }
}

/// Visits the directories so many levels below another.
fn each_file(
    directory: &Path,
    levels: usize,
    visit: &mut dyn FnMut(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if levels == 0 {
        return visit(directory);
    }
    for entry in entries(directory) {
        let entry = entry?;
        let name = entry.file_name();
        // What begins so is a file beside them.
        if !name.as_encoded_bytes().starts_with(b"_") && !name.as_encoded_bytes().starts_with(b".")
        {
            each_file(&entry.path(), levels - 1, visit)?;
        }
    }
    Ok(())
}

/// Returns the names in a directory; none where it is not there.
fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in entries(directory) {
        names.extend(entry?.file_name().to_str().map(str::to_owned));
    }
    Ok(names)
}

impl PackageRepository {
    /// Returns the ecosystem.
    pub fn ecosystem(&self) -> &str {
        &self.ecosystem
    }

    /// Returns its name: that of the configured upstream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns all that is published, from memory unless something has changed. Blocking, by one
    /// system call where nothing has.
    ///
    /// # Errors
    /// Where the files cannot be read.
    pub fn listing(&self) -> Result<Arc<Listing>, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = listing::stamp(&self.directory().join(CHANGED))?;
        if let Some(known) = known.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(Arc::clone(&known.listing));
        }
        let read = Known::read(&self.directory(), stamp)?;
        let listing = Arc::clone(&read.listing);
        *known = Some(read);
        Ok(listing)
    }

    /// Publishes a file of a version, unless there is one. Durable when it returns. Blocking.
    ///
    /// # Errors
    /// Where a file could not be read or written; then nothing is published.
    pub fn publish(&self, new: &NewFile) -> Result<Published, PackagesError> {
        for name in [&new.package, &new.version, &new.file] {
            check(name)?;
        }
        let directory = self.file(&new.package, &new.version, &new.file);
        let _alone = Lock::exclusive(&self.lock())?;
        if let Some(known) = self.published(&directory)? {
            return Ok(known.compared(&new.blob));
        }
        let layout = &self.root.layout;
        let _shared = Lock::shared(&layout.shard_lock(shard_name(&new.blob)))?;
        if touch(&layout.blob(&new.blob))?.is_none() {
            return Ok(Published::Absent);
        }
        self.tell(&new.package, &format!("{}/{}", new.version, new.file), new.at)?;
        let record = PackageFile::of(new);
        let name = format!("{}-{}", new.blob.algorithm(), new.blob.hex());
        let mut staged = Staged::new(&*self.root.disk);
        staged.put(directory.join(name), &record.to_bytes())?;
        staged.publish()?;
        touch(&layout.blob(&new.blob))?;
        self.changed(&new.package)?;
        Ok(Published::New(Arc::new(record)))
    }

    /// Withdraws files of a version, or takes that back (`None`): they stay, for those who name
    /// them exactly. All files of the version where `file` is `None`. Returns how many there are.
    /// Blocking.
    ///
    /// # Errors
    /// Where a file could not be written.
    pub fn withdraw(
        &self,
        package: &str,
        version: &str,
        file: Option<&str>,
        why: Option<&str>,
    ) -> Result<usize, PackagesError> {
        let _alone = Lock::exclusive(&self.lock())?;
        let found = self.found(package, version, file)?;
        self.tell(package, version, Timestamp::now())?;
        for found in &found {
            let mark = self.file(package, version, &found.file).join(WITHDRAWN);
            match why {
                Some(why) => {
                    let mut staged = Staged::new(&*self.root.disk);
                    staged.put(mark, why.as_bytes())?;
                    staged.publish()?;
                }
                None => {
                    self.root.disk.remove_file(&mark).doing("take a withdrawal back")?;
                    if let Some(directory) = mark.parent() {
                        self.root.disk.sync_directory(directory).doing("sync a directory")?;
                    }
                }
            }
        }
        self.changed(package)?;
        Ok(found.len())
    }

    /// Removes files of a version; all of them where `file` is `None`. Their names stay taken, the
    /// name of the package too. Returns how many there were. Blocking.
    ///
    /// # Errors
    /// Where a file could not be written or deleted.
    pub fn remove(
        &self,
        package: &str,
        version: &str,
        file: Option<&str>,
        by: &str,
        at: Timestamp,
    ) -> Result<usize, PackagesError> {
        let _alone = Lock::exclusive(&self.lock())?;
        let found = self.found(package, version, file)?;
        self.tell(package, version, at)?;
        for found in &found {
            let directory = self.file(package, version, &found.file);
            let removed = Removed::of(found, by, at);
            let mut staged = Staged::new(&*self.root.disk);
            staged.put(directory.join(REMOVED), &removed.to_bytes())?;
            staged.publish()?;
            for name in names(&directory)?.iter().filter(|name| blob_of(name).is_some()) {
                self.root.disk.remove_file(&directory.join(name)).doing("remove a package")?;
            }
        }
        self.changed(package)?;
        Ok(found.len())
    }

    /// Returns a document of a package: what changes as a whole, such as the tags of npm. Blocking.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn document(&self, package: &str, name: &str) -> Result<Option<Vec<u8>>, PackagesError> {
        Ok(read_if_there(&self.document_file(package, name)?)?)
    }

    /// Changes a document of a package: `change` gets what is there and returns what shall be, or
    /// `None` to leave it. Nobody else changes it meanwhile. Durable when it returns. Blocking.
    ///
    /// # Errors
    /// Where the file could not be read or written.
    pub fn change_document(
        &self,
        package: &str,
        name: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Option<Vec<u8>>,
    ) -> Result<(), PackagesError> {
        let path = self.document_file(package, name)?;
        let _alone = Lock::exclusive(&self.lock())?;
        let Some(bytes) = change(read_if_there(&path)?) else { return Ok(()) };
        self.tell(package, name, Timestamp::now())?;
        let mut staged = Staged::new(&*self.root.disk);
        staged.put(path, &bytes)?;
        staged.publish()?;
        Ok(self.changed(package)?)
    }

    /// Returns the files of a version that are published.
    fn found(
        &self,
        package: &str,
        version: &str,
        file: Option<&str>,
    ) -> Result<Vec<PackageFile>, PackagesError> {
        let mut found = Vec::new();
        for name in [package, version].into_iter().chain(file) {
            check(name)?;
        }
        for entry in entries(&self.package(package).join(file_name(version))) {
            if let Some(Standing::There(record)) = self.published(&entry?.path())?
                && file.is_none_or(|file| file == record.file)
            {
                found.push(*record);
            }
        }
        Ok(found)
    }

    /// Returns what is under the name of a file; `None` where nothing ever was.
    fn published(&self, directory: &Path) -> Result<Option<Standing>, PackagesError> {
        let names = names(directory)?;
        if names.iter().any(|name| name == REMOVED) {
            return Ok(Some(Standing::Removed));
        }
        for name in &names {
            let Some(blob) = blob_of(name) else { continue };
            let path = directory.join(name);
            let Some(bytes) = read_if_there(&path)? else { continue };
            let record = PackageFile::read(&bytes, blob, None);
            let broken = || PackagesError::Broken { path: path.display().to_string() };
            return Ok(Some(Standing::There(Box::new(record.ok_or_else(broken)?))));
        }
        Ok(None)
    }

    /// Says what is about to change.
    fn tell(&self, package: &str, name: &str, at: Timestamp) -> Result<(), StoreError> {
        let repository = format!("packages/{}/{}/{package}", self.ecosystem, self.name);
        let kind = EventKind::Package;
        let event = Event { at, repository, kind, name: name.to_owned() };
        crate::local::journal::Journal::new(self.root.layout.clone()).append(&[event])
    }

    /// Says that a package has changed: whoever has the listing in memory reads it again, and we
    /// read only that package. Under the lock of the repository.
    fn changed(&self, package: &str) -> Result<(), StoreError> {
        let mark = self.directory().join(CHANGED);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let was = listing::stamp(&mark)?;
        write_unsynced(&mark, uuid::Uuid::new_v4().simple().to_string().as_bytes())?;
        let stamp = listing::stamp(&mark)?;
        *known = match known.take().filter(|known| known.stamp == was) {
            Some(known) => Some(known.with(&self.package(package), stamp)?),
            None => None,
        };
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.root.layout.packages().join(file_name(&self.ecosystem)).join(file_name(&self.name))
    }

    fn package(&self, package: &str) -> PathBuf {
        self.directory().join(file_name(package))
    }

    fn file(&self, package: &str, version: &str, file: &str) -> PathBuf {
        self.package(package).join(file_name(version)).join(file_name(file))
    }

    fn document_file(&self, package: &str, name: &str) -> Result<PathBuf, PackagesError> {
        check(package)?;
        check(name)?;
        Ok(self.package(package).join(format!("_{}", file_name(name))))
    }

    fn lock(&self) -> PathBuf {
        let name = format!("{} {}", self.ecosystem, self.name);
        self.root.layout.package_lock(&file_name(&name))
    }
}

/// What is under the name of a file.
enum Standing {
    There(Box<PackageFile>),
    Removed,
}

impl Standing {
    fn compared(self, blob: &Digest) -> Published {
        match self {
            Standing::Removed => Published::Removed,
            Standing::There(record) if record.blob == *blob => Published::Same(Arc::new(*record)),
            Standing::There(record) => Published::Taken(Arc::new(*record)),
        }
    }
}

/// Deletes what killed writers left under temporary names, in all repositories.
pub(crate) fn remove_temporary(root: &Root, stale: std::time::SystemTime) {
    let top = root.layout().packages();
    for levels in 2..=5 {
        // What cannot be listed is reported by whoever looks for holders.
        let _ = each_file(&top, levels, &mut |directory| {
            crate::gc::remove_temporary(directory, stale);
            Ok(())
        });
    }
}

fn check(name: &str) -> Result<(), PackagesError> {
    let fine = (1..=NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(PackagesError::Name) }
}

/// Returns a text as one file name, which does not begin with `_` or a dot.
fn file_name(text: &str) -> String {
    let name = escape(text);
    if name.len() <= FILE_NAME_LEN_MAX {
        return name;
    }
    format!("sha256-{}", Digest::sha256(text.as_bytes()).hex())
}

fn blob_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::from_parts(algorithm.parse::<Algorithm>().ok()?, hex).ok()
}

#[cfg(test)]
mod tests;
