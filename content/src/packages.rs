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
mod repository;

use std::path::Path;
use std::sync::Arc;

use boatyard_oci::{Algorithm, Digest};
use jiff::Timestamp;
use serde_json::Value;

use crate::local::layout::{escape, unescape};
use crate::local::{Root, Shared, entries};
use crate::store::StoreError;

pub use listing::{Listing, Package};
pub use record::PackageFile;
pub use repository::PackageRepository;

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

impl Packages {
    pub(crate) fn new(root: Arc<Shared>) -> Packages {
        Packages { root }
    }

    /// Returns a repository; it comes to be when something is published.
    pub fn repository(&self, ecosystem: &str, name: &str) -> PackageRepository {
        PackageRepository::new(Arc::clone(&self.root), ecosystem, name)
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
        all.sort_by(|one, two| (one.ecosystem(), one.name()).cmp(&(two.ecosystem(), two.name())));
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
