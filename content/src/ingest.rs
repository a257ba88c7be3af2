//! Writes in progress: bytes that have no name yet.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use boatyard_oci::{Algorithm, Digest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use tokio::sync::watch;

use crate::store::{BlobInfo, StoreError};
use queue::Queue;

mod growing;
mod queue;

pub use growing::{Growing, Growth, Piece};

/// How the keys begin of writes that only their process knows.
const FLEETING: &str = "fleeting-";

/// Names a write in progress, so that it can be taken up again.
///
/// - One to 64 of `[a-z0-9-]`, the first not a dash: it is a safe file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct IngestKey(Box<str>);

impl IngestKey {
    /// Returns a key that nobody has.
    pub fn random() -> IngestKey {
        IngestKey(uuid::Uuid::new_v4().to_string().into())
    }

    /// Returns a key that nobody has, of a write that nobody will take up again: where its process is
    /// gone, a collection discards it after a minute.
    pub fn fleeting() -> IngestKey {
        IngestKey(format!("{FLEETING}{}", uuid::Uuid::new_v4().simple()).into())
    }

    /// Says whether nobody will take up this write again.
    pub fn is_fleeting(&self) -> bool {
        self.0.starts_with(FLEETING)
    }

    /// Returns the key under which a blob of known digest is fetched: whoever fetches it next
    /// goes on where the last one stopped.
    pub fn of(digest: &Digest) -> IngestKey {
        let hex = digest.hex();
        IngestKey(format!("{}-{}", digest.algorithm(), &hex[..hex.len().min(48)]).into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IngestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a key of an ingest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the key of an ingest: it has up to 64 of a-z, 0-9 and `-`")]
pub struct IngestKeyError;

impl FromStr for IngestKey {
    type Err = IngestKeyError;

    fn from_str(text: &str) -> Result<Self, IngestKeyError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 64 || text.starts_with('-') || !text.bytes().all(plain) {
            return Err(IngestKeyError);
        }
        Ok(IngestKey(text.into()))
    }
}

impl<'de> Deserialize<'de> for IngestKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What was promised of the bytes of an ingest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Their digest. Without one, the blob is named by SHA-256.
    pub digest: Option<Digest>,
    /// Their number.
    pub size: Option<u64>,
}

impl Expected {
    /// Nothing was promised.
    pub fn any() -> Expected {
        Expected::default()
    }

    /// This digest was promised.
    pub fn digest(digest: &Digest) -> Expected {
        Expected { digest: Some(digest.clone()), size: None }
    }

    /// Digest and size were promised, as in a descriptor.
    pub fn exactly(digest: &Digest, size: u64) -> Expected {
        Expected { digest: Some(digest.clone()), size: Some(size) }
    }

    /// Returns the algorithm under which the blob is named.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm)
    }

