//! One reader of an object, at its own pace.

use std::ops::Range;
use std::sync::Arc;

use boatyard_content::{Blob, BlobInfo, Growing, Growth, Lease, Piece};
use boatyard_oci::Digest;
use futures_util::stream::{self, Stream};
use tokio::sync::watch;

use super::Shared;
use super::error::{Failure, TransferError};
use super::flight::{Arriving, End, Flight, Seat, State};
use super::head::Head;

/// How many bytes, at the end of what has come or is promised, are not handed out before all are
/// known to be right.
pub const WITHHELD: u64 = 64 * 1024;
/// The most bytes of one piece.
const PIECE_MAX: u64 = 256 * 1024;

/// Reads an object while it arrives, from any place on.
///
/// Dropping it stops nothing. See [`super::Transfers::open`].
pub struct Reader {
    shared: Arc<Shared>,
    lease: Lease,
    head: Arc<Head>,
    from: From,
    /// What is left to read; up to the end where that is not known.
    range: Range<u64>,
}

/// Where its bytes come from.
enum From {
    Blob { info: BlobInfo, blob: Option<Blob> },
    Flight(Box<Place>),
}

/// A place in a flight.
struct Place {
    state: watch::Receiver<State>,
    /// What is being read; once a byte of it was handed out, nothing else will do.
    arriving: Option<Arriving>,
    has_read: bool,
    seat: Seat,
}

/// What can be read now.
enum Ready {
    Bytes(Arc<Growing>, u64),
    Rest(Blob),
    End,
}

impl Reader {
    pub(super) fn of_blob(
        shared: Arc<Shared>,
        lease: Lease,
        digest: &Digest,
        blob: Blob,
    ) -> Reader {
        let size = blob.size();
        let head = Arc::new(Head { size: Some(size), ..Head::default() });
        let info = BlobInfo { digest: digest.clone(), size };
        let from = From::Blob { info, blob: Some(blob) };
        Reader { shared, lease, head, from, range: 0..size }
    }

    /// Waits until the object is known.
    pub(super) async fn of_flight(
        shared: Arc<Shared>,
        lease: Lease,
        seat: Seat,
    ) -> Result<Reader, Failure> {
        let mut state = seat.state();
        let known = |state: &State| state.arriving.is_some() || state.end.is_some();
        let State { arriving, end } = match state.wait_for(known).await {
            Ok(state) => state.clone(),
            Err(_) => return Err(Arc::new(TransferError::Stopped)),
        };
        let head = match (&arriving, end) {
            (_, Some(End::Failed(failure))) => return Err(failure),
            (Some(arriving), _) => Arc::clone(&arriving.head),
            (None, Some(End::Landed(info))) => {
                Arc::new(Head { size: Some(info.size), ..Head::default() })
            }
            (None, None) => return Err(Arc::new(TransferError::Stopped)),
        };
        let range = 0..head.size.unwrap_or(u64::MAX);
        let place = Place { state, arriving, has_read: false, seat };
        Ok(Reader { shared, lease, head, from: From::Flight(Box::new(place)), range })
    }

    /// Returns a view of the transfer for somebody who does not read it; `None` where the object was
    /// in the store.
    pub fn watch(&self) -> Option<Watch> {
        match &self.from {
            From::Blob { .. } => None,
            From::Flight(place) => Some(Watch {
                shared: Arc::clone(&self.shared),
                lease: self.lease.clone(),
                flight: Arc::clone(place.seat.flight()),
            }),
        }
    }

    /// Returns what the upstream said of the object.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the number of bytes of the whole object, where it is known before its end.
    pub fn size(&self) -> Option<u64> {
        self.head.size
    }

    /// Reads this range only. One that begins where nothing has arrived yet waits for all bytes
    /// before it.
    pub fn within(mut self, range: Range<u64>) -> Reader {
        let end = range.end.min(self.size().unwrap_or(u64::MAX));
        self.range = range.start..end.max(range.start);
        self
    }

