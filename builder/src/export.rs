//! Images on their way out: archives that other tools load, and file systems.
//!
//! ```text
//! docker_archive   manifest.json, <config>.json, <layer>.tar[.gz]   `docker load`, `podman load`
//! oci_archive      oci-layout, index.json, blobs/<algorithm>/<hex>  the same, `skopeo`, `ctr`
//! docker_layout, oci_layout   the same as files of a directory
//! tar, local       what a container of the image would see as `/`
//! ```
//!
//! All of them stream: memory does not grow with a layer. All are deterministic: the same images
//! give the same bytes, owned by root, with time 0 (the files of [`tar`] keep the image's own, or have the epoch's).
//! Pushing to a registry is not done here.

pub(crate) mod docker;
pub(crate) mod oci;
mod place;
mod rootfs;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use boatyard_content::StoreError;
use boatyard_oci::{Descriptor, Digest, ImageName, Platform};
use thiserror::Error;

pub use docker::{docker_archive, docker_layout};
pub use oci::{oci_archive, oci_layout};
pub use rootfs::{Root, local, tar, unpack};

use crate::bundle::BundleError;
use crate::image::{Image, ImageError, read_manifest};
use crate::layer::ApplyError;
use crate::snapshot::LayersError;

/// An image that is to be exported.
#[derive(Clone, Debug)]
pub struct Source {
    /// The names that it shall have where it is loaded; none is fine.
    pub names: Vec<ImageName>,
    /// Its manifest or index, which the store has.
    pub target: Descriptor,
    /// Which image of an index; without one all that are there, or this machine's where the form
    /// holds only one.
    pub platform: Option<Platform>,
    /// What an image layout says of it.
    pub annotations: BTreeMap<String, String>,
}

/// Why an image cannot be exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The image is not whole, or not an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A blob cannot be read.
    #[error("cannot read the blob {digest}")]
    Blob {
        /// Which blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// A layer cannot be decompressed.
    #[error("cannot decompress the layer {digest}")]
    Decompress {
        /// Which blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the archive or directory cannot be written.
    #[error("cannot write `{name}`")]
    Write {
        /// Which file, as the archive names it.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be brought to its end.
    #[error("cannot end the archive")]
    End(#[source] io::Error),
    /// A bundle cannot be made.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The merged file system cannot be read.
    #[error("cannot read {path} of the image")]
    Read {
        /// Which object.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file system cannot be written.
    #[error("cannot write the file system to {}", directory.display())]
    Local {
        /// Where it should be.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: ApplyError,
    },
    /// The directory cannot be made.
    #[error("cannot use the directory {}", directory.display())]
    Directory {
        /// Which one.
        directory: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layout would be mixed with something else.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
}

#[cfg(test)]
mod tests;
