//! A flight: the transfer of one key as this process sees it, with all its readers.
//!
//! It fetches the object where it gets the ingest, and follows the file where another process has
//! it. Its readers are told two things only: which file to read, and how it ended; the rest they
//! see in the file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boatyard_content::{BlobInfo, Growing, Ingest, IngestKey, Lease, StoreError};
use jiff::Timestamp;
use tokio::sync::watch;

use super::error::{Failure, TransferError};
use super::fetch::{Audience, Fetch, Fetched};
use super::follow::{Followed, follow};
use super::head::Head;
use super::source::Source;
use super::{Shared, Wanted};

/// The transfer of one key.
pub(super) struct Flight {
    pub(super) wanted: Wanted,
    state: watch::Sender<State>,
    readers: AtomicUsize,
    unread_since: Mutex<Option<Timestamp>>,
}

/// What readers are told.
#[derive(Clone, Default)]
pub(super) struct State {
    /// What to read: another file where it was begun anew.
    pub(super) arriving: Option<Arriving>,
    pub(super) end: Option<End>,
}

/// An object that arrives.
#[derive(Clone)]
pub(super) struct Arriving {
    pub(super) head: Arc<Head>,
    pub(super) growing: Arc<Growing>,
    /// Changes when there is more to read.
    pub(super) written: watch::Receiver<u64>,
}

/// How it ended.
#[derive(Clone)]
pub(super) enum End {
    Landed(BlobInfo),
    Failed(Failure),
}

/// A reader's place in a flight. As long as one lives, the flight goes on.
pub(super) struct Seat {
    flight: Arc<Flight>,
}

impl Seat {
    /// Takes a seat; the caller keeps the flights locked meanwhile.
    pub(super) fn take(flight: &Arc<Flight>) -> Seat {
        flight.readers.fetch_add(1, Ordering::SeqCst);
        Seat { flight: Arc::clone(flight) }
    }

    /// Takes a seat in a flight that is under way, or has landed.
    pub(super) fn take_if_it_flies(shared: &Shared, flight: &Arc<Flight>) -> Option<Seat> {
        let flights = shared.flights();
        let listed =
            flights.get(&flight.wanted.key).is_some_and(|known| Arc::ptr_eq(known, flight));
        let landed = || matches!(flight.state.borrow().end, Some(End::Landed(_)));
        (listed || landed()).then(|| Seat::take(flight))
    }

    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.flight.state()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Flight {
    pub(super) fn new(wanted: Wanted) -> Flight {
        Flight {
            wanted,
            state: watch::Sender::default(),
            readers: AtomicUsize::new(0),
            unread_since: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn is_read(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0
    }

    /// Returns for how long nobody has read, if nobody does.
    fn unread_for(&self, now: Timestamp) -> Option<Duration> {
        let mut since = self.unread_since.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_read() {
            *since = None;
            return None;
        }
        let since = *since.get_or_insert(now);
        Some(Duration::try_from(now.duration_since(since)).unwrap_or_default())
    }

    pub(super) fn show(
        &self,
        head: Arc<Head>,
        growing: Arc<Growing>,
        written: watch::Receiver<u64>,
    ) {
        let arriving = Arriving { head, growing, written };
        self.state.send_modify(|state| state.arriving = Some(arriving));
    }
}

/// Those who sit in a flight, as its fetching sees them.
struct Cabin<'a> {
    shared: &'a Shared,
    flight: &'a Flight,
}

impl Audience for Cabin<'_> {
    fn follow(&self, head: Arc<Head>, growing: Arc<Growing>, written: watch::Receiver<u64>) {
        self.flight.show(head, growing, written);
    }

    fn advanced(&self, _bytes: u64) {}

    fn goes_on(&self, missing: Option<u64>) -> bool {
        let limits = &self.shared.limits;
        self.flight.unread_for(self.shared.clock.now()).is_none_or(|unread| {
            unread < limits.unread_for
                && missing.is_none_or(|missing| missing <= limits.unread_bytes)
        })
    }
}

/// Takes a flight off the list and tells its readers how it ended, however its task ends.
struct Landing {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    end: End,
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Off the list first: whoever asks from now on gets a flight that has not ended.
        leave(&self.shared, &self.flight);
        self.flight.state.send_modify(|state| state.end = Some(self.end.clone()));
    }
}

fn leave(shared: &Shared, flight: &Arc<Flight>) {
    let mut flights = shared.flights();
    if flights.get(&flight.wanted.key).is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
        flights.remove(&flight.wanted.key);
    }
}

/// Takes a flight off the list if nobody sits in it; says whether that is so.
pub(super) fn leave_if_unread(shared: &Shared, flight: &Arc<Flight>) -> bool {
    let mut flights = shared.flights();
    if flight.is_read() {
        return false;
    }
    flights.remove(&flight.wanted.key);
    true
}

/// Runs a flight to its end.
pub(super) async fn fly(
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    sources: Vec<Arc<dyn Source>>,
    lease: Lease,
) {
    let end = End::Failed(Arc::new(TransferError::Stopped));
    let mut landing = Landing { shared: Arc::clone(&shared), flight: Arc::clone(&flight), end };
    match run(&shared, &flight, &sources, &lease).await {
        Ok(Some(info)) => landing.end = End::Landed(info),
        Ok(None) => {}
        Err(error) => landing.end = End::Failed(Arc::new(error)),
    }
}

/// Returns the blob, or `None` where nobody wanted it any more.
async fn run(
    shared: &Shared,
    flight: &Arc<Flight>,
    sources: &[Arc<dyn Source>],
    lease: &Lease,
) -> Result<Option<BlobInfo>, TransferError> {
    let wanted = &flight.wanted;
    loop {
        if let Some(digest) = &wanted.expected.digest {
            let held = shared.store.hold(digest, lease).await;
            if let Some(info) = held.map_err(|error| shared.store_error(error))? {
                return Ok(Some(info));
            }
        }
        let (wanted, ingest) = match shared.store.ingest(&wanted.key, lease).await {
            Ok(ingest) => (wanted.clone(), ingest),
            Err(StoreError::IngestBusy { .. }) => match follow(shared, flight, lease).await? {
                Followed::Landed(info) => return Ok(Some(info)),
                Followed::Unread => return Ok(None),
                Followed::Vacant(ingest) => (wanted.clone(), ingest),
                Followed::Dropped => continue,
                Followed::Stuck => beside(shared, wanted, lease).await?,
            },
            Err(error) => return Err(shared.store_error(error)),
        };
        let fetch = Fetch {
            store: &*shared.store,
            lease,
            wanted: &wanted,
            limits: &shared.limits,
            admission: &shared.admission,
            clock: &*shared.clock,
            audience: &Cabin { shared, flight },
        };
        match fetch.bring(ingest, sources).await? {
            Fetched::Landed(info) => return Ok(Some(info)),
            Fetched::Unread if leave_if_unread(shared, flight) => return Ok(None),
            Fetched::Unread | Fetched::Taken => {}
        }
    }
}

/// Begins to fetch under a key of our own what another process fetches but does not bring.
async fn beside(
    shared: &Shared,
    wanted: &Wanted,
    lease: &Lease,
) -> Result<(Wanted, Ingest), TransferError> {
    let wanted = Wanted { key: IngestKey::random(), expected: wanted.expected.clone() };
    let ingest = shared.store.ingest(&wanted.key, lease).await;
    Ok((wanted, ingest.map_err(|error| shared.store_error(error))?))
}