    /// Returns which bytes of the object are still to be read; up to the end of all numbers where
    /// nobody knows how many there are.
    pub fn left(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Returns the file that bytes were handed out from: who goes on elsewhere can compare. `None`
    /// where none were, or all of them are checked.
    pub fn handed(&self) -> Option<Arc<Growing>> {
        match &self.from {
            From::Blob { .. } => None,
            From::Flight(place) => {
                let arriving = place.arriving.as_ref().filter(|_| place.has_read)?;
                Some(Arc::clone(&arriving.growing))
            }
        }
    }

    /// Returns the next piece, `None` at the end of the range. After an error there is nothing
    /// more: what was handed out is not the whole.
    ///
    /// # Errors
    /// Where the transfer failed, or what was handed out has turned out to be wrong.
    pub async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let ready = match &mut self.from {
            From::Blob { blob, .. } => blob.take().map_or(Ready::End, Ready::Rest),
            From::Flight(place) => place.ready(&self.shared, self.range.start).await?,
        };
        match ready {
            Ready::End => Ok(None),
            Ready::Rest(blob) => {
                let range = self.range.start..self.range.end.min(blob.size());
                self.range.start = self.range.end;
                Ok((!range.is_empty()).then_some(Piece::Rest(blob, range)))
            }
            Ready::Bytes(growing, end) => {
                let end = end.min(self.range.end);
                let (start, most) = (self.range.start, (end - self.range.start).min(PIECE_MAX));
                let read =
                    tokio::task::spawn_blocking(move || growing.read_at(start, most as usize));
                let bytes = match read.await {
                    Ok(read) => read.map_err(|error| self.shared.failed(error))?,
                    Err(_) => return Err(Arc::new(TransferError::Stopped)),
                };
                if let From::Flight(place) = &mut self.from {
                    place.has_read = true;
                }
                self.range.start += bytes.len() as u64;
                Ok(Some(Piece::Bytes(bytes)))
            }
        }
    }

    /// Returns the pieces as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Piece, Failure>> + Send + 'static {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(None) => None,
                Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
                Err(failure) => Some((Err(failure), None)),
            }
        })
    }

    /// Waits until the object is a blob, which then is in this reader's lease.
    ///
    /// # Errors
    /// Where the transfer failed.
    pub async fn landed(self) -> Result<BlobInfo, Failure> {
        let info = match self.from {
            From::Blob { info, .. } => return Ok(info),
            From::Flight(mut place) => place.landed().await?,
        };
        match self.shared.hold(&info.digest, &self.lease).await? {
            Some(info) => Ok(info),
            None => Err(Arc::new(TransferError::Stopped)),
        }
    }
}

/// A transfer as one sees it who does not read it, and for whom it does not go on.
pub struct Watch {
    shared: Arc<Shared>,
    lease: Lease,
    flight: Arc<Flight>,
}

impl Watch {
    /// Begins to read the object; `None` where the transfer has ended without it.
    ///
    /// # Errors
    /// Where the transfer failed.
    pub async fn reader(&self) -> Option<Result<Reader, Failure>> {
        let seat = Seat::take_if_it_flies(&self.shared, &self.flight)?;
        Some(Reader::of_flight(Arc::clone(&self.shared), self.lease.clone(), seat).await)
    }

    /// Waits until the object is a blob, which then is in the lease of the reader that this is of.
    ///
    /// # Errors
    /// Where the transfer failed, or was put aside because nobody read it any more.
    pub async fn landed(&self) -> Result<BlobInfo, Failure> {
        let mut state = self.flight.state();
        let info = landed(&mut state).await?;
        match self.shared.hold(&info.digest, &self.lease).await? {
            Some(info) => Ok(info),
            None => Err(Arc::new(TransferError::Stopped)),
        }
    }
}

