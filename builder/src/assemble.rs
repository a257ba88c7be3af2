//! The image: configuration and manifest from the state of the target.

use std::collections::BTreeMap;
use std::sync::Arc;

use boatyard_content::{Expected, IngestKey, StoreError};
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::{Descriptor, Digest, ImageConfig, ImageManifest, Manifest, MediaType};
use jiff::Timestamp;

use crate::build::{Built, Tools};
use crate::pack::PackError;
use crate::solve::LayerBlob;
use crate::stage::StageState;

/// Why an image could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A layer could not be packed.
    #[error(transparent)]
    Pack(#[from] Arc<PackError>),
    /// A layer of the image was taken for one of another stage: a bug.
    #[error("a layer of the image was not packed; this is a bug in Boatyard")]
    NotPacked,
    /// A blob could not be stored.
    #[error("cannot store the image's {what}")]
    Store {
        /// Configuration or manifest.
        what: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// What we wrote cannot be read again: a bug.
    #[error("the image cannot be read again; this is a bug in Boatyard")]
    Config(#[source] boatyard_oci::image_config::ImageConfigError),
    /// The same for the manifest.
    #[error("the manifest cannot be read again; this is a bug in Boatyard")]
    Manifest(#[source] ManifestError),
}

/// Waits for the layers' blobs, and writes configuration and manifest.
pub(crate) fn assemble(
    tools: &Tools<'_>,
    labels: &BTreeMap<String, String>,
    state: StageState,
    epoch: Option<Timestamp>,
) -> Result<Built, AssembleError> {
    let StageState { mut config, stack, base, .. } = state;
    config.config.labels.extend(labels.clone());
    date(&mut config, epoch);
    config.rootfs.diff_ids = stack.layers().iter().map(|layer| layer.diff_id().clone()).collect();
    let config = ImageConfig::parse(config.to_bytes()).map_err(AssembleError::Config)?;
    store(tools, "configuration", config.digest(), config.bytes())?;
    let mut blobs = Vec::with_capacity(stack.layers().len());
    for layer in stack.layers() {
        blobs.push(match layer.in_image() {
            Some(LayerBlob::There(descriptor)) => inherited((**descriptor).clone()),
            Some(LayerBlob::Packing(packing)) => packing.wait()?,
            None => return Err(AssembleError::NotPacked),
        });
    }
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST),
        artifact_type: None,
        config: Descriptor::new(MediaType::OCI_CONFIG, config.digest().clone(), config.size()),
        layers: blobs,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let manifest = Manifest::parse(manifest.to_bytes(), &MediaType::OCI_MANIFEST)
        .map_err(AssembleError::Manifest)?;
    store(tools, "manifest", manifest.digest(), manifest.bytes())?;
    Ok(Built { manifest, config, base })
}

/// Returns the descriptor of a base image's layer as an OCI manifest has it: the bytes are the
/// same, Docker's name for them is not.
fn inherited(mut descriptor: Descriptor) -> Descriptor {
    if descriptor.media_type == MediaType::DOCKER_LAYER_GZIP {
        descriptor.media_type = MediaType::OCI_LAYER_GZIP;
    } else if descriptor.media_type == MediaType::DOCKER_LAYER {
        descriptor.media_type = MediaType::OCI_LAYER;
    }
    descriptor
}

/// Dates the image: as its newest step. Whatever came before the first step that has a time has
/// that one's; where none has, nothing is dated, so that equal images stay equal.
fn date(config: &mut ImageConfig, epoch: Option<Timestamp>) {
    let mut next = epoch;
    for entry in config.history.iter_mut().rev() {
        entry.created = entry.created.or(next);
        next = entry.created;
    }
    config.created = epoch.or_else(|| config.history.iter().filter_map(|e| e.created).max());
}

/// Stores bytes, unless they are there.
fn store(
    tools: &Tools<'_>,
    what: &'static str,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), AssembleError> {
    use std::io::Write as _;
    let failed = |source| AssembleError::Store { what, source };
    let store = tools.root.store();
    if store.hold_blocking(digest, Some(&tools.lease)).map_err(failed)?.is_some() {
        return Ok(());
    }
    let mut ingest = store.ingest_blocking(&IngestKey::random(), &tools.lease).map_err(failed)?;
    ingest
        .write_all(bytes)
        .map_err(|source| failed(StoreError::Io { doing: "write a blob", source }))?;
    ingest.commit_blocking(&Expected::any()).map_err(failed)?;
    Ok(())
}
