//! Pulling and deleting blobs.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use boatyard_access::Deed;
use boatyard_content::BlobFile;
use boatyard_content::repository::Repository;
use boatyard_front::body;
use boatyard_oci::{Digest, Reference, RepositoryName};
use http::{HeaderValue, Method, StatusCode, header};

use super::answer::{self, parse_digest, set, set_digest};
use super::error::{ApiError, Code};
use super::range::{self, Wanted};
use super::{Call, blocking, mirrored};
use crate::mirror::upstream::{Arriving, Found};
use crate::mirror::{Meant, MirrorError};

/// `GET` and `HEAD /v2/<name>/blobs/<digest>`
pub(super) async fn get(
    call: Call,
    name: RepositoryName,
    digest: &str,
) -> Result<Response, ApiError> {
    let digest = parse_digest(digest)?;
    let repository = call.registry.repository(&name);
    let mut response = match read_hot(&call, &repository, &digest)? {
        Some(response) => response,
        None => {
            let digest = digest.clone();
            let look = move || match call.method {
                Method::HEAD => head(&call, &repository, &digest),
                _ => read(&call, &repository, &digest),
            };
            blocking(look).await?
        }
    };
    set_digest(&mut response, &digest)?;
    set(&mut response, header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// The same of a mirror's upstream: what is not here is sent while it arrives.
pub(super) async fn get_mirrored(
    call: Call,
    meant: Meant,
    digest: &str,
) -> Result<Response, ApiError> {
    let digest = parse_digest(digest)?;
    let mut response = match call.method {
        Method::HEAD => head_mirrored(&call, &meant, &digest).await?,
        _ => read_mirrored(call, meant, &digest).await?,
    };
    set_digest(&mut response, &digest)?;
    set(&mut response, header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// Answers that a mirror's upstream has a blob.
///
/// A client that pushes asks so for each blob, also of a repository that is new here and then
/// belongs to the default upstream, if to any. That this upstream fails is no reason not to push.
async fn head_mirrored(call: &Call, meant: &Meant, digest: &Digest) -> Result<Response, ApiError> {
    let size = match meant.mirror.blob_size(&meant.repository, digest).await {
        Err(error) if meant.by_default => {
            tracing::info!(%error, "a blob counts as absent: it was asked for without a mirror's name");
            return Err(ApiError::new(Code::BlobUnknown, "there is no such blob").cause(error));
        }
        size => size.map_err(unknown_mirrored)?,
    };
    if is_unchanged(call, digest) {
        return Ok(answer::empty(StatusCode::NOT_MODIFIED));
    }
    Ok(bytes(StatusCode::OK, Body::empty(), size))
}

async fn read_mirrored(call: Call, meant: Meant, digest: &Digest) -> Result<Response, ApiError> {
    let Meant { mirror, repository, .. } = meant;
    let kept = mirror.readable(&repository, digest).map_err(unknown_mirrored)?;
    if let Some(response) = read_hot(&call, &kept, digest)? {
        kept.mark_used(&Reference::Digest(digest.clone()))?;
        return Ok(response);
    }
    match mirror.blob(&repository, digest).await.map_err(unknown_mirrored)? {
        Found::Here(file) => {
            let digest = digest.clone();
            blocking(move || send(&call, &digest, &file)).await
        }
        Found::Arriving(arriving) => send_arriving(&call, digest, arriving),
    }
}

fn unknown_mirrored(error: Arc<MirrorError>) -> ApiError {
    mirrored::refusal(error, Code::BlobUnknown)
}

/// Answers with a blob as it comes. Where nobody said how long it is, there are no ranges of it.
fn send_arriving(call: &Call, digest: &Digest, arriving: Arriving) -> Result<Response, ApiError> {
    let Some(size) = arriving.size() else {
        let mut response =
            bytes(StatusCode::OK, body::of_pieces(arriving.pieces(0..u64::MAX), None), 0);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        return Ok(response);
    };
    respond(call, digest, size, |range| {
        Ok(body::of_pieces(arriving.pieces(range.clone()), Some(range.end - range.start)))
    })
}

/// Answers with a blob that is kept open. `None` says nothing about whether there is one.
///
/// As with manifests: what is looked up for each request, that the file is still the blob's and
/// that the repository has it, are two system calls on directories in memory, and the hand-over
/// to a blocking thread and back costs several times that.
fn read_hot(
    call: &Call,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<Response>, ApiError> {
    if call.method == Method::HEAD {
        return Ok(None);
    }
    let registry = &call.registry;
    let Some(open) = registry.blobs.get(digest) else { return Ok(None) };
    // First whether the repository has it: where it has not, what others have takes no time.
    if !repository.has_blob(digest)? {
        return Ok(None);
    }
    if !registry.store.is_blob(digest, open.file)? {
        registry.blobs.remove(digest);
        return Ok(None);
    }
    respond(call, digest, open.mapped.size(), |range| open.mapped.body(range)).map(Some)
}

/// Answers that the blob exists, and keeps it so for the grace period: a client that was told so
/// will not push it.
fn head(call: &Call, repository: &Repository, digest: &Digest) -> Result<Response, ApiError> {
    if !repository.hold_blob(digest)? {
        return Err(unknown(repository)?);
    }
    let Some(info) = call.registry.store.hold_blocking(digest, None)? else {
        return Err(unknown(repository)?);
    };
    if is_unchanged(call, digest) {
        return Ok(answer::empty(StatusCode::NOT_MODIFIED));
    }
    Ok(bytes(StatusCode::OK, Body::empty(), info.size))
}

fn read(call: &Call, repository: &Repository, digest: &Digest) -> Result<Response, ApiError> {
    if !repository.has_blob(digest)? {
        return Err(unknown(repository)?);
    }
    let Some(file) = call.registry.store.open_blocking(digest)? else {
        return Err(unknown(repository)?);
    };
    send(call, digest, &file)
}

/// Answers with a blob's file.
fn send(call: &Call, digest: &Digest, file: &BlobFile) -> Result<Response, ApiError> {
    match call.registry.keep_open(digest, file).map_err(ApiError::internal)? {
        Some(open) => respond(call, digest, file.size(), |range| open.mapped.body(range)),
        None => respond(call, digest, file.size(), |range| body::of_file(file, range)),
    }
}

/// Answers with a blob, or the part of it that is wanted.
fn respond(
    call: &Call,
    digest: &Digest,
    size: u64,
    body: impl FnOnce(std::ops::Range<u64>) -> std::io::Result<Body>,
) -> Result<Response, ApiError> {
    if is_unchanged(call, digest) {
        return Ok(answer::empty(StatusCode::NOT_MODIFIED));
    }
    let body = |range| body(range).map_err(ApiError::internal);
    match wanted(call, digest, size) {
        Wanted::Whole => Ok(bytes(StatusCode::OK, body(0..size)?, size)),
        Wanted::Part(part) => {
            let place = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let len = part.end - part.start;
            let mut response = bytes(StatusCode::PARTIAL_CONTENT, body(part)?, len);
            set(&mut response, header::CONTENT_RANGE, answer::text(&place)?);
            Ok(response)
        }
        // > "A server generating a 416 (Range Not Satisfiable) response to a byte-range request
        // > SHOULD generate a Content-Range header field specifying the current length of the
        // > selected representation" (RFC 9110, section 15.5.17)
        Wanted::Unsatisfiable => {
            Err(ApiError::new(Code::SizeInvalid, "the blob does not have this range")
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, answer::text(&format!("bytes */{size}"))?))
        }
    }
}

fn is_unchanged(call: &Call, digest: &Digest) -> bool {
    call.header(header::IF_NONE_MATCH).is_some_and(|tags| answer::matches(tags, digest))
}

/// Returns what `Range` asks for, unless `If-Range` names another blob.
fn wanted(call: &Call, digest: &Digest, size: u64) -> Wanted {
    let other = call
        .header(header::IF_RANGE)
        .is_some_and(|tag| tag.starts_with("W/") || !answer::matches(tag, digest));
    match call.header(header::RANGE) {
        Some(asked) if !other => range::wanted(asked, size),
        _ => Wanted::Whole,
    }
}

fn bytes(status: StatusCode, body: Body, len: u64) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let octets = HeaderValue::from_static("application/octet-stream");
    set(&mut response, header::CONTENT_TYPE, octets);
    set(&mut response, header::CONTENT_LENGTH, HeaderValue::from(len));
    response
}

/// Returns the answer for a blob that is not there: perhaps its repository is not, either.
fn unknown(repository: &Repository) -> Result<ApiError, ApiError> {
    Ok(if repository.exists()? {
        ApiError::new(Code::BlobUnknown, "the repository has no such blob")
    } else {
        ApiError::new(Code::NameUnknown, "there is no such repository")
    })
}

/// `DELETE /v2/<name>/blobs/<digest>`
///
/// Only this repository loses it; the bytes are the collector's business.
pub(super) async fn delete(
    call: Call,
    name: RepositoryName,
    digest: &str,
) -> Result<Response, ApiError> {
    let digest = parse_digest(digest)?;
    blocking(move || {
        let repository = call.changing(&name);
        if !repository.unlink_blob(&digest)? {
            return Err(unknown(&repository)?);
        }
        call.note(Deed::Delete, &name, |entry| entry.target = Some(digest.to_string()));
        call.changed();
        Ok(answer::empty(StatusCode::ACCEPTED))
    })
    .await
}
