//! Statements, and the manifest that lists them.

use std::collections::BTreeMap;

use boatyard_oci::{Descriptor, Digest, ImageManifest, ImageName, MediaType, Platform, Reference};
use serde_json::{Value, json};

use super::{ARTIFACT_TYPE, PREDICATE_TYPE, REFERENCE_DIGEST, REFERENCE_TYPE, STATEMENT_TYPE};

/// The empty JSON object: where an artifact has no configuration.
pub(crate) const EMPTY: &[u8] = b"{}";

/// Returns a statement's bytes and descriptor.
pub(crate) fn statement(
    predicate_type: &str,
    predicate: &Value,
    subject: &Value,
) -> (Vec<u8>, Descriptor) {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    let bytes = statement.to_string().into_bytes();
    let annotations = BTreeMap::from([(PREDICATE_TYPE.to_owned(), predicate_type.to_owned())]);
    let descriptor = Descriptor { annotations, ..Descriptor::of(STATEMENT_TYPE, &bytes) };
    (bytes, descriptor)
}

/// Returns what statements are about: the image by each of its names.
pub(crate) fn subject(names: &[ImageName], platform: &Platform, image: &Digest) -> Value {
    let digest = json!({ image.algorithm().to_string(): image.hex() });
    let named = |name: &ImageName| json!({ "name": purl(name, Some(platform)), "digest": digest });
    match names {
        [] => json!([{ "name": "_", "digest": digest }]),
        names => names.iter().map(named).collect(),
    }
}

/// Returns the package URL of an image.
pub(crate) fn purl(name: &ImageName, platform: Option<&Platform>) -> String {
    // As docker writes them: the default registry, and its `library/`, go without saying.
    let familiar = name.familiar();
    let (path, version) = match &name.reference {
        Reference::Tag(tag) => {
            let suffix = format!(":{tag}");
            (familiar.strip_suffix(&suffix).unwrap_or(&familiar).to_owned(), tag.to_string())
        }
        Reference::Digest(digest) => {
            let path = familiar.split('@').next().unwrap_or_default().to_owned();
            (path, digest.to_string())
        }
    };
    let escaped = |text: &str| text.replace('%', "%25").replace(':', "%3A");
    let path = escaped(&path);
    let platform = platform.map(|platform| platform.to_string().replace('/', "%2F"));
    let platform = platform.map_or_else(String::new, |platform| format!("?platform={platform}"));
    format!("pkg:docker/{path}@{}{platform}", escaped(&version))
}

/// Returns the bytes of an attestation manifest, and its descriptor for the index.
pub(crate) fn manifest(image: &Descriptor, statements: Vec<Descriptor>) -> (Vec<u8>, Descriptor) {
    let subject = Descriptor::new(image.media_type.clone(), image.digest.clone(), image.size);
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST),
        artifact_type: Some(ARTIFACT_TYPE),
        config: Descriptor::of(MediaType::OCI_EMPTY, EMPTY),
        layers: statements,
        subject: Some(subject),
        annotations: BTreeMap::new(),
    };
    let bytes = manifest.to_bytes().to_vec();
    let annotations = BTreeMap::from([
        (REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
        (REFERENCE_DIGEST.to_owned(), image.digest.to_string()),
    ]);
    let platform = "unknown/unknown".parse().ok();
    let descriptor =
        Descriptor { annotations, platform, ..Descriptor::of(MediaType::OCI_MANIFEST, &bytes) };
    (bytes, descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        let platform: Platform = "linux/arm64".parse().unwrap();
        for (name, expected) in [
            ("debian:12", "pkg:docker/debian@12?platform=linux%2Farm64"),
            ("team/app", "pkg:docker/team/app@latest?platform=linux%2Farm64"),
            (
                "registry.example:5000/team/app:1",
                "pkg:docker/registry.example%3A5000/team/app@1?platform=linux%2Farm64",
            ),
        ] {
            assert_eq!(purl(&name.parse().unwrap(), Some(&platform)), expected);
        }
    }
}
