//! One image of the store: its manifest and its configuration, read and checked against another.

use std::fmt;

use boatyard_content::StoreError;
use boatyard_content::local::LocalStore;
use boatyard_oci::image_config::ImageConfigError;
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageManifest, Manifest, MediaType, Platform, Raw,
};
use thiserror::Error;

/// Indexes within indexes: more than anybody makes.
const NESTED_MAX: usize = 4;

/// An image: what a manifest says, and the configuration that belongs to it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration. It has as many diff IDs as the manifest has layers.
    pub config: Raw<ImageConfig>,
}

/// Why an image cannot be read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The store lacks something of it.
    #[error("the {what} {digest} is not in the store")]
    Missing {
        /// What it would be.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// The store failed.
    #[error("cannot read the {what} {digest}")]
    Store {
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The manifest cannot be understood.
    #[error("cannot use the manifest {digest}")]
    Manifest {
        /// Its digest.
        digest: Digest,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// The configuration cannot be understood.
    #[error("cannot use the configuration {digest}")]
    Config {
        /// Its digest.
        digest: Digest,
        /// Why not.
        #[source]
        source: ImageConfigError,
    },
    /// It is an artifact.
    #[error("{digest} is no image but an artifact of type `{kind}`")]
    Artifact {
        /// The manifest's digest.
        digest: Digest,
        /// What it is.
        kind: MediaType,
    },
    /// Manifest and configuration disagree.
    #[error(
        "the manifest {digest} has {layers} layers, and its configuration has {diff_ids} diff IDs"
    )]
    LayerCount {
        /// The manifest's digest.
        digest: Digest,
        /// What the manifest has.
        layers: usize,
        /// What the configuration has.
        diff_ids: usize,
    },
    /// An index has no image for the platform, or its image is not here.
    #[error("there is no image for {wanted} here{}", Others(found))]
    Platform {
        /// The platform.
        wanted: Box<Platform>,
        /// What there is.
        found: Vec<Platform>,
    },
    /// Indexes within indexes.
    #[error("the index {digest} lists indexes, nested more than {NESTED_MAX} deep")]
    Nested {
        /// The outermost that was not read.
        digest: Digest,
    },
}

struct Others<'a>(&'a [Platform]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else { return Ok(()) };
        write!(f, ", only for {first}")?;
        rest.iter().try_for_each(|platform| write!(f, ", {platform}"))
    }
}

impl Image {
    /// Reads the image that a manifest or index is, or lists for a platform. Without a platform
    /// an index is asked for this machine's; if it has one image only, that is taken.
    ///
    /// # Errors
    /// Where something is missing or damaged, or there is no image for the platform.
    pub fn open(
        store: &LocalStore,
        target: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Image, ImageError> {
        let mut target = target.clone();
        for _ in 0..NESTED_MAX {
            match read_manifest(store, &target)?.into_value() {
                Manifest::Image(manifest) => return Image::of(store, target, manifest),
                Manifest::Index(index) => target = choose(store, &index.manifests, platform)?,
            }
        }
        Err(ImageError::Nested { digest: target.digest })
    }

    fn of(
        store: &LocalStore,
        descriptor: Descriptor,
        manifest: ImageManifest,
    ) -> Result<Image, ImageError> {
        let digest = descriptor.digest.clone();
        let kind = &manifest.config.media_type;
        if *kind != MediaType::OCI_CONFIG && *kind != MediaType::DOCKER_CONFIG {
            let kind = manifest.artifact_type.as_ref().unwrap_or(kind).clone();
            return Err(ImageError::Artifact { digest, kind });
        }
        let config = &manifest.config.digest;
        let bytes = read(store, "configuration", config, ImageConfig::SIZE_MAX)?;
        let config = ImageConfig::parse(bytes)
            .map_err(|source| ImageError::Config { digest: config.clone(), source })?;
        let (layers, diff_ids) = (manifest.layers.len(), config.value().rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(ImageError::LayerCount { digest, layers, diff_ids });
        }
        Ok(Image { descriptor, manifest, config })
    }

    /// Returns the layers with their diff IDs, bottom first.
    pub fn layers(&self) -> impl Iterator<Item = (&Descriptor, &DiffId)> {
        self.manifest.layers.iter().zip(&self.config.value().rootfs.diff_ids)
    }

    /// Returns the image ID: the digest of the configuration.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }

    /// Returns how many bytes the image's blobs have, those that it shares included.
    pub fn size(&self) -> u64 {
        let blobs = std::iter::once(&self.manifest.config).chain(&self.manifest.layers);
        blobs.map(|blob| blob.size).sum()
    }
}

/// Reads a manifest of the store.
///
/// # Errors
/// Where it is not there, or not what its descriptor says.
pub fn read_manifest(
    store: &LocalStore,
    descriptor: &Descriptor,
) -> Result<Raw<Manifest>, ImageError> {
    let digest = &descriptor.digest;
    let bytes = read(store, "manifest", digest, Manifest::SIZE_MAX)?;
    Manifest::parse_expecting(bytes, &descriptor.media_type, digest)
        .map_err(|source| ImageError::Manifest { digest: digest.clone(), source })
}

fn read(
    store: &LocalStore,
    what: &'static str,
    digest: &Digest,
    most: usize,
) -> Result<bytes::Bytes, ImageError> {
    let failed = |source| ImageError::Store { what, digest: digest.clone(), source };
    let blob = store.open_blocking(digest).map_err(failed)?;
    let blob = blob.ok_or_else(|| ImageError::Missing { what, digest: digest.clone() })?;
    boatyard_content::Blob::File(blob).into_bytes(most).map_err(failed)
}

/// Chooses from an index; only what the store has can be chosen.
fn choose(
    store: &LocalStore,
    manifests: &[Descriptor],
    platform: Option<&Platform>,
) -> Result<Descriptor, ImageError> {
    let mut here = Vec::new();
    for descriptor in manifests.iter().filter(|descriptor| !is_attestation(descriptor)) {
        let digest = &descriptor.digest;
        let found = store.stat_blocking(digest).map_err(|source| ImageError::Store {
            what: "manifest",
            digest: digest.clone(),
            source,
        })?;
        here.extend(found.map(|_| descriptor));
    }
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_some_and(|platform| wanted.runs(platform))
    };
    // Of the variants that run here, the highest; of equal ones, the first.
    let variant = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().and_then(|platform| platform.variant.clone())
    };
    let best = here.iter().copied().filter(fits).rev().max_by_key(variant);
    let only = || match here[..] {
        // An index that says nothing of platforms, or nothing was asked for.
        [one] if platform.is_none() || one.platform.is_none() => Some(one),
        _ => None,
    };
    best.or_else(only).cloned().ok_or_else(|| ImageError::Platform {
        wanted: Box::new(wanted.clone()),
        found: here.iter().filter_map(|descriptor| descriptor.platform.clone()).collect(),
    })
}

/// BuildKit lists what it says about an image as a further manifest, for `unknown/unknown`.
pub(crate) fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key("vnd.docker.reference.type")
        || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}
