//! Pushing a manifest: reading it, looking for what it needs, keeping it.

use std::collections::BTreeSet;
use std::io::Write as _;

use axum::body::Body;
use axum::response::Response;
use boatyard_access::{Action, Deed};
use boatyard_content::repository::{Repository, RepositoryError};
use boatyard_content::{BlobInfo, Expected, IngestKey, Lease};
use boatyard_oci::manifest::ManifestError;
use boatyard_oci::{Digest, Manifest, MediaType, Raw, Reference, RepositoryName, Tag};
use bytes::Bytes;
use http::{HeaderName, StatusCode, header};
use serde_json::json;

use super::{MOVED, immutable, parse_reference};
use crate::http::answer::{created, text};
use crate::http::error::{ApiError, Code};
use crate::http::{Call, blocking, detached, receive, room};
use crate::registry::{KnownManifest, Registry};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// `PUT /v2/<name>/manifests/<reference>[?tag=<tag>...]`
pub(in crate::http) async fn put(
    call: Call,
    name: RepositoryName,
    reference: &str,
    body: Body,
) -> Result<Response, ApiError> {
    let reference = parse_reference(reference)?;
    let parameters = tag_parameters(&call)?;
    let most = call.registry.limits.manifest_bytes_max.min(Manifest::SIZE_MAX);
    let too_large = || {
        let message = "the manifest is larger than this registry takes (manifest_size_max)";
        ApiError::new(Code::SizeInvalid, message)
            .status(StatusCode::PAYLOAD_TOO_LARGE)
            .detail(json!({ "most": most }))
    };
    let bytes = receive::small(body, most, too_large).await?;
    detached(blocking(move || {
        let registry = &call.registry;
        let known = KnownManifest::new(bytes);
        let media_type = media_type(&call, &known)?;
        let manifest = parse(known.bytes.clone(), &media_type, &reference)?;
        let mut tags = parameters.clone();
        if let Reference::Tag(tag) = reference
            && !tags.contains(&tag)
        {
            tags.push(tag);
        }
        let repository = call.changing(&name);
        let lease = registry.root.lease()?;
        require_parts(registry, &repository, manifest.value(), &lease)?;
        let blob = BlobInfo { digest: manifest.digest().clone(), size: manifest.size() };
        let room = room::for_manifest(registry, &name, &blob, &tags)?;
        keep(registry, &manifest, &lease)?;
        // To move a tag is a right of its own, asked for only where one would be moved.
        let is_immutable = |tag: &Tag| registry.policies.immutable.holds(&name, tag);
        let may_overwrite = call.allows(Action::Overwrite, &name);
        let may_move = |tag: &Tag| may_overwrite && !is_immutable(tag);
        let moved = match repository.put_manifest_moving(&manifest, &media_type, &tags, may_move) {
            Err(RepositoryError::TagTaken { tag }) if is_immutable(&tag) => {
                return Err(immutable(&name, &tag, MOVED));
            }
            Err(taken @ RepositoryError::TagTaken { .. }) => {
                call.authorize(Action::Overwrite, Some(&name))?;
                return Err(taken.into());
            }
            moved => moved?,
        };
        room.land(&blob, &tags);
        call.changed();
        note(&call, &name, manifest.digest(), &tags, moved);
        registry.remember(manifest.digest(), &known);
        respond(&name, &manifest, &parameters)
    }))
    .await
}

/// Writes down what was pushed, and which tags were moved for it.
fn note(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
    tags: &[Tag],
    moved: Vec<(Tag, Digest)>,
) {
    let words: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    let target = if words.is_empty() { digest.to_string() } else { words.join(" ") };
    let digest = Some(digest.to_string());
    call.note(Deed::Push, name, |entry| {
        entry.target = Some(target);
        entry.digest.clone_from(&digest);
    });
    for (tag, before) in moved {
        call.note(Deed::Overwrite, name, |entry| {
            entry.target = Some(tag.to_string());
            entry.previous = Some(before.to_string());
            entry.digest.clone_from(&digest);
        });
    }
}

/// Reads the `tag` parameters.
///
/// > "SHOULD support pushing at least 10 tags per request. MAY return a `414 Request-URI Too Long`
/// > status if too many tags are included in the request." (distribution-spec, "Pushing
/// > Manifests")
fn tag_parameters(call: &Call) -> Result<Vec<Tag>, ApiError> {
    let mut tags: Vec<Tag> = Vec::new();
    for text in call.query.all("tag") {
        let tag = text.parse().map_err(|refusal| ApiError::refused(Code::NameInvalid, &refusal))?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > call.registry.limits.tags_per_push_max {
            let message = "there are too many tags in one push (tags_per_push_max)";
            return Err(ApiError::new(Code::Unsupported, message)
                .status(StatusCode::URI_TOO_LONG)
                .detail(json!({ "most": call.registry.limits.tags_per_push_max })));
        }
    }
    Ok(tags)
}

