//! Finding what is said of an image, wherever it is.

use boatyard_content::local::LocalStore;
use boatyard_oci::{Descriptor, Digest, Manifest};
use serde_json::Value;

use super::{PREDICATE_TYPE, REFERENCE_DIGEST, REFERENCE_TYPE, provenance, sbom};
use crate::image::{ImageError, read_manifest};

/// The largest statement that is read: SBOMs of very large images have some megabytes.
pub const STATEMENT_BYTES_MAX: usize = 256 << 20;

/// What a statement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// Where an image comes from.
    Provenance,
    /// Which packages are in it.
    Sbom,
}

/// Why a statement cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A manifest cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A blob cannot be read.
    #[error("cannot read the attestation {digest}")]
    Store {
        /// Which.
        digest: Digest,
        /// Why not.
        #[source]
        source: boatyard_content::StoreError,
    },
    /// It is no statement.
    #[error("the attestation {0} is no in-toto statement")]
    Statement(Digest),
}

impl Predicate {
    /// Says whether a predicate's type is this one: provenance of every version.
    fn is(self, predicate_type: &str) -> bool {
        match self {
            Predicate::Provenance => {
                predicate_type == provenance::PREDICATE
                    || predicate_type.starts_with("https://slsa.dev/provenance/")
            }
            Predicate::Sbom => predicate_type == sbom::PREDICATE,
        }
    }

    /// Returns the layer of an attestation manifest that says this.
    pub fn among(self, manifest: &Manifest) -> Option<&Descriptor> {
        let Manifest::Image(manifest) = manifest else { return None };
        manifest
            .layers
            .iter()
            .find(|layer| layer.annotations.get(PREDICATE_TYPE).is_some_and(|own| self.is(own)))
    }
}

/// Returns the manifests of an index that say something of an image.
pub fn about<'a>(
    index: &'a [Descriptor],
    image: &'a Digest,
) -> impl Iterator<Item = &'a Descriptor> {
    let image = image.to_string();
    index.iter().filter(move |listed| {
        let annotation = |key| listed.annotations.get(key).map(String::as_str);
        annotation(REFERENCE_TYPE) == Some("attestation-manifest")
            && annotation(REFERENCE_DIGEST) == Some(image.as_str())
    })
}

/// Returns what a statement says of its subject, once it is about this image.
///
/// # Errors
/// Where it is no statement, or one about another image.
pub fn predicate(statement: &[u8], image: &Digest, own: &Digest) -> Result<Value, FindError> {
    let wrong = || FindError::Statement(own.clone());
    let mut statement: Value = serde_json::from_slice(statement).map_err(|_| wrong())?;
    let subjects = statement["subject"].as_array().ok_or_else(wrong)?;
    let algorithm = image.algorithm().to_string();
    if !subjects.iter().any(|subject| subject["digest"][&algorithm] == image.hex()) {
        return Err(wrong());
    }
    match statement["predicate"].take() {
        Value::Null => Err(wrong()),
        predicate => Ok(predicate),
    }
}

/// Finds what the store has of an image: by the index that lists it, or by what refers to it.
///
/// # Errors
/// Where a manifest or statement cannot be read.
pub fn find(
    store: &LocalStore,
    candidates: &[Descriptor],
    image: &Digest,
    wanted: Predicate,
) -> Result<Option<Value>, FindError> {
    for candidate in candidates {
        let manifest = match read_manifest(store, candidate) {
            // Who fetches one platform of an index has no attestation.
            Err(ImageError::Missing { .. }) => continue,
            manifest => manifest?,
        };
        let Some(layer) = wanted.among(manifest.value()) else { continue };
        let failed = |source| FindError::Store { digest: layer.digest.clone(), source };
        let missing = || ImageError::Missing { what: "attestation", digest: layer.digest.clone() };
        let blob = store.open_blocking(&layer.digest).map_err(failed)?.ok_or_else(missing)?;
        let bytes = boatyard_content::Blob::File(blob).into_bytes(STATEMENT_BYTES_MAX);
        return predicate(&bytes.map_err(failed)?, image, &layer.digest).map(Some);
    }
    Ok(None)
}
