//! Transfers: the one way to bring an object from an upstream.
//!
//! The first who asks for a key starts its transfer; all others read along, each from any place
//! and at its own pace, for they read the file that is being written and not the connection. There
//! is one transfer of a key in all processes of a root: the lock of its ingest says who runs it.
//! The others follow the file, and whoever finds the lock free goes on with it.
//!
//! ```text
//! open ──▶ flight (one per key and process) ──▶ fetch: sources, one after the other
//!   │        │ follows another process's ingest       │ missing bytes, by Range
//!   ▼        ▼                                        ▼
//! reader ◀── growing file ◀────────────────────── ingest ──commit──▶ blob
//! ```
//!
//! - Bytes become a blob only if their length and digest are what was promised. The last
//!   [`WITHHELD`] bytes are not handed out before that, so a reader of a wrong object gets an error
//!   and never the whole of it. Another source is then asked, once; those who have read nothing yet
//!   read from that one, the others are cut.
//! - A connection that breaks is resumed where it broke, with `If-Range` where no digest was
//!   promised; a transfer that was put aside, or whose process died, is resumed the same way by
//!   whoever asks next.
//! - Readers that leave stop nothing. Without any, a transfer goes on within
//!   [`Limits::unread_bytes`] and [`Limits::unread_for`], then it is put aside.
//! - Every wait has its limit in [`Limits`].
//!
//! Requests for a part of an object do not change what is fetched: all of it, from the start. A
//! reader of the end waits until the beginning is there.

mod admission;
mod error;
mod fetch;
mod flight;
mod follow;
mod head;
mod limits;
mod pace;
mod reader;
mod source;
mod validator;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boatyard_content::{Expected, IngestKey, Lease, Store, StoreError};
use boatyard_oci::{Descriptor, Digest};

use crate::clock::Clock;
use flight::{Flight, Seat};

pub(crate) use admission::Admission;
pub use error::{Failure, TransferError};
pub(crate) use fetch::{Audience, Fetch, Fetched};
pub use head::Head;
pub use limits::Limits;
pub use reader::{Reader, WITHHELD, Watch};
pub use source::{Arrival, Cause, Missing, Source, SourceError};
pub use validator::Validator;

/// An object that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What tells it from others: all who want the same key share its transfer.
    pub key: IngestKey,
    /// What was promised of it.
    pub expected: Expected,
}

impl Wanted {
    /// Wants the blob of this digest, of whatever size.
    pub fn blob(digest: &Digest) -> Wanted {
        Wanted { key: IngestKey::of(digest), expected: Expected::digest(digest) }
    }

    /// Wants the blob that a manifest describes.
    pub fn described(blob: &Descriptor) -> Wanted {
        let expected = Expected::exactly(&blob.digest, blob.size);
        Wanted { key: IngestKey::of(&blob.digest), expected }
    }

    /// Wants an object of which nothing was promised: the length or the framing of the upstream's
    /// answer is all that is checked.
    pub fn unpromised(key: IngestKey) -> Wanted {
        Wanted { key, expected: Expected::any() }
    }
}

/// The transfers of a process into a store. Clones are one.
#[derive(Clone)]
pub struct Transfers {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    limits: Limits,
    admission: Admission,
    clock: Arc<dyn Clock>,
    flights: Mutex<HashMap<IngestKey, Arc<Flight>>>,
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfers").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

impl Transfers {
    /// Returns what brings objects into `store`. Nothing is under way yet.
    pub fn new(store: Arc<dyn Store>, limits: Limits, clock: Arc<dyn Clock>) -> Transfers {
        let admission = Admission::new(limits.clone());
        let flights = Mutex::default();
        Transfers { shared: Arc::new(Shared { store, limits, admission, clock, flights }) }
    }

    /// Opens an object: from the store where it is there, from its transfer where one is under
    /// way, and from `sources` otherwise, the first of which that can gives it.
    ///
    /// Returns as soon as the upstream has said how large it is. The blob joins `lease` when it
    /// lands, if this call started its transfer, and by [`Reader::landed`] in any case.
    ///
    /// # Errors
    /// Where no source gives it, or the store fails.
    pub async fn open(
        &self,
        wanted: &Wanted,
        sources: Vec<Arc<dyn Source>>,
        lease: &Lease,
    ) -> Result<Reader, Failure> {
        let shared = &self.shared;
        if let Some(digest) = &wanted.expected.digest
            && shared.hold(digest, lease).await?.is_some()
            && let Some(blob) =
                shared.store.open(digest).await.map_err(|error| shared.failed(error))?
        {
            return Ok(Reader::of_blob(Arc::clone(shared), lease.clone(), digest, blob));
        }
        let seat = self.take_seat(wanted, sources, lease);
        Reader::of_flight(Arc::clone(shared), lease.clone(), seat).await
    }

    /// Returns how many transfers are under way in this process.
    pub fn under_way(&self) -> usize {
        self.shared.flights().len()
    }

    /// Joins the flight of a key, and starts one where there is none.
    fn take_seat(&self, wanted: &Wanted, sources: Vec<Arc<dyn Source>>, lease: &Lease) -> Seat {
        let mut flights = self.shared.flights();
        if let Some(flight) = flights.get(&wanted.key) {
            return Seat::take(flight);
        }
        let flight = Arc::new(Flight::new(wanted.clone()));
        flights.insert(wanted.key.clone(), Arc::clone(&flight));
        let seat = Seat::take(&flight);
        tokio::spawn(flight::fly(Arc::clone(&self.shared), flight, sources, lease.clone()));
        seat
    }
}

impl Shared {
    fn flights(&self) -> MutexGuard<'_, HashMap<IngestKey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hold(
        &self,
        digest: &Digest,
        lease: &Lease,
    ) -> Result<Option<boatyard_content::BlobInfo>, Failure> {
        self.store.hold(digest, lease).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: StoreError) -> Failure {
        Arc::new(self.store_error(source))
    }

    fn store_error(&self, source: StoreError) -> TransferError {
        TransferError::Store { store: self.store.to_string(), source }
    }
}
