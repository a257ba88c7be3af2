//! One ingest, filled from its sources: resumed, verified, committed.
//!
//! It knows nothing of readers but what an [`Audience`] tells: a pull, which has none, fetches its
//! blobs the same way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use boatyard_content::{BlobInfo, Expected, Growing, Ingest, Lease, Store, StoreError};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::Wanted;
use super::admission::Admission;
use super::error::TransferError;
use super::head::Head;
use super::limits::Limits;
use super::pace::Pace;
use super::source::{Arrival, Missing, Source, SourceError};
use super::validator::Validator;
use crate::clock::Clock;

/// After how many bytes what is there is made durable: a crash of the machine costs no more.
const CHECKPOINT: u64 = 256 * 1024 * 1024;
/// For how long what has come may wait for more before readers get it.
const WRITE_OUT_AFTER: Duration = Duration::from_millis(5);

/// Who watches an object arrive.
pub(crate) trait Audience: Send + Sync {
    /// The object is known, and what is written of it can be read from now on. Called again where
    /// it is begun anew.
    fn follow(&self, head: Arc<Head>, growing: Arc<Growing>, written: watch::Receiver<u64>);

    /// So many further bytes are there.
    fn advanced(&self, bytes: u64);

    /// Says whether to go on, when so many bytes are missing (`None`: nobody knows).
    fn goes_on(&self, missing: Option<u64>) -> bool;
}

/// What it takes to fetch one object.
pub(crate) struct Fetch<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) lease: &'a Lease,
    pub(crate) wanted: &'a Wanted,
    pub(crate) limits: &'a Limits,
    pub(crate) admission: &'a Admission,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) audience: &'a dyn Audience,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// It is a blob.
    Landed(BlobInfo),
    /// Nobody wanted it any more: what has come was put aside.
    Unread,
    /// Another writer took the ingest while it was begun anew.
    Taken,
}

/// An ingest, and what is known of the object whose bytes are in it.
struct Write {
    ingest: Ingest,
    head: Option<Arc<Head>>,
}

/// What came of a source, however often it was asked.
enum Filled {
    Whole(Write),
    Unread(Write),
    Taken,
    /// What is left may be gone on with from another source.
    Failed(Option<Write>, TransferError),
}

/// What came of asking once.
enum Attempt {
    Complete(Write),
    Unread(Write),
    /// It can be gone on with later.
    Broken(Write, TransferError),
    /// There was no answer, as often as the source has tried.
    Unanswered(Write, TransferError),
    /// It cannot, from this source.
    Refused(Write, TransferError),
    /// What had come cannot be gone on with, and was dropped.
    Anew,
    /// What came is wrong, and was dropped.
    Wrong(TransferError),
}

impl Write {
    fn offset(&self) -> u64 {
        self.ingest.offset()
    }
}

