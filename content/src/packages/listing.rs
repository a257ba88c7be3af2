//! All of a repository, in memory.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;

use super::record::{PackageFile, Removed};
use super::{CHANGED, REMOVED, WITHDRAWN, blob_of, names};
use crate::local::{entries, read_if_there};
use crate::store::{Doing as _, StoreError};

/// What is published in a repository, at one moment.
#[derive(Debug, Default)]
pub struct Listing {
    packages: BTreeMap<String, Arc<Package>>,
    revision: String,
}

/// A private package.
#[derive(Debug, Default, PartialEq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its files, the oldest first; none where all were removed: the name stays taken.
    pub files: Vec<Arc<PackageFile>>,
}

impl Listing {
    /// Returns a package; also one of which all was removed.
    pub fn get(&self, package: &str) -> Option<&Arc<Package>> {
        self.packages.get(package)
    }

    /// Returns all packages of which something is published, by name.
    pub fn packages(&self) -> impl Iterator<Item = &Arc<Package>> {
        self.packages.values().filter(|package| !package.files.is_empty())
    }

    /// Returns a word that changes whenever something is published, withdrawn or removed: what is
    /// made of a listing is good as long as it stays. Empty where nothing ever was.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl Package {
    /// Returns a file by its name.
    pub fn file(&self, name: &str) -> Option<&Arc<PackageFile>> {
        self.files.iter().find(|file| file.file == name)
    }

    /// Returns the files of a version.
    pub fn version(&self, version: &str) -> impl Iterator<Item = &Arc<PackageFile>> {
        self.files.iter().filter(move |file| file.version == version)
    }
}

/// What tells one writing of a file from the next: its inode and when that changed.
pub(super) type Stamp = Option<(u64, i64, i64)>;

/// Returns the stamp of a file, `None` where it is not there.
pub(super) fn stamp(path: &Path) -> Result<Stamp, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("look for changes of packages"),
    }
}

/// A listing, and the stamp under which it was read.
pub(super) struct Known {
    pub(super) stamp: Stamp,
    pub(super) listing: Arc<Listing>,
}

impl Known {
    /// Reads all of a repository.
    pub(super) fn read(directory: &Path, stamp: Stamp) -> Result<Known, StoreError> {
        let mut listing = Listing { revision: revision(directory)?, ..Listing::default() };
        for package in entries(directory) {
            let package = package?;
            if !package.file_name().as_encoded_bytes().starts_with(b"_") {
                listing.put(read(&package.path())?);
            }
        }
        Ok(Known { stamp, listing: Arc::new(listing) })
    }

    /// Reads one package again.
    pub(super) fn with(self, package: &Path, stamp: Stamp) -> Result<Known, StoreError> {
        let revision = package.parent().map(revision).transpose()?.unwrap_or_default();
        let mut listing = Listing { packages: self.listing.packages.clone(), revision };
        listing.put(read(package)?);
        Ok(Known { stamp, listing: Arc::new(listing) })
    }
}

impl Listing {
    fn put(&mut self, package: Package) {
        if !package.name.is_empty() {
            self.packages.insert(package.name.clone(), Arc::new(package));
        }
    }
}

fn revision(directory: &Path) -> Result<String, StoreError> {
    let bytes = read_if_there(&directory.join(CHANGED))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a package. What cannot be understood is left out, and told of: the rest is of use.
fn read(directory: &Path) -> Result<Package, StoreError> {
    let mut package = Package::default();
    for version in entries(directory) {
        let version = version?;
        if version.file_name().as_encoded_bytes().starts_with(b"_") {
            continue;
        }
        for file in entries(&version.path()) {
            read_file(&file?.path(), &mut package)?;
        }
    }
    package.files.sort_by(|one, two| {
        (one.published, &one.version, &one.file).cmp(&(two.published, &two.version, &two.file))
    });
    Ok(package)
}

fn read_file(directory: &Path, package: &mut Package) -> Result<(), StoreError> {
    if let Some(removed) = read_if_there(&directory.join(REMOVED))? {
        if let Ok(removed) = serde_json::from_slice::<Removed>(&removed) {
            package.name = removed.package;
        }
        return Ok(());
    }
    let names = names(directory)?;
    let Some((name, blob)) = names.iter().find_map(|name| Some((name, blob_of(name)?))) else {
        return Ok(());
    };
    let path = directory.join(name);
    let Some(bytes) = read_if_there(&path)? else { return Ok(()) };
    let withdrawn = read_if_there(&directory.join(WITHDRAWN))?;
    let withdrawn = withdrawn.map(|why| String::from_utf8_lossy(&why).into_owned());
    match PackageFile::read(&bytes, &blob, withdrawn) {
        Some(file) => {
            package.name.clone_from(&file.package);
            package.files.push(Arc::new(file));
        }
        None => tracing::error!(path = %path.display(), "the record of a package makes no sense"),
    }
    Ok(())
}