/// Returns the media type: the Content-Type, or what the manifest says of itself where it is sent
/// without one.
fn media_type(call: &Call, known: &KnownManifest) -> Result<MediaType, ApiError> {
    if let Some(sent) = call.header(header::CONTENT_TYPE) {
        return Ok(MediaType::new(sent));
    }
    known.media_type.clone().ok_or_else(|| {
        ApiError::new(Code::ManifestInvalid, "the manifest was sent without a Content-Type")
    })
}

fn parse(
    bytes: Bytes,
    media_type: &MediaType,
    reference: &Reference,
) -> Result<Raw<Manifest>, ApiError> {
    // JSON is UTF-8, also in what is not read here.
    if std::str::from_utf8(&bytes).is_err() {
        return Err(ApiError::new(Code::ManifestInvalid, "the manifest is not UTF-8"));
    }
    let parsed = match reference {
        Reference::Digest(digest) => Manifest::parse_expecting(bytes, media_type, digest),
        Reference::Tag(_) => Manifest::parse(bytes, media_type),
    };
    parsed.map_err(|refusal| match refusal {
        ManifestError::Digest { .. } => ApiError::refused(Code::DigestInvalid, &refusal),
        ManifestError::Unsupported { .. } => ApiError::refused(Code::ManifestInvalid, &refusal)
            .status(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        _ => ApiError::refused(Code::ManifestInvalid, &refusal),
    })
}

/// Checks that the repository has all that the manifest needs, unless it need not, and holds what is
/// there meanwhile.
///
/// The subject may be missing: "A registry MUST accept an otherwise valid manifest with a subject
/// field that references a manifest that does not exist" (distribution-spec, "Pushing Manifests
/// with Subject"). What an index lists may be a blob: build caches do that.
fn require_parts(
    registry: &Registry,
    repository: &Repository,
    manifest: &Manifest,
    lease: &Lease,
) -> Result<(), ApiError> {
    let blobs: BTreeSet<&Digest> = manifest.blobs().into_iter().map(|blob| &blob.digest).collect();
    let children: BTreeSet<&Digest> = manifest.manifests().iter().map(|one| &one.digest).collect();
    let has_blob = |digest: &Digest| -> Result<bool, ApiError> {
        Ok(repository.hold_blob(digest)?
            && registry.store.hold_blocking(digest, Some(lease))?.is_some())
    };
    let mut missing = Vec::new();
    for digest in blobs {
        if !has_blob(digest)? {
            missing.push(digest.to_string());
        }
    }
    for digest in children {
        if !repository.hold_manifest(digest)? && !has_blob(digest)? {
            missing.push(digest.to_string());
        }
    }
    if missing.is_empty() || registry.limits.sparse_manifests {
        return Ok(());
    }
    let message = "the manifest refers to what the repository does not have";
    Err(ApiError::new(Code::ManifestBlobUnknown, message).detail(json!({ "digests": missing })))
}

/// Makes the manifest's bytes a blob that the lease holds.
fn keep(registry: &Registry, manifest: &Raw<Manifest>, lease: &Lease) -> Result<(), ApiError> {
    let digest = manifest.digest();
    if registry.store.hold_blocking(digest, Some(lease))?.is_some() {
        return Ok(());
    }
    let mut ingest = registry.store.ingest_blocking(&IngestKey::random(), lease)?;
    ingest.also(digest.algorithm());
    ingest.write_all(manifest.bytes()).map_err(ApiError::internal)?;
    ingest.commit_blocking(&Expected::digest(digest))?;
    Ok(())
}

fn respond(
    name: &RepositoryName,
    manifest: &Raw<Manifest>,
    parameters: &[Tag],
) -> Result<Response, ApiError> {
    let location = format!("/v2/{name}/manifests/{}", manifest.digest());
    let mut response = created(&location, manifest.digest())?;
    // > "MUST respond with the response header `OCI-Subject: <subject digest>` to indicate to the
    // > client that the registry processed the request's `subject`."
    if let Some(subject) = manifest.value().subject() {
        response.headers_mut().insert(OCI_SUBJECT, text(&subject.digest.to_string())?);
    }
    // > "MUST include an `OCI-Tag` response header ... for each accepted tag."
    for tag in parameters {
        response.headers_mut().append(OCI_TAG, text(tag.as_str())?);
    }
    Ok(response)
}
