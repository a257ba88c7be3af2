//! Pushing blobs: in one request, in two, in chunks, in a stream; resumed, mounted, cancelled.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use boatyard_content::store::Store as _;
use boatyard_content::{BlobInfo, Expected, Ingest, IngestKey, Lease, StoreError};
use boatyard_oci::{Algorithm, Digest, RepositoryName};
use http::{StatusCode, header};

use super::answer::{self, blob_location, created, parse_digest};
use super::error::{ApiError, Code};
use super::receive::{drain, into_ingest};
use super::room::Room;
use super::session::Session;
use super::{Call, blocking, detached, mount};
use crate::registry::Registry;

/// `POST /v2/<name>/blobs/uploads/`: begins a session, or does all at once with `mount` or
/// `digest`.
pub(super) async fn begin(
    call: Call,
    name: RepositoryName,
    mut body: Body,
) -> Result<Response, ApiError> {
    if let Some(digest) = call.query.first("mount") {
        // > "If a registry does not support cross-repository mounting or is unable to mount the
        // > requested blob, it SHOULD return a 202." (distribution-spec, "Mounting a blob")
        if let Some(mounted) = mount::mount(&call, &name, digest).await? {
            return Ok(mounted);
        }
    } else if let Some(digest) = call.query.first("digest") {
        let digest = match parse_digest(digest) {
            Ok(digest) => digest,
            Err(refusal) => {
                drain(&mut body).await;
                return Err(refusal);
            }
        };
        return detached(at_once(call, name, digest, body)).await;
    }
    let algorithm = match call.query.first("digest-algorithm") {
        None => None,
        Some(text) => Some(
            text.parse::<Algorithm>()
                .map_err(|refusal| ApiError::refused(Code::DigestInvalid, &refusal))?,
        ),
    };
    let session = Session::begin(&call, name, algorithm).await?;
    session.answer(StatusCode::ACCEPTED, 0)
}

/// Takes a whole blob without a session.
async fn at_once(
    call: Call,
    name: RepositoryName,
    digest: Digest,
    mut body: Body,
) -> Result<Response, ApiError> {
    let registry = &call.registry;
    let mut room = match Room::begin(&call, &name).await {
        Ok(room) => room,
        Err(refusal) => {
            drain(&mut body).await;
            return Err(refusal);
        }
    };
    let lease = registry.root.lease()?;
    let mut ingest = registry.store.ingest(&IngestKey::random(), &lease).await?;
    ingest.also(digest.algorithm());
    let most = registry.limits.blob_bytes_max;
    if let Err(error) = into_ingest(&mut body, &mut ingest, most, &mut room).await {
        // The answer is why it failed, not that it could not be tidied up as well.
        if let Err(error) = ingest.abort().await {
            tracing::warn!("cannot forget what arrived of a blob: {error}");
        }
        drain(&mut body).await;
        return Err(error);
    }
    let size = ingest.offset();
    ingest.commit(Expected::digest(&digest)).await?;
    link(registry, &name, &digest, lease).await?;
    room.land(&BlobInfo { digest: digest.clone(), size });
    created(&blob_location(&name, &digest), &digest)
}

/// `PATCH /v2/<name>/blobs/uploads/<session>`
pub(super) async fn append(
    call: Call,
    name: RepositoryName,
    key: &str,
    mut body: Body,
) -> Result<Response, ApiError> {
    let session = Session::find(&call, name, key).await?;
    // What arrives is kept whatever becomes of the connection.
    detached(async move {
        let appended = append_to(&call, &session, &mut body).await;
        if let Err(error) = &appended {
            make_room(&session, error).await;
            drain(&mut body).await;
        }
        session.answer(StatusCode::ACCEPTED, appended?)
    })
    .await
}

async fn append_to(call: &Call, session: &Session, body: &mut Body) -> Result<u64, ApiError> {
    // No blob lands here, so there is nothing to hold.
    let mut ingest = session.take_up(&Lease::unheld()).await?;
    let mut room = session.room(ingest.offset());
    let received = receive(call, session, body, &mut ingest, &mut room).await;
    let came = ingest.offset();
    let kept = ingest.suspend().await;
    room.suspend(&session.key, came);
    received?;
    Ok(kept?)
}

