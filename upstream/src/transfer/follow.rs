//! Following an ingest that another process writes.
//!
//! There is no channel between processes: the file is looked at, more and more seldom while
//! nothing happens. When nothing happens, its lock is tried as well, so that a writer that died is
//! noticed.

use std::sync::Arc;
use std::time::Duration;

use boatyard_content::{BlobInfo, Growing, Growth, Ingest, Lease, StoreError};
use boatyard_oci::{Algorithm, Digest, Hasher};
use tokio::sync::watch;

use super::Shared;
use super::error::TransferError;
use super::flight::{Flight, leave_if_unread};
use super::head::Head;

/// The first wait between two looks; each is twice as long as the one before while nothing
/// happens.
const LOOK_FIRST: Duration = Duration::from_millis(2);
/// The longest wait between two looks.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What came of following.
pub(super) enum Followed {
    /// It is a blob.
    Landed(BlobInfo),
    /// The writer is gone, and we are the writer now.
    Vacant(Ingest),
    /// The writer gave it up.
    Dropped,
    /// Nobody reads it here any more.
    Unread,
    /// The writer lives and brings nothing.
    Stuck,
}

/// Follows until something has to be done.
pub(super) async fn follow(
    shared: &Shared,
    flight: &Arc<Flight>,
    lease: &Lease,
) -> Result<Followed, TransferError> {
    let failed = |error| shared.store_error(error);
    let key = &flight.wanted.key;
    let (told, written) = watch::channel(0);
    let mut growing: Option<Arc<Growing>> = None;
    let mut digest = flight.wanted.expected.digest.clone();
    let (mut seen, mut waited, mut pause) = (None, Duration::ZERO, LOOK_FIRST);
    loop {
        if growing.is_none() {
            growing = shared.store.follow(key).await.map_err(failed)?.map(Arc::new);
            if let Some(growing) = &growing
                && let Some(head) = Head::from_note(growing.note())
            {
                flight.show(Arc::new(head), Arc::clone(growing), written.clone());
            }
        }
        let growth = match &growing {
            Some(growing) => Some(growing.growth().map_err(failed)?),
            None => None,
        };
        if growth == Some(Growth::Dropped) {
            return Ok(Followed::Dropped);
        }
        if growth != seen {
            (seen, waited, pause) = (growth, Duration::ZERO, LOOK_FIRST);
            told.send_modify(|times| *times += 1);
        }
        if let (Some(Growth::Whole(_)), Some(growing), None) = (growth, &growing, &digest) {
            let growing = Arc::clone(growing);
            let hashed = tokio::task::spawn_blocking(move || hash(&growing)).await;
            digest = Some(hashed.map_err(|_| TransferError::Stopped)?.map_err(failed)?);
        }
        // While it grows there is no such blob.
        if let Some(digest) =
            digest.as_ref().filter(|_| !matches!(growth, Some(Growth::Growing(_))))
            && let Some(info) = shared.store.hold(digest, lease).await.map_err(failed)?
        {
            return Ok(Followed::Landed(info));
        }
        if !waited.is_zero() {
            match shared.store.ingest(key, lease).await {
                // It landed since we looked: this is another ingest, and nothing to go on with.
                Ok(ingest) if is_whole(growing.as_deref()).map_err(failed)? => {
                    ingest.abort().await.map_err(failed)?;
                }
                Ok(ingest) => return Ok(Followed::Vacant(ingest)),
                Err(StoreError::IngestBusy { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if leave_if_unread(shared, flight) {
            return Ok(Followed::Unread);
        }
        if waited >= shared.limits.patience {
            return Ok(Followed::Stuck);
        }
        shared.clock.sleep(pause).await;
        waited += pause;
        pause = (2 * pause).min(LOOK_MAX);
    }
}

fn is_whole(growing: Option<&Growing>) -> Result<bool, StoreError> {
    growing.map_or(Ok(false), |growing| Ok(matches!(growing.growth()?, Growth::Whole(_))))
}

/// Returns the digest of an object of which none was promised. Blocking.
fn hash(growing: &Growing) -> Result<Digest, StoreError> {
    const STEP: usize = 1 << 20;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut at = 0;
    loop {
        let bytes = growing.read_at(at, STEP)?;
        if bytes.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(&bytes);
        at += bytes.len() as u64;
    }
}
