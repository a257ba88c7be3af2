//! Pulling, pushing and deleting manifests.

mod push;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use boatyard_content::repository::{Repository, StoredManifest};
use boatyard_oci::name::ReferenceError;
use boatyard_oci::{Digest, Manifest, Reference, RepositoryName};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

pub(super) use push::put;

use super::answer::{self, set, set_digest};
use super::error::{ApiError, Code};
use super::{Call, blocking};
use crate::registry::Registry;

fn parse_reference(text: &str) -> Result<Reference, ApiError> {
    text.parse().map_err(|refusal: ReferenceError| match &refusal {
        ReferenceError::Digest(digest) => ApiError::refused(Code::DigestInvalid, digest),
        ReferenceError::Tag(tag) => ApiError::refused(Code::NameInvalid, tag),
    })
}

/// `GET` and `HEAD /v2/<name>/manifests/<reference>`
///
/// The busiest endpoint. The files that say what the tag points at and whether the repository has
/// it are read for every request, so that another process's push is seen at once. Where the
/// bytes are in memory they are read right here: both are a few bytes in the page cache, and
/// handing them to another thread costs more than twice what reading them does.
pub(super) async fn get(
    call: Call,
    name: &RepositoryName,
    reference: &str,
) -> Result<Response, ApiError> {
    let reference = parse_reference(reference)?;
    let repository = call.registry.repository(name);
    let found = match find_hot(&call.registry, &repository, &reference)? {
        Some(found) => found,
        None => {
            let registry = Arc::clone(&call.registry);
            blocking(move || find(&registry, &repository, &reference)).await?
        }
    };
    respond(&call, found)
}

struct Found {
    manifest: StoredManifest,
    bytes: Bytes,
}

/// Finds a manifest whose bytes are in memory. `None` says nothing about whether it exists.
fn find_hot(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
) -> Result<Option<Found>, ApiError> {
    let Some(digest) = resolve(repository, reference)? else { return Ok(None) };
    let Some(bytes) = registry.manifests.get(&digest) else { return Ok(None) };
    Ok(repository.manifest(&digest)?.map(|manifest| Found { manifest, bytes }))
}

fn find(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
) -> Result<Found, ApiError> {
    let stored = match resolve(repository, reference)? {
        Some(digest) => repository.manifest(&digest)?,
        None => None,
    };
    let Some(manifest) = stored else { return Err(unknown(repository)?) };
    let digest = &manifest.digest;
    let bytes = match registry.manifests.get(digest) {
        Some(bytes) => bytes,
        None => load(registry, digest)?,
    };
    Ok(Found { manifest, bytes })
}

/// Returns what a reference points at, as far as the tag's file says.
fn resolve(repository: &Repository, reference: &Reference) -> Result<Option<Digest>, ApiError> {
    match reference {
        Reference::Digest(digest) => Ok(Some(digest.clone())),
        Reference::Tag(tag) => Ok(repository.tag(tag)?),
    }
}

fn load(registry: &Registry, digest: &Digest) -> Result<Bytes, ApiError> {
    let Some(file) = registry.store.open_blocking(digest)? else {
        // The collector never takes what a manifest's directory names.
        return Err(ApiError::internal(format!("the bytes of manifest {digest} are missing")));
    };
    let blob = boatyard_content::Blob::File(file);
    let bytes = blob.into_bytes(Manifest::SIZE_MAX)?;
    registry.manifests.put(digest.clone(), bytes.clone(), bytes.len());
    Ok(bytes)
}

fn respond(call: &Call, found: Found) -> Result<Response, ApiError> {
    let Found { manifest, bytes } = found;
    let unchanged = call
        .header(header::IF_NONE_MATCH)
        .is_some_and(|tags| answer::matches(tags, &manifest.digest));
    if unchanged {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        set_digest(&mut response, &manifest.digest)?;
        return Ok(response);
    }
    let len = bytes.len();
    let body = if call.method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
    let mut response = Response::new(body);
    set(&mut response, header::CONTENT_TYPE, answer::text(manifest.media_type.as_str())?);
    set(&mut response, header::CONTENT_LENGTH, HeaderValue::from(len));
    set_digest(&mut response, &manifest.digest)?;
    Ok(response)
}

fn unknown(repository: &Repository) -> Result<ApiError, ApiError> {
    Ok(if repository.exists()? {
        ApiError::new(Code::ManifestUnknown, "the repository has no such manifest")
    } else {
        ApiError::new(Code::NameUnknown, "there is no such repository")
    })
}

/// `DELETE /v2/<name>/manifests/<reference>`
///
/// A tag goes alone; a manifest goes with all its tags.
pub(super) async fn delete(
    call: Call,
    name: RepositoryName,
    reference: &str,
) -> Result<Response, ApiError> {
    let reference = parse_reference(reference)?;
    blocking(move || {
        let repository = call.registry.repository(&name);
        let deleted = match &reference {
            Reference::Tag(tag) => repository.delete_tag(tag)?,
            Reference::Digest(digest) => repository.delete_manifest(digest)?,
        };
        if !deleted {
            return Err(unknown(&repository)?);
        }
        Ok(answer::empty(StatusCode::ACCEPTED))
    })
    .await
}
