//! Room for something that is on its way into a repository.

use std::sync::Arc;

use boatyard_content::repository::RepositoryError;
use boatyard_content::{BlobInfo, IngestKey};
use boatyard_oci::Tag;

use super::book::{blob_id, tag_id};
use super::{Exceeded, Open, Quotas};

/// What is to be reserved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Nobody knows yet how much.
    Anything,
    Bytes(u64),
    Manifest {
        bytes: u64,
        tags: &'a [Tag],
    },
}

/// Room in the quotas of a repository for something that is on its way; given back when dropped.
#[derive(Debug)]
pub struct Reservation(pub(super) Option<Held>);

#[derive(Debug)]
pub(super) struct Held {
    pub(super) quotas: Arc<Quotas>,
    pub(super) number: u64,
}

impl Reservation {
    /// Returns one where there is no quota.
    pub(super) fn free() -> Reservation {
        Reservation(None)
    }

    /// Reserves more bytes, if they fit; never waits for a disk.
    ///
    /// # Errors
    /// Where they do not fit: then nothing changes.
    pub fn grow(&self, bytes: u64) -> Result<(), Exceeded> {
        self.reserve(Wanted::Bytes(bytes))
    }

    /// Reserves more bytes, and looks before it refuses what others gave up meanwhile. Blocks.
    ///
    /// # Errors
    /// [`Exceeded`], inside.
    pub fn try_grow(&self, bytes: u64) -> Result<Result<(), Exceeded>, RepositoryError> {
        self.try_reserve(Wanted::Bytes(bytes))
    }

    /// Reserves the bytes of a manifest, and tags for it. Blocks as [`Reservation::try_grow`].
    ///
    /// # Errors
    /// [`Exceeded`], inside.
    pub fn try_grow_tagged(
        &self,
        bytes: u64,
        tags: &[Tag],
    ) -> Result<Result<(), Exceeded>, RepositoryError> {
        self.try_reserve(Wanted::Manifest { bytes, tags })
    }

    fn reserve(&self, wanted: Wanted<'_>) -> Result<(), Exceeded> {
        let Some(held) = &self.0 else { return Ok(()) };
        held.quotas.state().grow(held.number, wanted)
    }

    pub(super) fn try_reserve(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<Result<(), Exceeded>, RepositoryError> {
        let Some(held) = &self.0 else { return Ok(Ok(())) };
        if self.reserve(wanted).is_ok() {
            return Ok(Ok(()));
        }
        held.quotas.catch_up()?;
        held.quotas.forget_ended()?;
        Ok(self.reserve(wanted))
    }

    /// Counts what was on its way as what the repository has now.
    pub fn land(&self, blob: &BlobInfo, tags: &[Tag]) {
        let Some(held) = &self.0 else { return };
        let mut state = held.quotas.state();
        let Some(open) = state.remove(held.number) else { return };
        state.book.put_blob(&open.repository, blob_id(&blob.digest), blob.size);
        for tag in tags {
            state.book.put_tag(&open.repository, tag_id(tag));
        }
    }

    /// Keeps what came for an upload session that goes on with another request.
    pub fn suspend(&self, session: &IngestKey, bytes: u64) {
        let Some(held) = &self.0 else { return };
        let mut state = held.quotas.state();
        if let Some(open) = state.remove(held.number) {
            state.add(Open { is_idle: true, ..Open::session(&open.repository, session, bytes) });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            held.quotas.state().remove(held.number);
        }
    }
}
