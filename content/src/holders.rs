//! Who holds blobs: every file of a root that keeps one alive.
//!
//! One walk serves whoever needs to know: the collector (is it held at all?), `gc --why` (by
//! whom?), `df` (how much does each of them hold?). It lists names, and reads only the small files
//! that are lists of names themselves. Leases are not among them: they hold for a process's life.

use std::fmt;

use boatyard_oci::Digest;

use crate::encodings::Encoding;
use crate::entries::EntryKey;
use crate::gc::GcError;
use crate::local::Root;
use crate::repository::{Repository, RepositoryError};

/// A durable holder of a blob.
#[derive(Clone, Debug)]
pub enum Holder<'a> {
    /// It was pushed to, or fetched for, a repository.
    Link(&'a Repository),
    /// It is a manifest of a repository.
    Manifest(&'a Repository),
    /// A manifest of a repository needs it.
    Needed {
        /// The repository.
        repository: &'a Repository,
        /// The manifest.
        by: &'a Digest,
    },
    /// The build cache keeps a layer in it.
    Layer(&'a Encoding),
    /// The cache proxy keeps a URL's bytes in it.
    Entry(&'a EntryKey),
    /// A generation of index sets that the cache proxy holds, by the name of its directory.
    Generation(&'a str),
    /// A private package, by its place below `packages/`.
    Package(&'a str),
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Link(repository) => write!(f, "{} has it", repository.key()),
            Holder::Manifest(repository) => write!(f, "it is a manifest of {}", repository.key()),
            Holder::Needed { repository, by } => {
                write!(f, "manifest {by} of {} needs it", repository.key())
            }
            Holder::Layer(encoding) => {
                write!(f, "the build cache: layer {}, {}", encoding.diff_id, encoding.compression)
            }
            Holder::Entry(key) => write!(f, "the cache proxy: entry {key}"),
            Holder::Generation(set) => {
                write!(f, "the cache proxy: a generation of {set}")
            }
            Holder::Package(place) => write!(f, "the private package {place}"),
        }
    }
}

/// Visits every holder of every blob; a blob that several hold is seen several times.
///
/// # Errors
/// Where something cannot be listed: then what was seen is not all.
pub fn each(root: &Root, visit: &mut dyn FnMut(&Digest, &Holder<'_>)) -> Result<(), GcError> {
    in_repositories(root, visit)?;
    for encoding in root.encodings().all()? {
        visit(&encoding.blob, &Holder::Layer(&encoding));
    }
    let entries = root.entries();
    for key in entries.keys()? {
        for blob in entries.blobs(&key) {
            visit(&blob, &Holder::Entry(&key));
        }
    }
    root.generations().each(&mut |set, blob| visit(blob, &Holder::Generation(set)))?;
    root.packages().each(&mut |place, blob| visit(blob, &Holder::Package(place)))?;
    Ok(())
}

/// Visits the holders that are repositories: what was pushed, mirrored, built and pulled.
///
/// # Errors
/// As [`each`].
fn in_repositories(
    root: &Root,
    visit: &mut dyn FnMut(&Digest, &Holder<'_>),
) -> Result<(), GcError> {
    for repository in &root.repositories().all()? {
        in_repository(repository, visit).map_err(|source| GcError::Repository {
            repository: repository.key().to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// What is mirrored holds only what was fetched: its manifests name layers of other platforms too,
/// and layers that were forgotten to keep within a limit, which can be fetched again.
fn in_repository(
    repository: &Repository,
    visit: &mut dyn FnMut(&Digest, &Holder<'_>),
) -> Result<(), RepositoryError> {
    for blob in repository.blobs()? {
        visit(&blob, &Holder::Link(repository));
    }
    for manifest in repository.manifests()? {
        if !repository.is_mirrored() {
            for blob in repository.refs(&manifest)? {
                visit(&blob, &Holder::Needed { repository, by: &manifest });
            }
        }
        visit(&manifest, &Holder::Manifest(repository));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::RootOptions;
    use crate::repository::Space;
    use crate::testing;
    use boatyard_oci::{Manifest, MediaType};

    #[test]
    fn every_holder_says_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        let put = |bytes: &[u8]| testing::put(&root, &lease, bytes);
        let config = put(b"{}");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{config}","size":2}}}}"#,
            MediaType::OCI_CONFIG
        );
        let manifest = Manifest::parse(text.clone().into(), &MediaType::OCI_MANIFEST).unwrap();
        let manifest_digest = put(text.as_bytes());
        let app = root.repositories().repository(&Space::Hosted, &"app".parse().unwrap());
        app.link_blob(&config).unwrap();
        app.put_manifest(&manifest, &MediaType::OCI_MANIFEST, &[]).unwrap();
        let key = EntryKey::of("http://deb.example/config");
        let variant = crate::entries::Variant {
            key: EntryKey::of(""),
            blob: config.clone(),
            note: Vec::new(),
        };
        assert!(root.entries().put(&key, &[], &variant).unwrap());
        let mut said = Vec::new();
        each(&root, &mut |blob, holder| {
            if *blob == config {
                said.push(holder.to_string());
            }
        })
        .unwrap();
        said.sort();
        let expected = [
            "hosted/app has it".to_owned(),
            format!("manifest {manifest_digest} of hosted/app needs it"),
            format!("the cache proxy: entry {key}"),
        ];
        assert_eq!(said, expected);
    }
}
