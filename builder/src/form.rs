//! The forms of an image: what is the same image, and yet other bytes.

use boatyard_oci::MediaType;

use crate::annotation::Annotations;
use crate::layer::compress::Compression;

/// In which form an image is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// How layers are compressed that a step made.
    pub compression: Compression,
    /// The layers of the base image, too, are compressed so.
    pub force_compression: bool,
    /// Whose names manifests and blobs have.
    pub media_types: MediaTypes,
    /// What is said about manifests.
    pub annotations: Annotations,
}

/// Whose names for the same things are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaTypes {
    /// Those of OCI's image-spec.
    #[default]
    Oci,
    /// Those of Docker's schema 2, for what reads nothing newer.
    Docker,
}

impl MediaTypes {
    /// Returns the type of an image's manifest.
    pub fn manifest(self) -> MediaType {
        match self {
            Self::Oci => MediaType::OCI_MANIFEST,
            Self::Docker => MediaType::DOCKER_MANIFEST,
        }
    }

    /// Returns the type of an index.
    pub fn index(self) -> MediaType {
        match self {
            Self::Oci => MediaType::OCI_INDEX,
            Self::Docker => MediaType::DOCKER_INDEX,
        }
    }

    /// Returns the type of a configuration.
    pub fn config(self) -> MediaType {
        match self {
            Self::Oci => MediaType::OCI_CONFIG,
            Self::Docker => MediaType::DOCKER_CONFIG,
        }
    }

    /// Returns the type of a layer that has another one: its bytes are the same. What may not be
    /// distributed keeps the name that says so.
    pub fn layer(self, own: MediaType) -> MediaType {
        const PAIRS: [(MediaType, MediaType); 2] = [
            (MediaType::OCI_LAYER, MediaType::DOCKER_LAYER),
            (MediaType::OCI_LAYER_GZIP, MediaType::DOCKER_LAYER_GZIP),
        ];
        let pair = PAIRS.into_iter().find(|(oci, docker)| own == *oci || own == *docker);
        match (self, pair) {
            (Self::Oci, Some((oci, _))) => oci,
            (Self::Docker, Some((_, docker))) => docker,
            (_, None) => own,
        }
    }
}
