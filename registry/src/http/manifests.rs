//! Pulling, pushing and deleting manifests.

mod push;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use boatyard_access::Deed;
use boatyard_content::Blob;
use boatyard_content::repository::{Repository, RepositoryError, StoredManifest};
use boatyard_oci::name::ReferenceError;
use boatyard_oci::{Digest, Manifest, MediaType, Reference, RepositoryName, Tag};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

pub(super) use push::put;

use super::answer::{self, set, set_digest};
use super::error::{ApiError, Code};
use super::{Call, blocking};
use crate::mirror::Meant;
use crate::registry::{KnownManifest, Registry};

fn parse_reference(text: &str) -> Result<Reference, ApiError> {
    text.parse().map_err(|refusal: ReferenceError| match &refusal {
        ReferenceError::Digest(digest) => ApiError::refused(Code::DigestInvalid, digest),
        ReferenceError::Tag(tag) => ApiError::refused(Code::NameInvalid, tag),
    })
}

/// `GET` and `HEAD /v2/<name>/manifests/<reference>`
///
/// The busiest endpoint. The file that says what a tag points at, or that the repository has a
/// digest, is read for every request, so that another process's push or deletion is seen at once.
/// Where the bytes are in memory that file is read right here and not on a blocking thread: it is
/// a hundred bytes in the page cache, four system calls, and the hand-over would cost more. With
/// 64 kept-alive clients a request takes about 20 microseconds of CPU time with both of a
/// manifest's files read, 8.5 of them HTTP alone.
pub(super) async fn get(
    call: Call,
    name: &RepositoryName,
    reference: &str,
) -> Result<Response, ApiError> {
    let reference = parse_reference(reference)?;
    let repository = call.registry.repository(name);
    let asked = reference.clone();
    let found = match find_hot(&call.registry, &repository, &reference)? {
        Some(found) => found,
        None => {
            let registry = Arc::clone(&call.registry);
            blocking(move || find(&registry, &repository, &reference)).await?
        }
    };
    // Who looks what a tag points at relies on it, as a node does that has the image already.
    call.registry.policies.uses.note(name, &asked);
    call.pulled(name, &asked, &found.digest, &found.media_type, found.bytes.len());
    respond(&call, found)
}

/// The same of a mirror's upstream.
pub(super) async fn get_mirrored(
    call: Call,
    meant: &Meant,
    reference: &str,
) -> Result<Response, ApiError> {
    let reference = parse_reference(reference)?;
    let StoredManifest { digest, media_type } =
        meant.mirror.manifest(&meant.repository, &reference).await?;
    let known = match call.registry.manifests.get(&digest) {
        Some(known) => known,
        None => {
            let (registry, digest) = (Arc::clone(&call.registry), digest.clone());
            blocking(move || load(&registry, &digest)).await?
        }
    };
    respond(&call, Found { digest, media_type, bytes: known.bytes })
}

struct Found {
    digest: Digest,
    media_type: MediaType,
    bytes: Bytes,
}

/// Finds a manifest whose bytes are in memory. `None` says nothing about whether it exists.
///
/// A tag is written after its manifest and deleted before it, so a tag that is there says that the
/// manifest is; and its media type can be no other than the one inside. So one file is read.
fn find_hot(
    registry: &Registry,
    repository: &Repository,
    reference: &Reference,
) -> Result<Option<Found>, ApiError> {
    let Some(digest) = resolve(repository, reference)? else { return Ok(None) };
    let Some(KnownManifest { bytes, media_type }) = registry.manifests.get(&digest) else {
        return Ok(None);
    };
    let media_type = match (reference, media_type) {
        (Reference::Tag(_), Some(inside)) => Some(inside),
        _ => repository.manifest(&digest)?.map(|stored| stored.media_type),
    };
    Ok(media_type.map(|media_type| Found { digest, media_type, bytes }))
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
    let Some(StoredManifest { digest, media_type }) = stored else {
        return Err(unknown(repository)?);
    };
    let known = match registry.manifests.get(&digest) {
        Some(known) => known,
        None => load(registry, &digest)?,
    };
    Ok(Found { digest, media_type, bytes: known.bytes })
}

/// Returns what a reference points at, as far as the tag's file says.
fn resolve(repository: &Repository, reference: &Reference) -> Result<Option<Digest>, ApiError> {
    match reference {
        Reference::Digest(digest) => Ok(Some(digest.clone())),
        Reference::Tag(tag) => Ok(repository.tag(tag)?),
    }
}

fn load(registry: &Registry, digest: &Digest) -> Result<KnownManifest, ApiError> {
    let Some(file) = registry.store.open_blocking(digest)? else {
        // The collector never takes what a manifest's directory names.
        return Err(ApiError::internal(format!("the bytes of manifest {digest} are missing")));
    };
    let known = KnownManifest::new(Blob::File(file).into_bytes(Manifest::SIZE_MAX)?);
    registry.remember(digest, &known);
    Ok(known)
}

fn respond(call: &Call, found: Found) -> Result<Response, ApiError> {
    let Found { digest, media_type, bytes } = found;
    let unchanged =
        call.header(header::IF_NONE_MATCH).is_some_and(|tags| answer::matches(tags, &digest));
    if unchanged {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        set_digest(&mut response, &digest)?;
        return Ok(response);
    }
    let len = bytes.len();
    let body = if call.method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
    let mut response = Response::new(body);
    set(&mut response, header::CONTENT_TYPE, answer::text(media_type.as_str())?);
    set(&mut response, header::CONTENT_LENGTH, HeaderValue::from(len));
    set_digest(&mut response, &digest)?;
    Ok(response)
}

/// What cannot be done to a tag, for all that may be done by whom.
const MOVED: &str = "it cannot be pointed at another manifest";
const DELETED: &str = "it is deleted only by a request with the parameter immutable=true";

/// Answers that a tag is immutable: there is a conflict with what is here, whoever asks.
fn immutable(name: &RepositoryName, tag: &Tag, consequence: &str) -> ApiError {
    let message = format!("the tag {tag} of {name} is immutable: {consequence}");
    ApiError::new(Code::Denied, message).status(StatusCode::CONFLICT)
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
/// A tag goes alone; a manifest goes with all its tags. Tags that cannot be moved go only where the
/// request says that it means it, by `?immutable=true`.
pub(super) async fn delete(
    call: Call,
    name: RepositoryName,
    reference: &str,
) -> Result<Response, ApiError> {
    let reference = parse_reference(reference)?;
    blocking(move || {
        let repository = call.changing(&name);
        let means_it = call.query.first("immutable") == Some("true");
        let is_kept = |tag: &Tag| !means_it && call.registry.policies.immutable.holds(&name, tag);
        let deleted = match &reference {
            Reference::Tag(tag) if is_kept(tag) && repository.tag(tag)?.is_some() => {
                Err(RepositoryError::TagKept { tag: tag.clone() })
            }
            Reference::Tag(tag) => repository.delete_tag(tag),
            Reference::Digest(digest) => repository.delete_manifest_unless(digest, is_kept),
        };
        let deleted = match deleted {
            Err(RepositoryError::TagKept { tag }) => return Err(immutable(&name, &tag, DELETED)),
            deleted => deleted?,
        };
        if !deleted {
            return Err(unknown(&repository)?);
        }
        call.note(Deed::Delete, &name, |entry| entry.target = Some(reference.to_string()));
        call.changed();
        Ok(answer::empty(StatusCode::ACCEPTED))
    })
    .await
}
