//! What a bundle says of itself.

use boatyard_oci::{Descriptor, DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::{BundleError, DeltaError};

/// The version that is written.
pub(super) const VERSION: u32 = 1;
/// The largest document: of a million blobs.
pub(super) const DOCUMENT_BYTES_MAX: usize = 128 << 20;
/// A delta may always grow to this.
const EXPANSION_BYTES: u64 = 64 << 20;
/// How many bytes may come out per byte of a delta, beyond what its sources have.
const EXPANSION_RATIO: u64 = 1000;
/// How often all that the sources have may come out.
const SOURCES_TIMES: u64 = 4;

/// The configuration of a bundle's artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// 1.
    pub version: u32,
    /// What was left out, or is needed to put a layer together.
    pub needs: Vec<Need>,
    /// All blobs of the bundle's images: what the receiver has afterwards.
    pub provides: Vec<Digest>,
    /// The layers that travel as deltas.
    pub deltas: Vec<Delta>,
}

/// A blob that the receiver must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// The blob.
    pub digest: Digest,
    /// Which image it is of, as `--since` named it.
    pub of: String,
}

/// A layer that travels as a delta.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// The layer's blob, as it shall be.
    pub blob: Descriptor,
    /// The digest of its uncompressed archive.
    pub diff_id: DiffId,
    /// The size of that.
    pub plain_size: u64,
    /// How it is packed: `none`, `gzip-<level>`, `zstd-<level>`.
    pub packing: String,
    /// The delta.
    pub delta: Digest,
    /// The layers that it takes from, in the order in which it numbers them.
    pub sources: Vec<Digest>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// Where it is none, or of a later version.
    pub fn parse(bytes: &[u8]) -> Result<Document, BundleError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let read = |error: serde_json::Error| BundleError::Document(error.into());
        let version = serde_json::from_slice::<Version>(bytes).map_err(read)?.version;
        if version != VERSION {
            return Err(BundleError::Version(version));
        }
        serde_json::from_slice(bytes).map_err(read)
    }

    /// Returns the document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialise")
    }
}

/// Checks that so many bytes may come out of a delta. `sources` is what the sources have together.
pub(super) fn check_expansion(bytes: u64, delta: u64, sources: u64) -> Result<(), DeltaError> {
    let most = EXPANSION_BYTES
        .saturating_add(delta.saturating_mul(EXPANSION_RATIO))
        .saturating_add(sources.saturating_mul(SOURCES_TIMES));
    if bytes > most { Err(DeltaError::Expansion { bytes, most }) } else { Ok(()) }
}
