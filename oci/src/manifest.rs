//! Manifests: what is pushed under `/manifests/`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::descriptor::Descriptor;
use crate::digest::{Algorithm, Digest};
use crate::media_type::MediaType;
use crate::raw::Raw;

/// The manifest of one image or artifact (image-spec, manifest.md; Docker's schema 2 has the same
/// shape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// Always 2.
    pub schema_version: u64,
    /// Its own media type; OCI lets it be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests (image-spec, image-index.md; Docker calls it manifest list).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// Its own media type; OCI lets it be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// What is listed.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest of either kind, or of a kind that is stored and served but not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are images, and few live at once")]
pub enum Manifest {
    /// One image or artifact.
    Image(ImageManifest),
    /// A list.
    Index(Index),
}

/// Bytes that are not the manifest that they are said to be.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of a manifest's shape.
    #[error("the manifest is not a JSON object of the form of {media_type}")]
    Json {
        /// The media type it was read as.
        media_type: MediaType,
        /// Where it fails.
        #[source]
        source: serde_json::Error,
    },
    /// The media type inside and the one outside differ.
    #[error("the manifest says that it is {inside}, but was sent as {outside}")]
    MediaTypeDiffers {
        /// The `mediaType` property.
        inside: MediaType,
        /// The Content-Type or the descriptor's.
        outside: MediaType,
    },
    /// It could be read as two kinds (CVE-2021-41190).
    #[error("the manifest has both `layers` (or `config`) and `manifests`: it must be one kind")]
    Ambiguous,
    /// Not schema version 2.
    #[error("schema version {version} is not supported: only 2 is")]
    SchemaVersion {
        /// What it says.
        version: u64,
    },
    /// A kind of manifest that we do not store.
    #[error("manifests of type `{media_type}` are not supported")]
    Unsupported {
        /// What was given.
        media_type: MediaType,
    },
    /// The bytes have another digest than was promised.
    #[error("the manifest's digest is {got}, not {expected}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
}

/// The properties that tell the kinds of manifest apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    schema_version: Option<u64>,
    media_type: Option<MediaType>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// The largest manifest that Boatyard takes or fetches, in bytes.
    ///
    /// > "a registry SHOULD ... limit of at least 4 megabytes" (distribution-spec, "Pushing
    /// > Manifests"). containerd refuses more than this number; the conformance suite pushes 3.9 MB.
    pub const SIZE_MAX: usize = 4 * 1024 * 1024;

    /// Reads a manifest, keeps its bytes, and names them by SHA-256.
    ///
    /// `media_type` is the Content-Type it came with, or its descriptor's.
    ///
    /// # Errors
    /// Where the bytes are not such a manifest, or could be read as two kinds.
    pub fn parse(bytes: Bytes, media_type: &MediaType) -> Result<Raw<Manifest>, ManifestError> {
        Manifest::parse_with(bytes, media_type, Algorithm::Sha256)
    }

    /// Reads a manifest as [`Manifest::parse`] does, and names it by `algorithm`.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse_with(
        bytes: Bytes,
        media_type: &MediaType,
        algorithm: Algorithm,
    ) -> Result<Raw<Manifest>, ManifestError> {
        let value = Manifest::read(&bytes, media_type)?;
        let digest = Digest::of(algorithm, &bytes);
        Ok(Raw::new(bytes, digest, value))
    }

    /// Reads a manifest as [`Manifest::parse`] does, and checks that it has this digest.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and where the digest differs.
    pub fn parse_expecting(
        bytes: Bytes,
        media_type: &MediaType,
        expected: &Digest,
    ) -> Result<Raw<Manifest>, ManifestError> {
        let got = Digest::of(expected.algorithm(), &bytes);
        if got != *expected {
            return Err(ManifestError::Digest { expected: expected.clone(), got });
        }
        let value = Manifest::read(&bytes, media_type)?;
        Ok(Raw::new(bytes, got, value))
    }

    fn read(bytes: &[u8], media_type: &MediaType) -> Result<Manifest, ManifestError> {
        let json = |source| ManifestError::Json { media_type: media_type.clone(), source };
        let kind: Kind = serde_json::from_slice(bytes).map_err(json)?;
        if let Some(inside) = kind.media_type.filter(|inside| inside != media_type) {
            return Err(ManifestError::MediaTypeDiffers { inside, outside: media_type.clone() });
        }
        if kind.manifests.is_some() && (kind.layers.is_some() || kind.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        match kind.schema_version {
            Some(2) => {}
            version => {
                return Err(ManifestError::SchemaVersion { version: version.unwrap_or_default() });
            }
        }
        if media_type.is_index() {
            serde_json::from_slice(bytes).map(Manifest::Index).map_err(json)
        } else if media_type.is_image_manifest() {
            serde_json::from_slice(bytes).map(Manifest::Image).map_err(json)
        } else {
            Err(ManifestError::Unsupported { media_type: media_type.clone() })
        }
    }

    /// Returns the manifest that this one says something about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Manifest::Image(image) => image.subject.as_ref(),
            Manifest::Index(index) => index.subject.as_ref(),
        }
    }

    /// Returns the annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Manifest::Image(image) => &image.annotations,
            Manifest::Index(index) => &index.annotations,
        }
    }

    /// Returns the type under which a referrers list shows it.
    ///
    /// > "If the artifactType is empty or missing in the image manifest, the value of artifactType
    /// > MUST be set to the config descriptor's mediaType value. If the artifactType is empty or
    /// > missing in an index, the artifactType MUST be omitted." (distribution-spec, "Listing
    /// > Referrers")
    pub fn artifact_type(&self) -> Option<&MediaType> {
        let own = match self {
            Manifest::Image(image) => image.artifact_type.as_ref(),
            Manifest::Index(index) => index.artifact_type.as_ref(),
        }
        .filter(|own| !own.as_str().is_empty());
        match self {
            Manifest::Image(image) => own.or(Some(&image.config.media_type)),
            Manifest::Index(_) => own,
        }
    }

    /// Returns the blobs without which the manifest is of no use: configuration and layers.
    /// Layers that may not be distributed are left out.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        match self {
            Manifest::Image(image) => std::iter::once(&image.config)
                .chain(&image.layers)
                .filter(|descriptor| !descriptor.media_type.is_nondistributable())
                .collect(),
            Manifest::Index(_) => Vec::new(),
        }
    }

    /// Returns the manifests that an index lists.
    pub fn manifests(&self) -> &[Descriptor] {
        match self {
            Manifest::Image(_) => &[],
            Manifest::Index(index) => &index.manifests,
        }
    }
}

