//! Says what there is to say of each image that a build made.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use boatyard_oci::{Descriptor, Digest, ImageName, Platform};
use jiff::Timestamp;
use serde_json::Value;

use super::provenance::{self, Facts};
use super::statement::{self, EMPTY};
use super::{SbomError, sbom};
use crate::assemble::{AssembleError, store};
use crate::build::{BuildRequest, BuiltImage, Tools};
use crate::cache::shared::ImportError;
use crate::image::{Image, ImageError};

/// What a build knows for its attestations.
pub(crate) struct Attestor<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) tools: &'a Tools<'a>,
    pub(crate) bases: Vec<(ImageName, Platform, Digest)>,
    pub(crate) steps: &'a super::witness::Steps,
    pub(crate) began: Timestamp,
    pub(crate) epoch: Option<Timestamp>,
    /// Lists of packages by configuration: forms of one image have the same.
    pub(crate) sboms: Mutex<HashMap<Digest, Value>>,
}

/// Why nothing can be said of an image.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Its files cannot be read.
    #[error("cannot list the image's packages")]
    Sbom(#[from] SbomError),
    /// It cannot be read.
    #[error("cannot read the image that was built")]
    Image(#[from] ImageError),
    /// A layer that another machine has cannot be had.
    #[error("cannot fetch a layer to list the image's packages")]
    Import(#[from] ImportError),
}

impl Attestor<'_> {
    /// Writes what is said of an image, that of the platform in this place, and returns the descriptor of its manifest.
    pub(crate) fn attest(
        &self,
        place: usize,
        image: &BuiltImage,
    ) -> Result<Descriptor, AssembleError> {
        let attest = &self.request.attest;
        let subject = statement::subject(&attest.names, &image.platform, &image.descriptor.digest);
        let mut statements = Vec::new();
        let mut add = |predicate_type: &str, predicate: &Value| {
            let (bytes, descriptor) = statement::statement(predicate_type, predicate, &subject);
            store(self.tools, "attestation", &descriptor.digest, &bytes)?;
            statements.push(descriptor);
            Ok::<_, AssembleError>(())
        };
        if attest.sbom {
            add(sbom::PREDICATE, &self.sbom(image)?)?;
        }
        if let Some(detail) = attest.provenance {
            add(provenance::PREDICATE, &provenance::predicate(&self.facts(place), detail))?;
        }
        store(self.tools, "attestation", &Digest::sha256(EMPTY), EMPTY)?;
        let (bytes, descriptor) = statement::manifest(&image.descriptor, statements);
        store(self.tools, "attestation manifest", &descriptor.digest, &bytes)?;
        Ok(descriptor)
    }

    fn sbom(&self, built: &BuiltImage) -> Result<Value, AttestError> {
        let key = built.config.digest();
        if let Some(known) = self.sboms.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(known.clone());
        }
        let image = Image::open(&self.tools.root.store(), &built.descriptor, None)?;
        self.bring_layers(&image)?;
        let warn = |text: &str| self.tools.progress.warning(text);
        let name = self.request.attest.names.first().map(ImageName::familiar);
        let sbom = sbom::of(&self.tools.root, &image, name.as_deref(), self.tools.threads, &warn)?;
        let mut known = self.sboms.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(key.clone()).or_insert(sbom).clone())
    }

    /// Brings the layers that no step of this build needed: a list of packages is read from the files.
    fn bring_layers(&self, image: &Image) -> Result<(), AttestError> {
        let Tools { root, lease, layers, imports, threads, .. } = self.tools;
        let store = root.store();
        for blob in &image.manifest.layers {
            let held = store
                .hold_blocking(&blob.digest, Some(lease))
                .map_err(|source| SbomError::Store { layer: blob.digest.clone(), source })?;
            if held.is_none() {
                imports.bring(root, layers.tables(), *threads, blob)?;
            }
        }
        Ok(())
    }

    fn facts(&self, place: usize) -> Facts<'_> {
        let platform = self.request.platforms.get(place);
        Facts {
            request: self.request,
            bases: self.bases.clone(),
            steps: platform.map(|platform| self.steps.of(platform)).unwrap_or_default(),
            began: self.began,
            finished: (self.tools.now)(),
            epoch: self.epoch,
        }
    }
}
