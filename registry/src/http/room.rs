//! Room in the quotas of a repository for what a request brings.

use std::sync::Arc;

use boatyard_content::BlobInfo;
use boatyard_content::IngestKey;
use boatyard_oci::{RepositoryName, Tag};
use http::StatusCode;
use serde_json::json;

use super::error::{ApiError, Code};
use super::{Call, blocking};
use crate::quota::{Exceeded, Limited, Reservation};
use crate::registry::Registry;

/// What a request may still bring: it reserves as it goes.
#[derive(Debug)]
pub(super) struct Room {
    reservation: Arc<Reservation>,
    /// Up to where in the blob bytes are reserved.
    until: u64,
}

impl Room {
    /// Makes room for something of which nobody knows how much it is; refuses it where nothing more
    /// fits.
    pub(super) async fn begin(call: &Call, name: &RepositoryName) -> Result<Room, ApiError> {
        let (quotas, name) = (Arc::clone(&call.registry.policies.quotas), name.clone());
        if !quotas.covers(&name) {
            return Ok(Room { reservation: Arc::new(quotas.open(&name)), until: 0 });
        }
        let begun = blocking(move || quotas.begin(&name)?.map_err(|over| refusal(&over))).await?;
        Ok(Room { reservation: Arc::new(begun), until: 0 })
    }

    /// Makes room for more of an upload session that has so many bytes.
    pub(super) fn resume(
        registry: &Registry,
        name: &RepositoryName,
        session: &IngestKey,
        offset: u64,
    ) -> Room {
        let reservation = registry.policies.quotas.resume(name, session, offset);
        Room { reservation: Arc::new(reservation), until: offset }
    }

    /// Reserves up to a place in the blob.
    pub(super) async fn reach(&mut self, end: u64) -> Result<(), ApiError> {
        let more = end.saturating_sub(self.until);
        if more == 0 {
            return Ok(());
        }
        if self.reservation.grow(more).is_err() {
            let reservation = Arc::clone(&self.reservation);
            blocking(move || reservation.try_grow(more)?.map_err(|over| refusal(&over))).await?;
        }
        self.until = end;
        Ok(())
    }

    /// Keeps the place of an upload session that goes on with another request.
    pub(super) fn suspend(&self, session: &IngestKey, offset: u64) {
        self.reservation.suspend(session, offset);
    }

    /// Counts what came as what the repository has now.
    pub(super) fn land(&self, blob: &BlobInfo) {
        self.reservation.land(blob, &[]);
    }
}

/// Makes room for a manifest and its tags. Blocks.
pub(super) fn for_manifest(
    registry: &Registry,
    name: &RepositoryName,
    blob: &BlobInfo,
    tags: &[Tag],
) -> Result<Reservation, ApiError> {
    let quotas = &registry.policies.quotas;
    let reservation = quotas.open(name);
    let bytes = if quotas.has(name, &blob.digest) { 0 } else { blob.size };
    reservation.try_grow_tagged(bytes, tags)?.map_err(|over| refusal(&over))?;
    Ok(reservation)
}

/// Makes room for a blob that another repository has. Blocks.
pub(super) fn for_mount(
    registry: &Registry,
    name: &RepositoryName,
    blob: &BlobInfo,
) -> Result<Reservation, ApiError> {
    for_manifest(registry, name, blob, &[])
}

/// Answers that something does not fit. Clients show the message, and do not try again.
fn refusal(over: &Exceeded) -> ApiError {
    let unit = match over.what {
        Limited::Bytes => "bytes",
        Limited::Tags => "tags",
    };
    ApiError::refused(Code::Denied, over).status(StatusCode::PAYLOAD_TOO_LARGE).detail(json!({
        "quota": over.quota,
        "unit": unit,
        "used": over.used,
        "wanted": over.wanted,
        "most": over.most,
    }))
}
