//! Images on their way in: archives that other tools wrote, and bare file systems.
//!
//! [`load`] reads what `docker save`, `podman save`, `skopeo copy`, `buildah push` and BuildKit
//! write, from a pipe too: what could be a blob goes into the store as it comes, and only at the
//! end is it decided what belongs to an image. The rest is garbage once the caller's lease ends.
//! Nothing of an archive becomes a path on this machine. [`rootfs`] makes an image of one layer
//! from the archive of a root file system. [`name`] gives names to images of the store.

mod archive;
mod changes;
mod docker;
mod layout;
mod legacy;
mod names;
mod oci;
mod rootfs;

use std::io::{self, Read, Write as _};

use boatyard_content::{Expected, IngestKey, Lease, Root, StoreError};
use boatyard_oci::name::NameError;
use boatyard_oci::{Descriptor, DiffId, Digest, ImageName, Manifest, MediaType};
use bytes::Bytes;
use thiserror::Error;

pub use changes::{ChangeError, apply_changes};
pub use layout::{LayoutError, LayoutReference, layout};
pub use names::{NameImageError, name};
pub use rootfs::{RootfsError, RootfsOptions, rootfs};

use crate::bundle::BundleError;
use crate::image::ImageError;
use crate::layer::tar::TarError;

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The names that the archive gives it, and that it has now. There may be none: then only the
    /// lease holds it.
    pub names: Vec<ImageName>,
    /// Its manifest or index.
    pub target: Descriptor,
}

/// Why an archive cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The stream cannot be decompressed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is no archive, or a damaged one.
    #[error("cannot read the archive")]
    Archive(#[from] TarError),
    /// The store failed.
    #[error("cannot keep `{path}` of the archive")]
    Store {
        /// Which file of the archive.
        path: String,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// A blob is not what its name says.
    #[error("`{path}` of the archive is damaged: its bytes have the digest {got}")]
    Digest {
        /// Which file of the archive.
        path: String,
        /// The digest of its bytes.
        got: Digest,
    },
    /// There is nothing in the archive that says which images it holds.
    #[error("this is no archive of images: it has neither `manifest.json` nor `index.json`")]
    NoImages,
    /// The layout is of a later version.
    #[error("the archive's `oci-layout` does not say that it is of version 1")]
    LayoutVersion,
    /// A document is larger than any honest one.
    #[error("`{path}` of the archive is larger than {most} bytes")]
    DocumentSize {
        /// Which document.
        path: String,
        /// The limit.
        most: u64,
    },
    /// A document cannot be understood.
    #[error("cannot understand `{path}` of the archive")]
    Document {
        /// Which document.
        path: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that a document names is not there.
    #[error("`{path}` is not in the archive, but {by} needs it")]
    Missing {
        /// What is not there.
        path: String,
        /// What needs it.
        by: String,
    },
    /// A name in a document leads out of the archive, or through links in a circle.
    #[error("`{path}`, which {by} names, is no file of the archive")]
    Path {
        /// The name.
        path: String,
        /// What names it.
        by: String,
    },
    /// An image has more layers than diff IDs, or fewer.
    #[error("{image} has {layers} layers, and its configuration has {diff_ids} diff IDs")]
    LayerCount {
        /// Which image, by its configuration.
        image: String,
        /// How many layers the archive lists.
        layers: usize,
        /// How many the configuration has.
        diff_ids: usize,
    },
    /// A layer is not the one that the configuration promises.
    #[error("the layer `{path}` unpacks to {got}, but the image's configuration says {expected}")]
    DiffId {
        /// Which file of the archive.
        path: String,
        /// From the configuration.
        expected: DiffId,
        /// Of the bytes.
        got: DiffId,
    },
    /// A layer cannot be unpacked.
    #[error("the layer `{path}` cannot be decompressed: {problem}")]
    Layer {
        /// Which file of the archive.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer is packed in a way that images do not know.
    #[error("the layer `{path}` is packed with {format}: layers use gzip, zstd or nothing")]
    Packed {
        /// Which file of the archive.
        path: String,
        /// What it is packed with.
        format: &'static str,
    },
    /// What an image is called is no name.
    #[error("the archive calls an image `{name}`")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// A blob has another size than its descriptor says.
    #[error("the blob {digest} has {got} bytes, but {by} says {expected}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What it has.
        got: u64,
        /// Whose descriptor.
        by: String,
    },
    /// An image is not whole, or not an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It is a bundle that cannot be used here.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An image cannot be named.
    #[error(transparent)]
    Naming(#[from] NameImageError),
}

/// Loads all images of an archive and gives them the names that it has for them.
///
/// The archive is read to its end. It may be compressed. The lease holds what was loaded.
///
/// # Errors
/// Where the archive is damaged, hostile, or not whole. No image of it has a new name then.
pub fn load(reader: impl Read, root: &Root, lease: &Lease) -> Result<Vec<Loaded>, LoadError> {
    let mut archive = archive::read(reader, root, lease)?;
    let mut images = if archive.document("index.json").is_some() {
        oci::images(&mut archive, root, lease)?
    } else if archive.document("manifest.json").is_some() {
        docker::images(&archive, root, lease)?
    } else if archive.document("repositories").is_some() {
        legacy::images(&archive, root, lease)?
    } else {
        return Err(LoadError::NoImages);
    };
    merge(&mut images);
    for image in &images {
        name(root, lease, &image.target, &image.names)?;
    }
    Ok(images)
}

/// Makes one of what is listed once for each name.
fn merge(images: &mut Vec<Loaded>) {
    let mut merged: Vec<Loaded> = Vec::new();
    for image in images.drain(..) {
        match merged.iter_mut().find(|other| other.target.digest == image.target.digest) {
            Some(other) => other.names.extend(image.names),
            None => merged.push(image),
        }
    }
    for image in &mut merged {
        image.names.sort();
        image.names.dedup();
    }
    *images = merged;
}

/// Puts a small blob that was made here into the store.
fn put(root: &Root, lease: &Lease, bytes: &Bytes) -> Result<(), StoreError> {
    let mut ingest = root.store().ingest_blocking(&IngestKey::fleeting(), lease)?;
    ingest.write_all(bytes).map_err(|source| StoreError::Io { doing: "write a blob", source })?;
    ingest.commit_blocking(&Expected::any()).map(drop)
}

/// Makes the manifest of an image whose configuration and layers are in the store.
fn put_image(
    root: &Root,
    lease: &Lease,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<Descriptor, StoreError> {
    let manifest = boatyard_oci::ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let bytes = manifest.to_bytes();
    if bytes.len() > Manifest::SIZE_MAX {
        let (size, most) = (bytes.len() as u64, Manifest::SIZE_MAX as u64);
        return Err(StoreError::TooLarge { size, most });
    }
    put(root, lease, &bytes)?;
    Ok(Descriptor::of(MediaType::OCI_MANIFEST, &bytes))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
