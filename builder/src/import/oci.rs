//! Archives with an OCI layout in them (image-spec, image-layout.md).
//!
//! An archive may leave out blobs that the store has already, and images of an index that nobody
//! asked for; a bundle says what it leaves out, and may have layers as deltas. Everything that is there is checked against what points at it.

use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, Index, Manifest, MediaType};
use serde::Deserialize;

use super::archive::Archive;
use super::docker::parse_names;
use super::{LoadError, Loaded};
use crate::bundle;
use crate::image::{Image, ImageError, read_manifest};

const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
const NESTED_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// Finds the images that `index.json` lists.
pub(super) fn images(
    archive: &mut Archive,
    root: &Root,
    lease: &Lease,
) -> Result<Vec<Loaded>, LoadError> {
    check_version(archive)?;
    let bytes = archive.document(INDEX).ok_or(LoadError::NoImages)?;
    let document = |source| LoadError::Document { path: INDEX.to_owned(), source };
    let index = Manifest::parse(bytes.clone(), &MediaType::OCI_INDEX)
        .map_err(|source| document(source.into()))?;
    let Manifest::Index(Index { manifests, .. }) = index.into_value() else {
        return Err(LoadError::NoImages);
    };
    let (bundles, manifests): (Vec<_>, Vec<_>) = manifests.into_iter().partition(bundle::is_bundle);
    for listed in bundles {
        for (blob, diff_id) in bundle::complete(root, lease, &listed)? {
            archive.adopt(blob, diff_id);
        }
    }
    let check = Check { archive, root, lease };
    let mut images = Vec::with_capacity(manifests.len());
    for listed in manifests {
        if !check.target(&listed, INDEX, 0)? {
            return Err(missing(&listed.digest, INDEX));
        }
        let names = parse_names(&names(&listed))?;
        let mut target = listed;
        target.annotations.clear();
        images.push(Loaded { names, target });
    }
    Ok(images)
}

/// > "The imageLayoutVersion ... MUST be 1.0.0" in this version of the specification
/// > (image-layout.md, "oci-layout file"); later ones that break it change the first number.
fn check_version(archive: &Archive) -> Result<(), LoadError> {
    let bytes = archive.document(LAYOUT).ok_or(LoadError::LayoutVersion)?;
    let layout: Layout = serde_json::from_slice(bytes).map_err(|_| LoadError::LayoutVersion)?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    Err(LoadError::LayoutVersion)
}

/// Returns what an image is called: containerd's annotation has the whole name, the standard one
/// has it with some tools and only the tag with others. A tag alone is no name.
fn names(listed: &Descriptor) -> Vec<String> {
    let annotation = |key| listed.annotations.get(key).filter(|name: &&String| !name.is_empty());
    let whole = annotation("io.containerd.image.name");
    let reference =
        annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    whole.or(reference).cloned().into_iter().collect()
}

struct Check<'a> {
    archive: &'a Archive,
    root: &'a Root,
    lease: &'a Lease,
}

impl Check<'_> {
    /// Checks a manifest and all that it points at; `false` where it is not there.
    fn target(&self, target: &Descriptor, by: &str, depth: usize) -> Result<bool, LoadError> {
        if depth >= NESTED_MAX {
            return Err(ImageError::Nested { digest: target.digest.clone() }.into());
        }
        if !self.blob(target, by)? {
            return Ok(false);
        }
        let by = format!("the manifest {}", target.digest);
        let manifest = read_manifest(&self.root.store(), target)?;
        for blob in manifest.value().blobs() {
            if !self.blob(blob, &by)? {
                return Err(missing(&blob.digest, &by));
            }
        }
        match manifest.value() {
            Manifest::Image(_) => self.layers(target)?,
            Manifest::Index(index) => self.children(&index.manifests, &by, depth)?,
        }
        Ok(true)
    }

    fn children(&self, children: &[Descriptor], by: &str, depth: usize) -> Result<(), LoadError> {
        let mut any = children.is_empty();
        for child in children {
            any |= self.target(child, by, depth + 1)?;
        }
        let first = children.first();
        first.filter(|_| !any).map_or(Ok(()), |first| Err(missing(&first.digest, by)))
    }

    /// Compares an image's layers with its diff IDs, as far as they came with the archive.
    fn layers(&self, target: &Descriptor) -> Result<(), LoadError> {
        let image = match Image::open(&self.root.store(), target, None) {
            Err(ImageError::Artifact { .. }) => return Ok(()),
            image => image?,
        };
        for (layer, diff_id) in image.layers() {
            if let Some(stored) = self.archive.by_digest(&layer.digest) {
                stored.check_layer(diff_id)?;
            }
        }
        Ok(())
    }

    /// Holds a blob and compares its size; `false` where it is not there.
    fn blob(&self, blob: &Descriptor, by: &str) -> Result<bool, LoadError> {
        let held = self.root.store().hold_blocking(&blob.digest, Some(self.lease));
        let held =
            held.map_err(|source| LoadError::Store { path: blob_path(&blob.digest), source })?;
        match held {
            Some(held) if held.size != blob.size => Err(LoadError::Size {
                digest: blob.digest.clone(),
                expected: blob.size,
                got: held.size,
                by: by.to_owned(),
            }),
            held => Ok(held.is_some()),
        }
    }
}

fn missing(digest: &Digest, by: &str) -> LoadError {
    LoadError::Missing { path: blob_path(digest), by: by.to_owned() }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}
