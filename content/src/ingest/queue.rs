//! What async code has handed to the thread that writes, and that thread's work.
//!
//! The writer begins with one batch and goes on with what was queued meanwhile, so that it never
//! waits for the async side to be scheduled; when it finds the queue empty it ends, so that a slow
//! client holds no thread.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::Sink;
use crate::store::StoreError;

/// Bytes that are written together.
pub(super) type Batch = Vec<Bytes>;

/// How many batches may wait for the writer. With the one that it writes and the one that is
/// being filled, this bounds an ingest's memory.
const WAITING_MAX: usize = 2;

/// The batches that wait for one writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// There is room again, or the writer has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    ended: bool,
}

impl Queue {
    /// Queues a batch once there is room, or gives it back where the writer has ended.
    pub(super) async fn put(&self, batch: Batch) -> Result<(), Batch> {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.ended {
                    return Err(batch);
                }
                if waiting.batches.len() < WAITING_MAX {
                    waiting.batches.push_back(batch);
                    return Ok(());
                }
            }
            // A change since then has left a permit behind: nothing is missed.
            self.changed.notified().await;
        }
    }

    /// Returns the next batch. Where there is none, the writer has ended in the same step: no
    /// batch can be queued that nobody takes.
    fn take(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        let batch = waiting.batches.pop_front();
        waiting.ended = batch.is_none();
        drop(waiting);
        self.changed.notify_one();
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a queue when the writer does, however that comes about.
struct Writer<'a>(&'a Queue);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

/// Writes a batch and all that is queued meanwhile, and tells how far it has come. What is queued
/// behind an error is dropped: the ingest has failed.
pub(super) fn write(
    sink: &mut dyn Sink,
    first: Batch,
    queue: &Queue,
    written: &watch::Sender<u64>,
) -> Result<(), StoreError> {
    let writer = Writer(queue);
    let mut next = Some(first);
    while let Some(batch) = next {
        sink.write_batch(&batch)?;
        drop(batch);
        written.send_replace(sink.offset());
        next = writer.0.take();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use boatyard_oci::Algorithm;

    use super::*;
    use crate::ingest::{Expected, Ingest, Landed};

    /// Keeps what it is given, as slowly as its test lets it, and fails at an offset.
    struct SlowSink {
        pace: std::sync::mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
        fails_at: usize,
    }

    impl Sink for SlowSink {
        fn offset(&self) -> u64 {
            0
        }
        fn also(&mut self, _: Algorithm) {}
        fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
            // An error says that the test lets it run.
            let _ = self.pace.recv();
            let mut written = self.written.lock().unwrap();
            if written.len() >= self.fails_at {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(StoreError::Io { doing: "write a blob", source });
            }
            written.extend_from_slice(bytes);
            Ok(())
        }
        fn save(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
        fn announce(&mut self, _: &Bytes) -> Result<(), StoreError> {
            Ok(())
        }
        fn commit(self: Box<Self>, _: &Expected, _: &dyn Fn()) -> Result<Landed, StoreError> {
            Err(StoreError::Worker)
        }
        fn abort(self: Box<Self>) -> Result<(), StoreError> {
            Ok(())
        }
    }

    type Fixture = (Ingest, std::sync::mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>);

    fn ingest(fails_at: usize) -> Fixture {
        let (step, pace) = std::sync::mpsc::channel();
        let written = Arc::default();
        let sink = SlowSink { pace, written: Arc::clone(&written), fails_at };
        (Ingest::new(Box::new(sink)), step, written)
    }

    /// A frame that is a batch of its own, filled with a number.
    fn frame(number: u8) -> Bytes {
        vec![number; crate::ingest::BATCH_LEN].into()
    }

    #[tokio::test]
    async fn bytes_are_written_in_order_and_all_of_them() {
        let (mut ingest, step, written) = ingest(usize::MAX);
        let mut sent = Vec::new();
        for number in 0..20 {
            // One step for each, early: the writer ends between batches, or does not.
            step.send(()).unwrap();
            ingest.append(frame(number)).await.unwrap();
            sent.extend_from_slice(&frame(number));
        }
        drop(step);
        ingest.append(Bytes::from_static(b"the rest")).await.unwrap();
        sent.extend_from_slice(b"the rest");
        ingest.suspend().await.unwrap();
        assert!(*written.lock().unwrap() == sent);
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (mut ingest, step, _written) = ingest(usize::MAX);
        for number in 0..=WAITING_MAX as u8 {
            ingest.append(frame(number)).await.unwrap();
        }
        {
            let mut more = Box::pin(ingest.append(frame(9)));
            assert!(futures_util::poll!(more.as_mut()).is_pending());
            step.send(()).unwrap();
            more.await.unwrap();
        }
        // One who gives up waiting leaves a hole, so that is the end of the ingest.
        let mut given_up = Box::pin(ingest.append(frame(10)));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        drop(step);
        assert!(ingest.append(frame(11)).await.is_err());
        assert!(ingest.suspend().await.is_err());
    }

    #[tokio::test]
    async fn an_error_reaches_whoever_appends_or_ends() {
        let (mut ingest, step, _written) = ingest(crate::ingest::BATCH_LEN);
        drop(step);
        let mut failure = None;
        for number in 0..20 {
            if let Err(error) = ingest.append(frame(number)).await {
                failure.get_or_insert(error);
                break;
            }
        }
        assert!(failure.is_some_and(|error| error.is_no_space()));
        assert!(ingest.suspend().await.is_err());
    }
}
