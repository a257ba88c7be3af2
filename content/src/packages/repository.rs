//! One repository of private packages: read from memory, changed under a lock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_oci::Digest;
use jiff::Timestamp;

use super::listing::{self, Known, Listing};
use super::record::{PackageFile, Removed};
use super::{
    CHANGED, NewFile, PackagesError, Published, REMOVED, WITHDRAWN, blob_of, check, file_name,
    names,
};
use crate::local::journal::{Change, Event, EventKind, Journal};
use crate::local::layout::shard_name;
use crate::local::{Lock, Shared, Staged, entries, read_if_there, touch, write_unsynced};
use crate::store::{Doing as _, StoreError};

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

impl PackageRepository {
    pub(super) fn new(root: Arc<Shared>, ecosystem: &str, name: &str) -> PackageRepository {
        let (ecosystem, name) = (ecosystem.into(), name.into());
        PackageRepository { root, ecosystem, name, known: Arc::default() }
    }

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
            let record = PackageFile::read(&bytes, &blob, None);
            let broken = || PackagesError::Broken { path: path.display().to_string() };
            return Ok(Some(Standing::There(Box::new(record.ok_or_else(broken)?))));
        }
        Ok(None)
    }

    /// Says what is about to change.
    fn tell(&self, package: &str, name: &str, at: Timestamp) -> Result<(), StoreError> {
        let repository = format!("packages/{}/{}/{package}", self.ecosystem, self.name);
        let kind = EventKind::Package;
        let (name, change) = (name.to_owned(), Change::Put);
        let event = Event { at, repository, kind, name, change, digest: None, note: None };
        Journal::new(self.root.layout.clone()).append(&[event])
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

    pub(super) fn file(&self, package: &str, version: &str, file: &str) -> PathBuf {
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
