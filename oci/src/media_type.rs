//! Media types: which form some bytes have.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A media type such as `application/vnd.oci.image.manifest.v1+json`, without parameters.
///
/// Any text may stand in one: artifacts bring their own. The known ones are constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

/// How a layer's tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// zstd (RFC 8878), any number of frames.
    Zstd,
}

impl MediaType {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: MediaType = known("application/vnd.oci.image.manifest.v1+json");
    /// An OCI index.
    pub const OCI_INDEX: MediaType = known("application/vnd.oci.image.index.v1+json");
    /// An OCI image configuration.
    pub const OCI_CONFIG: MediaType = known("application/vnd.oci.image.config.v1+json");
    /// An uncompressed OCI layer.
    pub const OCI_LAYER: MediaType = known("application/vnd.oci.image.layer.v1.tar");
    /// A gzip-compressed OCI layer.
    pub const OCI_LAYER_GZIP: MediaType = known("application/vnd.oci.image.layer.v1.tar+gzip");
    /// A zstd-compressed OCI layer.
    pub const OCI_LAYER_ZSTD: MediaType = known("application/vnd.oci.image.layer.v1.tar+zstd");
    /// The empty JSON object, where an artifact has no configuration.
    pub const OCI_EMPTY: MediaType = known("application/vnd.oci.empty.v1+json");
    /// A Docker schema 2 image manifest.
    pub const DOCKER_MANIFEST: MediaType =
        known("application/vnd.docker.distribution.manifest.v2+json");
    /// A Docker schema 2 manifest list.
    pub const DOCKER_INDEX: MediaType =
        known("application/vnd.docker.distribution.manifest.list.v2+json");
    /// A Docker image configuration.
    pub const DOCKER_CONFIG: MediaType = known("application/vnd.docker.container.image.v1+json");
    /// An uncompressed Docker layer.
    pub const DOCKER_LAYER: MediaType = known("application/vnd.docker.image.rootfs.diff.tar");
    /// A gzip-compressed Docker layer.
    pub const DOCKER_LAYER_GZIP: MediaType =
        known("application/vnd.docker.image.rootfs.diff.tar.gzip");

    /// What a client that takes any image lists in `Accept`.
    pub const IMAGE_MANIFESTS: [MediaType; 4] = [
        MediaType::OCI_MANIFEST,
        MediaType::OCI_INDEX,
        MediaType::DOCKER_MANIFEST,
        MediaType::DOCKER_INDEX,
    ];

    /// Returns a media type from a header or a descriptor; parameters (`; charset=...`) and
    /// blanks around it are dropped.
    pub fn new(text: &str) -> MediaType {
        let essence = text.split(';').next().unwrap_or_default().trim();
        MediaType(Cow::Owned(essence.to_owned()))
    }

    /// Returns a media type that is known to have no parameters: for constants.
    pub const fn known(text: &'static str) -> MediaType {
        MediaType(Cow::Borrowed(text))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether it is an index, in OCI's or Docker's form.
    pub fn is_index(&self) -> bool {
        *self == MediaType::OCI_INDEX || *self == MediaType::DOCKER_INDEX
    }

    /// Says whether it is an image manifest, in OCI's or Docker's form.
    pub fn is_image_manifest(&self) -> bool {
        *self == MediaType::OCI_MANIFEST || *self == MediaType::DOCKER_MANIFEST
    }

    /// Says whether it is a layer that the specification forbids to push
    /// (`nondistributable`, Docker's `foreign`).
    pub fn is_nondistributable(&self) -> bool {
        self.0.contains(".nondistributable.") || self.0.contains(".rootfs.foreign.")
    }

    /// Returns how a layer of this type is compressed, or `None` where it is no layer.
    pub fn layer_compression(&self) -> Option<LayerCompression> {
        let text = self.as_str();
        let layer = text.starts_with("application/vnd.oci.image.layer.")
            || text.starts_with("application/vnd.docker.image.rootfs.");
        if !layer {
            return None;
        }
        Some(match text {
            text if text.ends_with("+gzip") || text.ends_with(".gzip") => LayerCompression::Gzip,
            text if text.ends_with("+zstd") || text.ends_with(".zstd") => LayerCompression::Zstd,
            _ => LayerCompression::None,
        })
    }
}

const fn known(text: &'static str) -> MediaType {
    MediaType::known(text)
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_parameters() {
        let typed = MediaType::new(" application/vnd.oci.image.index.v1+json; charset=utf-8");
        assert_eq!(typed, MediaType::OCI_INDEX);
    }

    #[test]
    fn tells_a_layers_compression() {
        use LayerCompression::{Gzip, None as Plain, Zstd};
        let table = [
            (MediaType::OCI_LAYER, Some(Plain)),
            (MediaType::OCI_LAYER_GZIP, Some(Gzip)),
            (MediaType::OCI_LAYER_ZSTD, Some(Zstd)),
            (MediaType::DOCKER_LAYER_GZIP, Some(Gzip)),
            (MediaType::DOCKER_LAYER, Some(Plain)),
            (MediaType::OCI_CONFIG, None),
        ];
        for (media_type, expected) in table {
            assert_eq!(media_type.layer_compression(), expected, "{media_type}");
        }
    }
}
