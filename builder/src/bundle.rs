//! Bundles: images for a machine that has others already, without what it has.
//!
//! A bundle is an archive with an OCI layout in it, like that of [`crate::export::oci_archive`], with
//! one more entry in its `index.json`: an artifact that says what was left out.
//!
//! ```text
//! index.json                 the images, and last the artifact, by its type
//! blobs/<algorithm>/<hex>    manifests, configurations, blobs that the receiver lacks,
//!                            the artifact's manifest, its configuration (a [`Document`]),
//!                            its layers: the deltas
//! ```
//!
//! A blob that the receiver has (the [`Base`]) is left out. A layer that it lacks may travel as a
//! [`delta`]: how its *uncompressed* archive is put together from those of layers that the receiver
//! has, and how it is packed afterwards. Only packings of our own can be done again; that the very blob
//! comes out is tried out when the bundle is written, by doing it. What does not come out the same, or
//! would not be smaller, travels whole.
//!
//! Memory grows with the number of files in a layer, never with their sizes: unpacked layers are read
//! from files without a name in the root.

mod base;
mod delta;
mod document;
mod load;
mod packing;
mod parts;
mod save;
mod spool;

use std::fs::File;
use std::io::{self, Read, Write};

use boatyard_content::StoreError;
use boatyard_oci::{Digest, MediaType};
use thiserror::Error;

pub use base::{Base, BaseError};
pub use document::{Delta, Document, Need};
pub use save::{Outcome, Sent, bundle};

pub(crate) use load::{complete, is_bundle};

/// The type of the artifact that says what was left out.
pub const ARTIFACT_TYPE: MediaType = MediaType::known("application/vnd.boatyard.bundle.v1");
/// The media type of its configuration, a [`Document`].
pub const DOCUMENT_TYPE: MediaType =
    MediaType::known("application/vnd.boatyard.bundle.config.v1+json");
/// The media type of a delta.
pub const DELTA_TYPE: MediaType = MediaType::known("application/vnd.boatyard.layer.delta.v1");

/// Why a bundle cannot be used.
#[derive(Debug, Error)]
pub enum BundleError {
    /// What it was made for is not here.
    #[error("the bundle needs {digest} of {of}, which is not here{}", More(*more))]
    Base {
        /// The first blob that is missing.
        digest: Digest,
        /// Which image it was of, where the bundle was made.
        of: String,
        /// How many more are missing.
        more: usize,
    },
    /// It has nothing to say, or not in a way that we know.
    #[error("cannot understand what the bundle says of itself")]
    Document(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A later version wrote it.
    #[error("the bundle is of version {0}: a newer Boatyard made it")]
    Version(u32),
    /// A blob that it needs cannot be read or written.
    #[error("cannot use the blob {digest}")]
    Store {
        /// Which blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// A layer cannot be put together.
    #[error("the bundle does not give the layer {digest}")]
    Delta {
        /// Its blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: DeltaError,
    },
}

/// Why a layer cannot be put together from a delta.
#[derive(Debug, Error)]
pub enum DeltaError {
    /// The delta is damaged, or hostile.
    #[error("its delta {0}")]
    Malformed(&'static str),
    /// It takes from a layer that the bundle does not say to need.
    #[error("its delta takes from {0}, which the bundle does not name among what it needs")]
    Undeclared(Digest),
    /// It would become larger than a delta of this size may.
    #[error("its delta would grow to {bytes} bytes, more than {most}")]
    Expansion {
        /// What the bundle says.
        bytes: u64,
        /// What is allowed.
        most: u64,
    },
    /// It is packed in a way that we do not know.
    #[error("it is packed with `{0}`, which this version does not know")]
    Packing(String),
    /// What came out are other bytes.
    #[error("what comes out is {got}")]
    Differs {
        /// The digest of what came out.
        got: Digest,
    },
    /// A file could not be read or written.
    #[error("cannot put it together")]
    Io(#[from] io::Error),
    /// The store did not take the result.
    #[error("cannot keep it")]
    Store(#[from] StoreError),
}

/// Writes the `size` bytes that a delta makes of what some files hold. Whoever wrote the delta is not
/// trusted: it takes nothing that these files do not have, and makes no more bytes than it should.
///
/// # Errors
/// Where it is damaged, or a file cannot be read. The sink may have got bytes that are no good.
pub fn apply_delta(
    delta: &mut impl Read,
    sources: &[File],
    size: u64,
    sink: &mut impl Write,
) -> Result<(), DeltaError> {
    let sources: Vec<spool::Spool> = sources
        .iter()
        .map(|file| spool::Spool::new(file.try_clone()?))
        .collect::<io::Result<_>>()?;
    delta::apply(delta, &sources.iter().collect::<Vec<_>>(), size, sink)
}

struct More(usize);

impl std::fmt::Display for More {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " (nor are {more} more)"),
        }
    }
}

#[cfg(test)]
mod tests;
