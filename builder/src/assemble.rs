//! The image: configuration and manifest from the state of the target, and the index of several.

use std::collections::BTreeMap;
use std::sync::Arc;

use boatyard_content::{Expected, IngestKey, StoreError};
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::media_type::LayerCompression;
use boatyard_oci::{
    Descriptor, Digest, ImageConfig, ImageManifest, ImageName, Index, Manifest, Platform, Raw,
};
use jiff::Timestamp;

use crate::annotation::Level;
use crate::attest::attestor::{AttestError, Attestor};
use crate::build::{BuiltForm, BuiltImage, Tools};
use crate::cache::shared::INLINE;
use crate::form::Form;
use crate::layer::compress::Compression;
use crate::pack::{PackError, Packer};
use crate::solve::{LayerBlob, LayerStack, StackedLayer};
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
    /// Nothing can be said of the image.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// What we wrote cannot be read again: a bug.
    #[error("the image cannot be read again; this is a bug in Boatyard")]
    Config(#[source] boatyard_oci::image_config::ImageConfigError),
    /// The same for the manifest.
    #[error("the manifest cannot be read again; this is a bug in Boatyard")]
    Manifest(#[source] ManifestError),
}

/// What was built for a platform: all that is the same in every form of the image.
pub(crate) struct Assembled {
    /// The platform.
    platform: Platform,
    config: Raw<ImageConfig>,
    stack: LayerStack,
    base: Option<(ImageName, Digest)>,
}

/// Writes the configuration of a stage's state.
pub(crate) fn configure(
    tools: &Tools<'_>,
    labels: &BTreeMap<String, String>,
    state: StageState,
    epoch: Option<Timestamp>,
    inline: Option<String>,
) -> Result<Assembled, AssembleError> {
    let StageState { mut config, stack, base, .. } = state;
    // What a base image says of its own steps it says of its own layers.
    config.extra.remove(INLINE);
    config.extra.extend(inline.map(|records| (INLINE.to_owned(), records.into())));
    config.config.labels.extend(labels.clone());
    date(&mut config, epoch);
    config.rootfs.diff_ids = stack.layers().iter().map(|layer| layer.diff_id().clone()).collect();
    let config = ImageConfig::parse(config.to_bytes()).map_err(AssembleError::Config)?;
    store(tools, "configuration", config.digest(), config.bytes())?;
    Ok(Assembled { platform: config.value().platform(), config, stack, base })
}

/// Waits for the layers' blobs, and writes a manifest for each platform, and the index of several or
/// where one is asked for.
pub(crate) fn form(
    tools: &Tools<'_>,
    packer: &Packer,
    images: &[Assembled],
    (form, main): (&Form, &Form),
    wants_index: bool,
    attestor: Option<&Attestor<'_>>,
) -> Result<BuiltForm, AssembleError> {
    let mut built = Vec::with_capacity(images.len());
    for image in images {
        built.push(manifest(tools, packer, image, form, main)?);
    }
    if let ([only], false, None) = (&built[..], wants_index, attestor) {
        let top = only.descriptor.clone();
        return Ok(BuiltForm { top, images: built });
    }
    let images = built.iter().map(|image| Descriptor {
        platform: Some(image.platform.clone()),
        ..image.descriptor.clone()
    });
    let mut listed: Vec<Descriptor> = images.collect();
    // Behind the images: readers of old take the first that fits.
    if let Some(attestor) = attestor {
        for (place, image) in built.iter().enumerate() {
            listed.push(attestor.attest(place, image)?);
        }
    }
    let media_type = form.media_types.index();
    let index = Index {
        media_type: Some(media_type.clone()),
        annotations: form.annotations.at(Level::Index, None),
        ..Index::new(listed)
    };
    let index = Manifest::parse(index.to_bytes(), &media_type).map_err(AssembleError::Manifest)?;
    store(tools, "index", index.digest(), index.bytes())?;
    let top = Descriptor {
        annotations: form.annotations.at(Level::IndexDescriptor, None),
        ..Descriptor::new(media_type, index.digest().clone(), index.size())
    };
    Ok(BuiltForm { top, images: built })
}

fn manifest(
    tools: &Tools<'_>,
    packer: &Packer,
    image: &Assembled,
    form: &Form,
    main: &Form,
) -> Result<BuiltImage, AssembleError> {
    let types = form.media_types;
    let mut layers = Vec::with_capacity(image.stack.layers().len());
    for (place, layer) in image.stack.layers().iter().enumerate() {
        let mut blob = match layer.in_image() {
            Some(LayerBlob::There(blob)) if is_wanted(layer, blob, form, main) => (**blob).clone(),
            Some(LayerBlob::Packing(packing)) if form.compression == main.compression => {
                packing.wait()?
            }
            Some(_) => {
                let stack = image.stack.layers()[..=place].to_vec();
                packer.pack(stack, form.compression).wait()?
            }
            None => return Err(AssembleError::NotPacked),
        };
        blob.media_type = types.layer(blob.media_type);
        layers.push(blob);
    }
    let config = &image.config;
    let platform = Some(&image.platform);
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(types.manifest()),
        artifact_type: None,
        config: Descriptor::new(types.config(), config.digest().clone(), config.size()),
        layers,
        subject: None,
        annotations: form.annotations.at(Level::Manifest, platform),
    };
    let manifest =
        Manifest::parse(manifest.to_bytes(), &types.manifest()).map_err(AssembleError::Manifest)?;
    store(tools, "manifest", manifest.digest(), manifest.bytes())?;
    let descriptor = Descriptor {
        annotations: form.annotations.at(Level::ManifestDescriptor, platform),
        ..Descriptor::new(types.manifest(), manifest.digest().clone(), manifest.size())
    };
    Ok(BuiltImage {
        platform: image.platform.clone(),
        descriptor,
        config: config.clone(),
        base: image.base.clone(),
    })
}

/// Says whether a blob that is there is what a form wants.
fn is_wanted(layer: &StackedLayer, blob: &Descriptor, form: &Form, main: &Form) -> bool {
    if !layer.is_base() {
        return form.compression == main.compression;
    }
    // A base's layer stays what it is, unless it is to be of another kind. Its level nobody knows.
    let wanted = match form.compression {
        Compression::None => LayerCompression::None,
        Compression::Gzip { .. } => LayerCompression::Gzip,
        Compression::Zstd { .. } => LayerCompression::Zstd,
    };
    !form.force_compression
        || blob.media_type.is_nondistributable()
        || blob.media_type.layer_compression() == Some(wanted)
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
pub(crate) fn store(
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
    let mut ingest = store.ingest_blocking(&IngestKey::fleeting(), &tools.lease).map_err(failed)?;
    ingest
        .write_all(bytes)
        .map_err(|source| failed(StoreError::Io { doing: "write a blob", source }))?;
    ingest.commit_blocking(&Expected::any()).map_err(failed)?;
    Ok(())
}