async fn landed(state: &mut watch::Receiver<State>) -> Result<BlobInfo, Failure> {
    match state.wait_for(|state| state.end.is_some()).await.map(|state| state.end.clone()) {
        Ok(Some(End::Landed(info))) => Ok(info),
        Ok(Some(End::Failed(failure))) => Err(failure),
        Ok(None) | Err(_) => Err(Arc::new(TransferError::Stopped)),
    }
}

impl Place {
    /// Waits until there is something to read from `at` on.
    async fn ready(&mut self, shared: &Shared, at: u64) -> Result<Ready, Failure> {
        loop {
            let State { arriving: shown, end } = self.state.borrow_and_update().clone();
            let is_mine = |shown: &Arriving| {
                self.arriving.as_ref().is_some_and(|mine| shown.growing.is_same(&mine.growing))
            };
            // The same file may have another writer now.
            let goes_on = shown.as_ref().is_some_and(is_mine);
            if goes_on || !self.has_read {
                self.arriving = shown;
            }
            let mut written = None;
            if let Some(arriving) = &mut self.arriving {
                arriving.written.mark_unchanged();
                match arriving.growing.growth().map_err(|error| shared.failed(error))? {
                    Growth::Whole(_) => return whole(shared, &arriving.growing),
                    Growth::Growing(len) if readable(len, arriving.head.size) > at => {
                        let end = readable(len, arriving.head.size);
                        return Ok(Ready::Bytes(Arc::clone(&arriving.growing), end));
                    }
                    Growth::Growing(_) => written = Some(arriving.written.clone()),
                    Growth::Dropped => {}
                }
                if self.has_read && !goes_on {
                    return Err(Arc::new(TransferError::Anew));
                }
            }
            match end {
                Some(End::Failed(failure)) => return Err(failure),
                Some(End::Landed(_)) if self.has_read => return Err(Arc::new(TransferError::Anew)),
                Some(End::Landed(info)) => return opened(shared, &info).await,
                None => self.changed(written).await?,
            }
        }
    }

    /// Waits for more bytes, or for news of the flight.
    async fn changed(&mut self, written: Option<watch::Receiver<u64>>) -> Result<(), Failure> {
        let told = self.state.changed();
        let told = match written {
            None => told.await,
            Some(mut written) => tokio::select! {
                told = told => told,
                // A writer that is gone says no more; the flight will.
                Ok(()) = written.changed() => Ok(()),
            },
        };
        told.map_err(|_| Arc::new(TransferError::Stopped))
    }

    async fn landed(&mut self) -> Result<BlobInfo, Failure> {
        landed(&mut self.state).await
    }
}

/// Returns up to where an object may be read before it is known to be right.
fn readable(written: u64, size: Option<u64>) -> u64 {
    match size {
        Some(size) => written.min(size.saturating_sub(WITHHELD)),
        None => written.saturating_sub(WITHHELD),
    }
}

fn whole(shared: &Shared, growing: &Growing) -> Result<Ready, Failure> {
    let blob = growing.blob().map_err(|error| shared.failed(error))?;
    Ok(blob.map_or(Ready::End, Ready::Rest))
}

async fn opened(shared: &Shared, info: &BlobInfo) -> Result<Ready, Failure> {
    match shared.store.open(&info.digest).await {
        Ok(Some(blob)) => Ok(Ready::Rest(blob)),
        Ok(None) => Err(Arc::new(TransferError::Stopped)),
        Err(error) => Err(shared.failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_withheld() {
        let table = [
            (0, None, 0),
            (WITHHELD, None, 0),
            (WITHHELD + 7, None, 7),
            (100, Some(100), 0),
            (1000, Some(1_000_000), 1000),
            (1_000_000, Some(1_000_000), 1_000_000 - WITHHELD),
        ];
        for (written, size, expected) in table {
            assert_eq!(readable(written, size), expected, "{written} of {size:?}");
        }
    }
}