/// Appends a request's bytes where they belong.
async fn receive(
    call: &Call,
    session: &Session,
    body: &mut Body,
    ingest: &mut Ingest,
    room: &mut Room,
) -> Result<(), ApiError> {
    let most = call.registry.limits.blob_bytes_max;
    let end = session.place(call, ingest.offset())?;
    into_ingest(body, ingest, end.unwrap_or(most).min(most), room).await?;
    if end.is_some_and(|end| end != ingest.offset()) {
        let message = "there were fewer bytes than Content-Range announced";
        return Err(ApiError::new(Code::SizeInvalid, message));
    }
    Ok(())
}

/// `PUT /v2/<name>/blobs/uploads/<session>?digest=<digest>`
pub(super) async fn finish(
    call: Call,
    name: RepositoryName,
    key: &str,
    mut body: Body,
) -> Result<Response, ApiError> {
    let session = Session::find(&call, name, key).await?;
    let digest = match call.query.first("digest") {
        Some(digest) => parse_digest(digest),
        None => Err(ApiError::new(Code::DigestInvalid, "the parameter `digest` is missing")),
    };
    let digest = match digest {
        Ok(digest) => digest,
        Err(refusal) => {
            drain(&mut body).await;
            return Err(refusal);
        }
    };
    detached(async move {
        let finished = finish_by(&call, &session, &mut body, &digest).await;
        if let Err(error) = &finished {
            make_room(&session, error).await;
            drain(&mut body).await;
        }
        finished?;
        created(&blob_location(&session.name, &digest), &digest)
    })
    .await
}

async fn finish_by(
    call: &Call,
    session: &Session,
    body: &mut Body,
    digest: &Digest,
) -> Result<(), ApiError> {
    let lease = call.registry.root.lease()?;
    let mut ingest = session.take_up(&lease).await?;
    ingest.also(digest.algorithm());
    let mut room = session.room(ingest.offset());
    if let Err(error) = receive(call, session, body, &mut ingest, &mut room).await {
        room.suspend(&session.key, ingest.offset());
        if let Err(error) = ingest.suspend().await {
            tracing::warn!("cannot keep what arrived of a blob: {error}");
        }
        return Err(error);
    }
    let size = ingest.offset();
    match ingest.commit(Expected::digest(digest)).await {
        Ok(_) => {}
        Err(mismatch @ (StoreError::DigestMismatch { .. } | StoreError::SizeMismatch { .. })) => {
            // The bytes are gone, and with them the session.
            session.clone().end().await?;
            return Err(mismatch.into());
        }
        Err(error) => return Err(error.into()),
    }
    link(&call.registry, &session.name, digest, lease).await?;
    room.land(&BlobInfo { digest: digest.clone(), size });
    session.clone().end().await
}

/// Ends a session for which there is no space, on the disk or in a quota: what it holds is what
/// fills it, and a client that tries again begins another one.
async fn make_room(session: &Session, error: &ApiError) {
    if error.ends_upload()
        && let Err(error) = discard(session).await
    {
        tracing::warn!("cannot end an upload for which there is no space: {error:?}");
    }
}

/// Forgets a session and what it holds.
async fn discard(session: &Session) -> Result<(), ApiError> {
    session.take_up(&Lease::unheld()).await?.abort().await?;
    session.clone().end().await
}

/// Makes a blob that the lease holds one of the repository.
async fn link(
    registry: &Arc<Registry>,
    name: &RepositoryName,
    digest: &Digest,
    lease: Lease,
) -> Result<(), ApiError> {
    let (registry, name, digest) = (Arc::clone(registry), name.clone(), digest.clone());
    blocking(move || {
        registry.repository(&name).link_blob(&digest)?;
        registry.sources.put(digest, name, 1);
        lease.release();
        Ok(())
    })
    .await
}

/// `GET /v2/<name>/blobs/uploads/<session>`
pub(super) async fn status(
    call: Call,
    name: RepositoryName,
    key: &str,
) -> Result<Response, ApiError> {
    let session = Session::find(&call, name, key).await?;
    let offset = session.take_up(&Lease::unheld()).await?.offset();
    session.answer(StatusCode::NO_CONTENT, offset)
}

/// `DELETE /v2/<name>/blobs/uploads/<session>`
pub(super) async fn cancel(
    call: Call,
    name: RepositoryName,
    key: &str,
) -> Result<Response, ApiError> {
    let session = Session::find(&call, name, key).await?;
    detached(async move {
        discard(&session).await?;
        let mut response = answer::empty(StatusCode::NO_CONTENT);
        answer::set(&mut response, header::CONTENT_LENGTH, 0.into());
        Ok(response)
    })
    .await
}
