//! Attestations: what is said of an image beside it, for whoever wants to know where it comes from.
//!
//! ```text
//! index ─┬─ image manifest, for its platform
//!        └─ attestation manifest, for `unknown/unknown`, about that digest ── statements
//! ```
//!
//! The form is BuildKit's: docker's readers find an attestation manifest by the annotations of its
//! descriptor in the index. It is an OCI artifact with the image as its subject, so that a registry's
//! referrers list it too, for those who ask by digest. Each of its layers is an in-toto statement: SLSA
//! [`provenance`], and a list of packages ([`sbom`]) in SPDX.
//!
//! Nothing is said unless it is asked for: an image without attestations has the digest that it had
//! before, and with them it is still the same manifest, listed by an index.

pub(crate) mod attestor;
pub mod find;
pub(crate) mod provenance;
pub mod sbom;
pub(crate) mod statement;
pub mod witness;

use std::sync::Arc;

use boatyard_oci::{ImageName, MediaType};

pub use find::{FindError, Predicate};
pub use sbom::SbomError;
pub use witness::{Materials, Witness, address};

/// The type of an attestation manifest, in BuildKit's words.
pub const ARTIFACT_TYPE: MediaType =
    MediaType::known("application/vnd.docker.attestation.manifest.v1+json");
/// The media type of a statement.
pub const STATEMENT_TYPE: MediaType = MediaType::known("application/vnd.in-toto+json");
/// The annotation of a statement's descriptor: what it says.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// The annotation of an attestation manifest's descriptor in an index: that it is one.
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The annotation beside it: the digest of the manifest that it is about.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// What is said of an image beside it.
#[derive(Clone, Debug, Default)]
pub struct Attest {
    /// Where it comes from, in how much detail.
    pub provenance: Option<Detail>,
    /// Which packages are in it.
    pub sbom: bool,
    /// Who builds, as a URI.
    pub builder_id: Option<String>,
    /// The names that the image gets.
    pub names: Vec<ImageName>,
    /// What was fetched for the build, from before it begins.
    pub materials: Arc<Materials>,
    /// The address of the build context, where it is not a directory of this machine.
    pub context: Option<String>,
}

/// How much a provenance says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What the image was made from, when, and by what.
    Min,
    /// Also arguments, the Dockerfile, and each step.
    Max,
}

impl Attest {
    /// Says whether anything is said at all.
    pub fn is_any(&self) -> bool {
        self.provenance.is_some() || self.sbom
    }
}
