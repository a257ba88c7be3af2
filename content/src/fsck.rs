//! The integrity check: every blob is read and hashed, every reference followed.

use std::collections::HashMap;
use std::io::Read as _;

use boatyard_oci::{Digest, Hasher, Tag};
use fs_err as fs;

use crate::local::layout::shard_name;
use crate::local::{Lock, Root};
use crate::repository::RepositoryError;
use crate::store::{BlobInfo, Doing as _, StoreError};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The blobs whose bytes are not what their names say.
    pub damaged: Vec<DamagedBlob>,
    /// The manifests that lack something.
    pub broken: Vec<BrokenManifest>,
}

impl FsckReport {
    /// Says whether all is well.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.broken.is_empty()
    }
}

/// A blob whose bytes are not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlob {
    /// Its name, and the size of its file.
    pub blob: BlobInfo,
    /// The digest of the bytes that are there; `None` where they cannot be read.
    pub got: Option<Digest>,
}

/// A manifest without which, or without whose blobs, an image cannot be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenManifest {
    /// The repository, by its directory below the root.
    pub repository: String,
    /// The manifest.
    pub manifest: Digest,
    /// The tags that point at it.
    pub tags: Vec<Tag>,
    /// What is missing or damaged: the manifest's own bytes, blobs, or listed manifests.
    pub missing: Vec<Digest>,
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// A repository cannot be read.
    #[error("cannot read repository {repository}")]
    Repository {
        /// Which, by its directory below the root.
        repository: String,
        /// Why.
        #[source]
        source: RepositoryError,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads and hashes every blob, and looks for what each manifest refers to. With `quarantine`,
/// damaged blobs are moved out of the store, so that pushing them again puts them right.
///
/// `seen` is told of every blob that was read.
///
/// # Errors
/// Where directories cannot be listed. A blob that cannot be read is damaged, not an error.
pub fn check(
    root: &Root,
    quarantine: bool,
    seen: &mut dyn FnMut(&BlobInfo),
) -> Result<FsckReport, FsckError> {
    let mut report = FsckReport::default();
    let mut state: HashMap<Digest, bool> = HashMap::new();
    let mut blobs = Vec::new();
    root.store().each_blocking(&mut |blob| blobs.push(blob))?;
    for blob in blobs {
        let got = hash(root, &blob.digest);
        let whole = got.as_ref() == Some(&blob.digest);
        report.blobs += 1;
        report.bytes += blob.size;
        state.insert(blob.digest.clone(), whole);
        seen(&blob);
        if !whole {
            if quarantine {
                move_aside(root, &blob.digest)?;
            }
            report.damaged.push(DamagedBlob { blob, got });
        }
    }
    for repository in root.repositories().all()? {
        let broken = broken_manifests(&repository, &state).map_err(|source| {
            FsckError::Repository { repository: repository.key().to_owned(), source }
        })?;
        report.broken.extend(broken);
    }
    Ok(report)
}

/// Returns the digest of the bytes that are there, or `None` where they cannot be read.
fn hash(root: &Root, digest: &Digest) -> Option<Digest> {
    let mut file = root.store().open_blocking(digest).ok()??.into_file();
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn move_aside(root: &Root, digest: &Digest) -> Result<(), StoreError> {
    let layout = root.layout();
    let _lock = Lock::exclusive(&layout.shard_lock(shard_name(digest)))?;
    fs::create_dir_all(layout.quarantine()).doing("create the quarantine")?;
    let place = layout.quarantine().join(digest.to_string());
    fs::rename(layout.blob(digest), place).doing("move a damaged blob to the quarantine")
}

fn broken_manifests(
    repository: &crate::repository::Repository,
    state: &HashMap<Digest, bool>,
) -> Result<Vec<BrokenManifest>, RepositoryError> {
    let mut broken = Vec::new();
    // Whoever pulls an index for one machine has the other images of it on purpose not, and a
    // mirror has what was asked for and not forgotten since. What is there must be whole; what was
    // pushed must be there.
    let is_partial = !repository.key().starts_with("hosted/");
    for manifest in repository.manifests()? {
        let blobs = repository.blob_refs(&manifest)?;
        let is_absent_on_purpose = |digest: &Digest| {
            let is_optional = repository.is_mirrored() || !blobs.contains(digest);
            is_partial && !state.contains_key(digest) && is_optional
        };
        let refs = repository.refs(&manifest)?;
        let listed = refs.iter().filter(|digest| !is_absent_on_purpose(digest)).cloned();
        let needed = std::iter::once(manifest.clone()).chain(listed);
        let missing: Vec<Digest> =
            needed.filter(|digest| state.get(digest) != Some(&true)).collect();
        if !missing.is_empty() {
            broken.push(BrokenManifest {
                repository: repository.key().to_owned(),
                tags: repository.tags_of(&manifest)?,
                manifest,
                missing,
            });
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Expected, IngestKey};
    use crate::local::RootOptions;
    use crate::repository::Space;
    use crate::testing;
    use boatyard_oci::{Descriptor, Manifest, MediaType};
    use std::io::Write as _;

    #[test]
    fn finds_a_flipped_bit_says_which_image_it_breaks_and_heals_by_writing_again() {
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
        put(text.as_bytes());
        let app = root.repositories().repository(&Space::Hosted, &"app".parse().unwrap());
        let tag: Tag = "v1".parse().unwrap();
        app.put_manifest(&manifest, &MediaType::OCI_MANIFEST, std::slice::from_ref(&tag)).unwrap();
        assert!(check(&root, true, &mut |_| {}).unwrap().is_clean());

        let path = root.layout().blob(&config);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{!").unwrap();
        let report = check(&root, true, &mut |_| {}).unwrap();
        assert_eq!(report.damaged.len(), 1);
        assert_eq!(report.broken[0].repository, "hosted/app");
        assert_eq!(report.broken[0].tags, [tag]);
        assert_eq!(report.broken[0].missing, [config]);
        assert!(!path.exists());
        put(b"{}");
        assert!(check(&root, true, &mut |_| {}).unwrap().is_clean());
    }

    #[test]
    fn an_index_lacks_nothing_where_only_one_of_its_images_was_pulled() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        let elsewhere = Descriptor::of(MediaType::OCI_MANIFEST, b"elsewhere");
        let bytes = boatyard_oci::Index::new(vec![elsewhere.clone()]).to_bytes();
        let mut ingest = root.store().ingest_blocking(&IngestKey::random(), &lease).unwrap();
        ingest.write_all(&bytes).unwrap();
        ingest.commit_blocking(&Expected::any()).unwrap();
        let index = Manifest::parse(bytes, &MediaType::OCI_INDEX).unwrap();
        let put = |space| {
            let repository = root.repositories().repository(&space, &"app".parse().unwrap());
            repository.put_manifest(&index, &MediaType::OCI_INDEX, &[]).unwrap();
        };
        put(Space::Images("docker.io".parse().unwrap()));
        assert!(check(&root, false, &mut |_| {}).unwrap().is_clean());
        put(Space::Hosted);
        let broken = check(&root, false, &mut |_| {}).unwrap().broken;
        assert_eq!((broken.len(), &broken[0].missing[..]), (1, &[elsewhere.digest][..]));
    }
}
