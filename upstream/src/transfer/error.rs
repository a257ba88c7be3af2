//! Why a reader does not get an object, or no more of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use boatyard_content::StoreError;
use boatyard_oci::Digest;

use super::source::SourceError;

/// A transfer that failed, as all its readers are told.
pub type Failure = Arc<TransferError>;

/// Why a transfer failed. Each that an upstream caused names it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The upstream does not give it.
    #[error("{upstream} does not give it")]
    Source {
        /// The upstream.
        upstream: String,
        /// What its client says.
        #[source]
        source: SourceError,
    },
    /// No answer came in time, tries and waits included.
    #[error("{upstream} did not answer within {} s", after.as_secs_f32())]
    FirstByte {
        /// The upstream.
        upstream: String,
        /// [`super::Limits::first_byte`].
        after: Duration,
    },
    /// No further byte came in time.
    #[error("{upstream} sent nothing for {} s", after.as_secs_f32())]
    Idle {
        /// The upstream.
        upstream: String,
        /// [`super::Limits::idle`].
        after: Duration,
    },
    /// Bytes came, but too few.
    #[error("{upstream} sent less than {least} bytes a second")]
    Slow {
        /// The upstream.
        upstream: String,
        /// [`super::Limits::rate_min`].
        least: u64,
    },
    /// The body ended before it was whole.
    #[error("{upstream} ended at byte {at} of {size}")]
    Ended {
        /// The upstream.
        upstream: String,
        /// How much was there.
        at: u64,
        /// What was promised.
        size: u64,
    },
    /// The connection broke again and again. What has come is kept for the next transfer.
    #[error("{upstream} broke off at byte {at}, {attempts} times")]
    Broken {
        /// The upstream.
        upstream: String,
        /// How much is there.
        at: u64,
        /// How often it was tried since bytes last came.
        attempts: u32,
        /// The last reason.
        #[source]
        source: Box<TransferError>,
    },
    /// It has another length than was promised.
    #[error("{upstream} has {got} bytes, not the {expected} that were promised")]
    Length {
        /// The upstream.
        upstream: String,
        /// What was promised.
        expected: u64,
        /// What came or was announced.
        got: u64,
    },
    /// It has other bytes than were promised.
    #[error("what {upstream} sent has the digest {got}, not {expected}: it was not kept")]
    Digest {
        /// The upstream.
        upstream: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// The upstream answered a request for a part with another part.
    #[error("{upstream} sent bytes from {got} on, not from {expected}")]
    Range {
        /// The upstream.
        upstream: String,
        /// From where on it was asked.
        expected: u64,
        /// From where on it sent.
        got: u64,
    },
    /// Too many transfers from the upstream, or in all, are under way.
    #[error("no connection to {upstream} became free within {} s", after.as_secs_f32())]
    Queue {
        /// The upstream.
        upstream: String,
        /// [`super::Limits::queue`].
        after: Duration,
    },
    /// What a reader has got so far was wrong, or is not part of what there is now.
    #[error("what has been read so far was wrong, and fetching it has begun anew")]
    Anew,
    /// The store failed.
    #[error("it cannot be kept in {store}")]
    Store {
        /// The store.
        store: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Nobody has it: there is no source to ask.
    #[error("it is not here, and there is nobody to ask")]
    NoSource,
    /// The task that moved the bytes is gone: the program is stopping.
    #[error("the transfer was stopped")]
    Stopped,
}

impl TransferError {
    /// Returns what the client of the upstream had to say, where it is of this type: a
    /// [`crate::ClientError`] for registries.
    pub fn reason<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            TransferError::Broken { source, .. } => source.reason(),
            TransferError::Source { source, .. } => {
                let (SourceError::Interrupted(cause)
                | SourceError::Unsatisfiable(cause)
                | SourceError::Refused(cause)) = source;
                cause.downcast_ref()
            }
            _ => None,
        }
    }

    /// Says whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, TransferError::Store { source, .. } if source.is_no_space())
    }
}