impl ImageManifest {
    /// Returns the bytes of a new manifest: JSON, indented by two spaces as BuildKit's are.
    pub fn to_bytes(&self) -> Bytes {
        json_bytes(self)
    }
}

impl Index {
    /// Returns an OCI index of `manifests`.
    pub fn new(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Returns the bytes of a new index: JSON, indented by two spaces as BuildKit's are.
    pub fn to_bytes(&self) -> Bytes {
        json_bytes(self)
    }
}

fn json_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec_pretty(value).expect("maps with text keys always serialise").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Result<Raw<Manifest>, ManifestError> {
        Manifest::parse(Bytes::copy_from_slice(text.as_bytes()), &MediaType::OCI_MANIFEST)
    }

    const CONFIG: &str = r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

    #[test]
    fn keeps_the_bytes_and_reads_the_value() {
        let text = format!("{{ \"schemaVersion\":2,\n {CONFIG}, \"layers\":[] }}");
        let raw = image(&text).unwrap();
        assert_eq!(raw.bytes(), text.as_bytes());
        assert_eq!(*raw.digest(), Digest::sha256(text.as_bytes()));
        assert_eq!(raw.value().blobs().len(), 1);
        assert_eq!(raw.value().artifact_type(), Some(&MediaType::OCI_CONFIG));
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        let both = format!(r#"{{"schemaVersion":2,{CONFIG},"layers":[],"manifests":[]}}"#);
        assert!(matches!(image(&both), Err(ManifestError::Ambiguous)));
        let other = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",{CONFIG}}}"#
        );
        assert!(matches!(image(&other), Err(ManifestError::MediaTypeDiffers { .. })));
    }

    #[test]
    fn refuses_other_versions_and_broken_json() {
        assert!(matches!(
            image(r#"{"schemaVersion":1}"#),
            Err(ManifestError::SchemaVersion { version: 1 })
        ));
        for bad in ["", "[]", "{", "null", "{\"schemaVersion\":2}"] {
            assert!(image(bad).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(image(&deep).is_err());
    }
}
