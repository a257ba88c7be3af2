//! The list of an image's packages, in SPDX 2.3.
//!
//! Packages are found by what package managers leave in the image: the databases of dpkg, apk and rpm,
//! the metadata of installed Python, Node.js and Ruby packages, lock files, and what Go writes into its
//! programs. Layers are read from the top, each once; nothing is unpacked.

mod apk;
mod document;
mod dpkg;
mod go;
mod json;
mod lines;
mod package;
mod rpm;
mod scan;
mod sqlite;

use boatyard_content::{Root, StoreError};
use boatyard_oci::Digest;
use serde_json::Value;
use thiserror::Error;

pub use package::{Kind, Package};
pub use scan::{Found, packages};

use crate::image::Image;
use crate::layer::tar::TarError;

/// The type of the predicate.
pub(crate) const PREDICATE: &str = "https://spdx.dev/Document";

/// Why packages cannot be listed.
#[derive(Debug, Error)]
pub enum SbomError {
    /// A layer is not there.
    #[error("the layer {0} is not in the store")]
    Missing(Digest),
    /// A layer cannot be read.
    #[error("cannot read the layer {layer}")]
    Read {
        /// Which.
        layer: Digest,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be read.
    #[error("cannot read the layer {layer}")]
    Store {
        /// Which.
        layer: Digest,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// A layer is damaged.
    #[error("cannot read the layer {layer}")]
    Archive {
        /// Which.
        layer: Digest,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
}

/// Returns the document that lists an image's packages. `warn` is told what cannot be read.
///
/// # Errors
/// Where a layer cannot be read.
pub fn of(
    root: &Root,
    image: &Image,
    name: Option<&str>,
    threads: usize,
    warn: &dyn Fn(&str),
) -> Result<Value, SbomError> {
    let packages = packages(root, image, threads, warn)?;
    Ok(document::document(image, name, &packages))
}

#[cfg(test)]
mod tests;