    /// Checks what there is against what was promised.
    pub(crate) fn check(&self, got: &BlobInfo) -> Result<(), StoreError> {
        if let Some(size) = self.size.filter(|size| *size != got.size) {
            return Err(StoreError::SizeMismatch { expected: size, got: got.size });
        }
        match &self.digest {
            Some(digest) if *digest != got.digest => Err(StoreError::DigestMismatch {
                expected: digest.clone(),
                got: got.digest.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed {
    /// The blob is new.
    New(BlobInfo),
    /// It was there already; the bytes that were written are gone.
    AlreadyPresent(BlobInfo),
}

impl Landed {
    /// Returns the blob.
    pub fn info(&self) -> &BlobInfo {
        match self {
            Landed::New(info) | Landed::AlreadyPresent(info) => info,
        }
    }
}

/// The blocking side of an ingest: what a store implements.
///
/// One thread at a time calls it. Dropping it without an ending keeps what was saved last.
pub trait Sink: Send + 'static {
    /// Returns how many bytes it has.
    fn offset(&self) -> u64;
    /// Asks for a second digest to be computed while bytes pass; before the first byte.
    fn also(&mut self, algorithm: Algorithm);
    /// Appends bytes and hashes them. After an error only [`Sink::abort`] has a meaning.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
    /// Appends several pieces, as [`Sink::write`] does one after the other.
    fn write_batch(&mut self, batch: &[Bytes]) -> Result<(), StoreError> {
        batch.iter().try_for_each(|bytes| self.write(bytes))
    }
    /// Makes what was written durable, and where to go on.
    fn save(&mut self) -> Result<(), StoreError>;
    /// Lets others read what is and will be written, and tells them `note`.
    fn announce(&mut self, note: &Bytes) -> Result<(), StoreError>;
    /// Gives the bytes their name. Calls `agreed` once readers can see that they are what was
    /// promised, which is before they are durable.
    fn commit(
        self: Box<Self>,
        expected: &Expected,
        agreed: &dyn Fn(),
    ) -> Result<Landed, StoreError>;
    /// Forgets the bytes.
    fn abort(self: Box<Self>) -> Result<(), StoreError>;
}

/// A write in progress into a store.
///
/// From async code, [`Ingest::append`] hands bytes to a blocking thread and goes on reading while
/// they are hashed and written. From blocking code it is an [`io::Write`]. It ends in one of
/// three ways, each of which consumes it; dropped, it is as if suspended at the last save.
pub struct Ingest {
    state: State,
    offset: u64,
    /// How many bytes can be read by others.
    written: watch::Sender<u64>,
    batch: Vec<Bytes>,
    batch_len: usize,
}

enum State {
    Idle(Box<dyn Sink>),
    Working(tokio::task::JoinHandle<Worked>, Arc<Queue>),
    /// Bytes could not be written; what is left can only be forgotten.
    Failed(Option<Box<dyn Sink>>),
}

type Worked = (Box<dyn Sink>, Result<(), StoreError>);

/// From how many bytes on a batch goes to the writing thread: enough that the hand-over costs
/// nothing.
const BATCH_LEN: usize = 256 * 1024;

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Ingest {
    /// Wraps a store's sink.
    pub fn new(sink: Box<dyn Sink>) -> Ingest {
        let offset = sink.offset();
        let written = watch::Sender::new(offset);
        Ingest { state: State::Idle(sink), offset, written, batch: Vec::new(), batch_len: 0 }
    }

    /// Returns how many bytes were appended, with those of earlier writers.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Asks for a digest of this algorithm to be computed while bytes pass. Without it, a blob
    /// named by another algorithm than SHA-256 is read once more at the commit.
    pub fn also(&mut self, algorithm: Algorithm) {
        if let State::Idle(sink) = &mut self.state {
            sink.also(algorithm);
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Where these or earlier bytes could not be written.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.offset += bytes.len() as u64;
        self.batch_len += bytes.len();
        self.batch.push(bytes);
        if self.batch_len >= BATCH_LEN {
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Hands what was appended to the writing thread, without waiting until it is worth it: for
    /// readers that wait for these bytes.
    ///
    /// # Errors
    /// As [`Ingest::append`].
    pub async fn write_out(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.hand_over().await
    }

    /// Returns a channel that tells how many bytes are written, and can be read by whoever
    /// [follows](crate::Store::follow) the ingest. It tells once more when they are known to be
    /// what was promised.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Lets others read what is and will be written, by [`crate::Store::follow`], and tells them
    /// `note`: the next announcement replaces it. From now on what is written is never cut again,
    /// except by a crash of the machine: whoever takes the ingest up goes on behind all of it.
    ///
    /// # Errors
    /// Where the note could not be written.
    pub async fn announce(&mut self, note: Bytes) -> Result<(), StoreError> {
        self.with_sink(move |sink| sink.announce(&note)).await
    }

    /// Makes what was appended durable, and goes on: a crash costs no more than what comes after.
    ///
    /// # Errors
    /// Where something could not be written.
    pub async fn save(&mut self) -> Result<(), StoreError> {
        self.with_sink(Sink::save).await
    }

    async fn with_sink(
        &mut self,
        work: impl FnOnce(&mut dyn Sink) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let mut sink = self.drain().await?;
        let worked = move || {
            let result = work(&mut *sink);
            (sink, result)
        };
        let (sink, result) =
            tokio::task::spawn_blocking(worked).await.map_err(|_| StoreError::Worker)?;
        self.state = match &result {
            Ok(()) => State::Idle(sink),
            Err(_) => State::Failed(Some(sink)),
        };
        result
    }

    /// Makes what was appended durable and lets go of it: the next [`crate::Store::ingest`] of
    /// the same key goes on here. Returns the offset.
    ///
    /// # Errors
    /// Where something could not be written.
    pub async fn suspend(mut self) -> Result<u64, StoreError> {
        let mut sink = self.drain().await?;
        blocking(move || {
            sink.save()?;
            Ok(sink.offset())
        })
        .await
    }

    /// Checks the bytes against what was promised and gives them their name.
    ///
    /// # Errors
    /// Where they are not what was promised (then they are gone), or could not be written.
    pub async fn commit(mut self, expected: Expected) -> Result<Landed, StoreError> {
        let sink = self.drain().await?;
        let written = self.written.clone();
        // Readers need not wait for the disk.
        blocking(move || sink.commit(&expected, &|| written.send_modify(|_| ()))).await
    }

    /// Forgets the bytes.
    ///
    /// # Errors
    /// Where they could not be deleted.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        let settled = self.settle().await;
        let sink = match (settled, self.state) {
            (Ok(sink), _) | (Err(_), State::Failed(Some(sink))) => sink,
            (Err(error), _) => return Err(error),
        };
        blocking(move || sink.abort()).await
    }

    /// As [`Ingest::commit`], for blocking code.
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    pub fn commit_blocking(mut self, expected: &Expected) -> Result<Landed, StoreError> {
        self.drain_blocking()?.commit(expected, &|| ())
    }

    /// Returns the sink once nothing is being written.
    async fn settle(&mut self) -> Result<Box<dyn Sink>, StoreError> {
        match std::mem::replace(&mut self.state, State::Failed(None)) {
            State::Idle(sink) => Ok(sink),
            State::Working(task, _) => {
                let (sink, result) = task.await.map_err(|_| StoreError::Worker)?;
                if let Err(error) = result {
                    self.state = State::Failed(Some(sink));
                    return Err(error);
                }
                Ok(sink)
            }
            State::Failed(sink) => {
                self.state = State::Failed(sink);
                Err(StoreError::Worker)
            }
        }
    }

    async fn hand_over(&mut self) -> Result<(), StoreError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_len = 0;
        // Who gives up waiting loses the batch: what is written then must not go on without it.
        match std::mem::replace(&mut self.state, State::Failed(None)) {
            State::Working(task, queue) => {
                let put = queue.put(batch).await;
                self.state = State::Working(task, queue);
                match put {
                    Ok(()) => return Ok(()),
                    Err(refused) => batch = refused,
                }
            }
            other => self.state = other,
        }
        let mut sink = self.settle().await?;
        let queue = Arc::new(Queue::default());
        let (waiting, written) = (Arc::clone(&queue), self.written.clone());
        let task = tokio::task::spawn_blocking(move || {
            let result = queue::write(&mut *sink, batch, &waiting, &written);
            (sink, result)
        });
        self.state = State::Working(task, queue);
        Ok(())
    }

    async fn drain(&mut self) -> Result<Box<dyn Sink>, StoreError> {
        if !self.batch.is_empty() {
            self.hand_over().await?;
        }
        self.settle().await
    }

    /// For an ingest that only blocking code wrote to: nothing is under way elsewhere.
    fn drain_blocking(&mut self) -> Result<Box<dyn Sink>, StoreError> {
        let mut sink = match std::mem::replace(&mut self.state, State::Failed(None)) {
            State::Idle(sink) => sink,
            State::Working(..) | State::Failed(_) => return Err(StoreError::Worker),
        };
        let batch = std::mem::take(&mut self.batch);
        self.batch_len = 0;
        batch.iter().try_for_each(|bytes| sink.write(bytes))?;
        Ok(sink)
    }
}

impl io::Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State::Idle(sink) = &mut self.state else {
            return Err(io::Error::other("this ingest has failed, or is used from async code"));
        };
        sink.write(bytes).map_err(|error| {
            let kind = match &error {
                StoreError::Io { source, .. } => source.kind(),
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs disk work on a thread where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Worker)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_file_names() {
        assert!(IngestKey::random().as_str().parse::<IngestKey>().is_ok());
        let of = IngestKey::of(&Digest::of(Algorithm::Sha512, b""));
        assert!(of.as_str().parse::<IngestKey>().is_ok(), "{of}");
        for bad in ["", ".", "..", "a/b", "-a", "A", &"a".repeat(65)] {
            assert!(bad.parse::<IngestKey>().is_err(), "{bad}");
        }
    }
}
