//! Taking in the body of a request.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use axum::body::Body;
use boatyard_content::Ingest;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::error::{ApiError, Code};
use super::room::Room;

/// How much of a refused request's body is read, so that a client that writes before it reads
/// sees why it was refused, and for how long.
const DRAIN_BYTES_MAX: usize = 8 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Appends the whole of a body to an ingest, up to `offset_max` bytes in all, and as far as there
/// is room. What the body announces is reserved before it is read.
///
/// What arrived before an error is appended: the caller decides whether it is kept.
pub(super) async fn into_ingest(
    body: &mut Body,
    ingest: &mut Ingest,
    offset_max: u64,
    room: &mut Room,
) -> Result<(), ApiError> {
    let announced = ingest.offset().saturating_add(body.size_hint().lower());
    room.reach(announced.min(offset_max)).await?;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(interrupted)?.into_data() else { continue };
        if ingest.offset() + data.len() as u64 > offset_max {
            let message = "there are more bytes than announced or allowed (blob_size_max)";
            return Err(
                ApiError::new(Code::SizeInvalid, message).status(StatusCode::PAYLOAD_TOO_LARGE)
            );
        }
        room.reach(ingest.offset() + data.len() as u64).await?;
        ingest.append(data).await?;
    }
    Ok(())
}

/// Reads the whole of a small body; `too_large` answers one with more than `most` bytes.
pub(super) async fn small(
    mut body: Body,
    most: usize,
    too_large: impl Fn() -> ApiError,
) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().lower();
    if announced > most as u64 {
        drain(&mut body).await;
        return Err(too_large());
    }
    let mut bytes = BytesMut::with_capacity(announced as usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(interrupted)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            drain(&mut body).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads and drops what is left of a refused request's body, within limits.
pub(super) async fn drain(body: &mut Body) {
    let read = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    // Whether it ended or was given up makes no difference.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, read).await;
}

fn interrupted(cause: axum::Error) -> ApiError {
    if is_too_slow(&cause) {
        let message = "the request's body came too slowly (stall_timeout, rate_min)";
        return ApiError::new(Code::BlobUploadInvalid, message)
            .status(StatusCode::REQUEST_TIMEOUT)
            .cause(cause);
    }
    ApiError::new(Code::BlobUploadInvalid, "the request's body ended before it was whole")
        .cause(cause)
}

/// Says whether the server gave the body up because its client was too slow.
fn is_too_slow(error: &axum::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::TimedOut;
        }
        source = error.source();
    }
    false
}