impl Fetch<'_> {
    /// Fills an ingest, from the first source that can, and commits it. Each source is tried
    /// once; what an earlier process left may be wrong, then everything is fetched anew, once.
    pub(crate) async fn bring(
        &self,
        ingest: Ingest,
        sources: &[Arc<dyn Source>],
    ) -> Result<Fetched, TransferError> {
        if let Some(info) = self.landed_meanwhile(ingest.offset()).await? {
            ingest.abort().await.map_err(|error| self.failed(error))?;
            return Ok(Fetched::Landed(info));
        }
        let mut next = Some(self.take_up(ingest).await?);
        let mut last = TransferError::NoSource;
        for source in sources {
            let Some(write) = self.or_begin(next.take()).await? else { return Ok(Fetched::Taken) };
            match self.bring_from(&**source, write).await? {
                Ok(fetched) => return Ok(fetched),
                Err((kept, error)) => {
                    tracing::info!(upstream = source.upstream(), %error, "a transfer failed");
                    (next, last) = (kept, error);
                }
            }
        }
        if let Some(write) = next {
            self.put_aside(write).await?;
        }
        Err(last)
    }

    /// Looks for the blob once more: between our first look and our getting an empty ingest, the
    /// writer before us may have landed it.
    async fn landed_meanwhile(&self, offset: u64) -> Result<Option<BlobInfo>, TransferError> {
        match &self.wanted.expected.digest {
            Some(digest) if offset == 0 => {
                let held = self.store.hold(digest, self.lease).await;
                held.map_err(|error| self.failed(error))
            }
            _ => Ok(None),
        }
    }

    async fn bring_from(
        &self,
        source: &dyn Source,
        mut write: Write,
    ) -> Result<Result<Fetched, (Option<Write>, TransferError)>, TransferError> {
        let mut inherited = write.offset() > 0;
        loop {
            let whole = match self.fill(source, write).await? {
                Filled::Whole(whole) => whole,
                Filled::Unread(write) => {
                    self.put_aside(write).await?;
                    return Ok(Ok(Fetched::Unread));
                }
                Filled::Taken => return Ok(Ok(Fetched::Taken)),
                Filled::Failed(kept, error) => return Ok(Err((kept, error))),
            };
            let error = match self.commit(whole).await {
                Ok(info) => return Ok(Ok(Fetched::Landed(info))),
                Err(StoreError::DigestMismatch { expected, got }) => {
                    TransferError::Digest { upstream: source.upstream().to_owned(), expected, got }
                }
                Err(error) => return Err(self.failed(error)),
            };
            if !std::mem::take(&mut inherited) {
                return Ok(Err((None, error)));
            }
            tracing::info!(key = %self.wanted.key, "what was resumed was wrong: fetching all of it");
            match self.or_begin(None).await? {
                Some(begun) => write = begun,
                None => return Ok(Ok(Fetched::Taken)),
            }
        }
    }

    /// Appends what is missing, over as many connections as it takes.
    async fn fill(&self, source: &dyn Source, mut write: Write) -> Result<Filled, TransferError> {
        let (mut failed, mut begun, mut answered) = (0, 0, false);
        let mut last = TransferError::Anew;
        loop {
            let (before, size) = (write.offset(), self.size(&write));
            if before > 0 && size == Some(before) {
                return Ok(Filled::Whole(write));
            }
            match self.attempt(source, write).await? {
                Attempt::Complete(whole) => return Ok(Filled::Whole(whole)),
                Attempt::Unread(left) => return Ok(Filled::Unread(left)),
                Attempt::Refused(left, error) => return Ok(Filled::Failed(Some(left), error)),
                Attempt::Wrong(error) => return Ok(Filled::Failed(None, error)),
                Attempt::Unanswered(left, error) if !answered => {
                    return Ok(Filled::Failed(Some(left), error));
                }
                Attempt::Unanswered(left, error) => {
                    failed += 1;
                    (write, last) = (left, error);
                }
                Attempt::Broken(left, error) => {
                    answered = true;
                    failed = if left.offset() > before { 1 } else { failed + 1 };
                    (write, last) = (left, error);
                }
                Attempt::Anew => {
                    begun += 1;
                    failed = begun;
                    match self.or_begin(None).await? {
                        Some(anew) => write = anew,
                        None => return Ok(Filled::Taken),
                    }
                    if begun == 1 {
                        continue;
                    }
                }
            }
            let Some(delay) = self.limits.retry.delay(failed, None, self.clock.jitter()) else {
                let error = broken(source, write.offset(), failed, last);
                return Ok(Filled::Failed(Some(write), error));
            };
            // Readers need not wait for what is there.
            write.ingest.write_out().await.map_err(|error| self.failed(error))?;
            self.clock.sleep(delay).await;
        }
    }

    /// Asks once for what is missing and appends what comes.
    async fn attempt(&self, source: &dyn Source, write: Write) -> Result<Attempt, TransferError> {
        let (offset, size) = (write.offset(), self.size(&write));
        let promised = self.wanted.expected.digest.is_some();
        let head = write.head.as_ref();
        let validator =
            head.filter(|_| !promised && offset > 0).and_then(|head| Validator::of(&head.headers));
        let unsure = offset > 0 && !promised && validator.is_none();
        if unsure || size.is_some_and(|size| offset > size) {
            return self.give_up(write).await;
        }
        let _turn = match self.admission.enter(source.upstream()).await {
            Ok(turn) => turn,
            Err(error) => return Ok(Attempt::Refused(write, error)),
        };
        let missing = Missing { offset, size, validator };
        let fetched = tokio::time::timeout(self.limits.first_byte, source.fetch(&missing)).await;
        let upstream = || source.upstream().to_owned();
        let arrival = match fetched {
            Ok(Ok(arrival)) => arrival,
            Ok(Err(SourceError::Unsatisfiable(_))) if offset > 0 => {
                return self.give_up(write).await;
            }
            Ok(Err(source @ SourceError::Interrupted(_))) => {
                let error = TransferError::Source { upstream: upstream(), source };
                return Ok(Attempt::Unanswered(write, error));
            }
            Ok(Err(source)) => {
                let error = TransferError::Source { upstream: upstream(), source };
                return Ok(Attempt::Refused(write, error));
            }
            Err(_) => {
                let after = self.limits.first_byte;
                let error = TransferError::FirstByte { upstream: upstream(), after };
                return Ok(Attempt::Unanswered(write, error));
            }
        };
        self.receive(source, &missing, arrival, write).await
    }

    /// Judges an answer by its head, then appends its body.
    async fn receive(
        &self,
        source: &dyn Source,
        missing: &Missing,
        arrival: Arrival,
        mut write: Write,
    ) -> Result<Attempt, TransferError> {
        let upstream = || source.upstream().to_owned();
        let promised = self.wanted.expected.digest.is_some();
        let same = missing.validator == Validator::of(&arrival.headers).filter(|_| !promised);
        let other_size = missing.size.zip(arrival.size).filter(|(ours, theirs)| ours != theirs);
        if missing.offset > 0 && !promised {
            // A part without a validator is of what we asked for: `If-Range` says so.
            let part = arrival.offset > 0 && Validator::of(&arrival.headers).is_none();
            if other_size.is_some() || !(same || part) {
                return self.give_up(write).await;
            }
        }
        if let Some((expected, got)) = other_size {
            let error = TransferError::Length { upstream: upstream(), expected, got };
            return Ok(Attempt::Refused(write, error));
        }
        if arrival.offset > missing.offset {
            let error = TransferError::Range {
                upstream: upstream(),
                expected: missing.offset,
                got: arrival.offset,
            };
            return Ok(Attempt::Refused(write, error));
        }
        if write.head.is_none() || missing.offset == 0 {
            let size = self.wanted.expected.size.or(arrival.size);
            self.announce(&mut write, Head { size, headers: arrival.headers.clone() }).await?;
        }
        self.append(source, arrival, write).await
    }

    /// Appends a body, up to the known size. Where it begins earlier than was asked for, what is
    /// there already is passed over.
    async fn append(
        &self,
        source: &dyn Source,
        mut arrival: Arrival,
        mut write: Write,
    ) -> Result<Attempt, TransferError> {
        let upstream = || source.upstream().to_owned();
        let size = self.size(&write);
        let mut at = arrival.offset;
        let mut checkpoint = write.offset() + CHECKPOINT;
        let mut pace = Pace::new(self.clock.now());
        loop {
            if !self.audience.goes_on(size.map(|size| size.saturating_sub(write.offset()))) {
                return Ok(Attempt::Unread(write));
            }
            let next = match self.next(&mut arrival, &mut write.ingest).await {
                Ok(next) => next,
                Err(error) => return Err(self.cannot_keep(write, error).await),
            };
            let Some(next) = next else {
                let error = TransferError::Idle { upstream: upstream(), after: self.limits.idle };
                return Ok(Attempt::Broken(write, error));
            };
            let bytes = match next {
                Some(Ok(bytes)) => bytes,
                Some(Err(source)) => {
                    let error = TransferError::Source { upstream: upstream(), source };
                    return Ok(Attempt::Broken(write, error));
                }
                None => return Ok(ended(source, size, write)),
            };
            let came = bytes.len() as u64;
            at += came;
            if let Some(expected) = size.filter(|size| at > *size) {
                write.ingest.abort().await.map_err(|error| self.failed(error))?;
                let error = TransferError::Length { upstream: upstream(), expected, got: at };
                return Ok(Attempt::Wrong(error));
            }
            let rate_min = self.limits.rate_min;
            if !pace.suffices(came, self.clock.now(), rate_min, self.limits.rate_over) {
                let error = TransferError::Slow { upstream: upstream(), least: rate_min };
                return Ok(Attempt::Broken(write, error));
            }
            let new = at.saturating_sub(write.offset()).min(came);
            if new == 0 {
                continue;
            }
            let bytes = bytes.slice(bytes.len() - new as usize..);
            write = self.keep(write, bytes, &mut checkpoint).await?;
            if size == Some(write.offset()) {
                return Ok(Attempt::Complete(write));
            }
        }
    }

    async fn keep(
        &self,
        mut write: Write,
        bytes: Bytes,
        checkpoint: &mut u64,
    ) -> Result<Write, TransferError> {
        self.audience.advanced(bytes.len() as u64);
        let mut kept = write.ingest.append(bytes).await;
        if kept.is_ok() && write.offset() >= *checkpoint {
            *checkpoint = write.offset() + CHECKPOINT;
            kept = write.ingest.save().await;
        }
        match kept {
            Ok(()) => Ok(write),
            Err(error) => Err(self.cannot_keep(write, error).await),
        }
    }

    /// Gives up what cannot be written on. On a full disk, what is there is in the way of
    /// everything else.
    async fn cannot_keep(&self, write: Write, error: StoreError) -> TransferError {
        if error.is_no_space() {
            // It is the first error that matters.
            let _ = write.ingest.abort().await;
        }
        self.failed(error)
    }

    /// Returns the next piece of a body, `None` where it stands still. Readers get what has come
    /// so far when nothing follows at once.
    async fn next(
        &self,
        arrival: &mut Arrival,
        ingest: &mut Ingest,
    ) -> Result<Option<Option<Result<Bytes, SourceError>>>, StoreError> {
        let mut next = pin!(arrival.body.next());
        if let Ok(piece) = tokio::time::timeout(WRITE_OUT_AFTER, &mut next).await {
            return Ok(Some(piece));
        }
        ingest.write_out().await?;
        Ok(tokio::time::timeout(self.limits.idle, next).await.ok())
    }

    /// Tells readers what is known of the object, and lets them read it.
    async fn announce(&self, write: &mut Write, head: Head) -> Result<(), TransferError> {
        if let Some(digest) = self.wanted.expected.digest.as_ref().filter(|_| write.offset() == 0) {
            write.ingest.also(digest.algorithm());
        }
        let announced = write.ingest.announce(head.to_note()).await;
        announced.map_err(|error| self.failed(error))?;
        self.show(write, Arc::new(head)).await
    }

    async fn show(&self, write: &mut Write, head: Arc<Head>) -> Result<(), TransferError> {
        let growing = self.store.follow(&self.wanted.key).await;
        if let Some(growing) = growing.map_err(|error| self.failed(error))? {
            self.audience.follow(Arc::clone(&head), Arc::new(growing), write.ingest.written());
        }
        write.head = Some(head);
        Ok(())
    }

    /// Goes on with what an earlier writer left.
    async fn take_up(&self, ingest: Ingest) -> Result<Write, TransferError> {
        self.audience.advanced(ingest.offset());
        let mut write = Write { ingest, head: None };
        if write.offset() > 0 {
            let left = self.store.follow(&self.wanted.key).await;
            let left = left.map_err(|error| self.failed(error))?;
            if let Some(head) = left.and_then(|left| Head::from_note(left.note())) {
                self.show(&mut write, Arc::new(head)).await?;
            }
        }
        Ok(write)
    }

    /// Returns what is there, or begins anew; `None` where another writer was quicker.
    async fn or_begin(&self, write: Option<Write>) -> Result<Option<Write>, TransferError> {
        if write.is_some() {
            return Ok(write);
        }
        match self.store.ingest(&self.wanted.key, self.lease).await {
            Ok(ingest) => self.take_up(ingest).await.map(Some),
            Err(StoreError::IngestBusy { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn commit(&self, write: Write) -> Result<BlobInfo, StoreError> {
        let size = self.size(&write);
        let expected = Expected { size, ..self.wanted.expected.clone() };
        Ok(write.ingest.commit(expected).await?.info().clone())
    }

    async fn give_up(&self, write: Write) -> Result<Attempt, TransferError> {
        write.ingest.abort().await.map_err(|error| self.failed(error))?;
        Ok(Attempt::Anew)
    }

    async fn put_aside(&self, write: Write) -> Result<(), TransferError> {
        let put = match write.offset() {
            0 => write.ingest.abort().await,
            _ => write.ingest.suspend().await.map(drop),
        };
        put.map_err(|error| self.failed(error))
    }

    fn size(&self, write: &Write) -> Option<u64> {
        self.wanted.expected.size.or(write.head.as_ref().and_then(|head| head.size))
    }

    fn failed(&self, source: StoreError) -> TransferError {
        TransferError::Store { store: self.store.to_string(), source }
    }
}

fn ended(source: &dyn Source, size: Option<u64>, write: Write) -> Attempt {
    match size {
        Some(size) if write.offset() < size => {
            let upstream = source.upstream().to_owned();
            let error = TransferError::Ended { upstream, at: write.offset(), size };
            Attempt::Broken(write, error)
        }
        _ => Attempt::Complete(write),
    }
}

fn broken(source: &dyn Source, at: u64, attempts: u32, last: TransferError) -> TransferError {
    let upstream = source.upstream().to_owned();
    TransferError::Broken { upstream, at, attempts, source: Box::new(last) }
}
