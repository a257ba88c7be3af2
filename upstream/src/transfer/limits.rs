//! How long a transfer waits, how much it asks of an upstream, and how long it goes on unread.

use std::time::Duration;

use crate::retry::RetryPolicy;
use crate::transport::Timeouts;

/// The limits of transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many objects are fetched at once from one upstream; further ones wait their turn.
    pub per_upstream: usize,
    /// How many objects are fetched at once in all.
    pub total: usize,
    /// How long an object may wait for its turn.
    pub queue: Duration,
    /// How long an upstream may take to answer, tries and waits included.
    pub first_byte: Duration,
    /// How long a body may stand still.
    pub idle: Duration,
    /// How many bytes a second a body brings at least, measured over `rate_over`. 0: any number.
    pub rate_min: u64,
    /// The time over which `rate_min` is measured.
    pub rate_over: Duration,
    /// How often, and after which waits, a body that broke off is resumed. Attempts are counted
    /// anew whenever one brought bytes.
    pub retry: RetryPolicy,
    /// A transfer that nobody reads any more goes on where no more bytes than this are missing;
    /// otherwise what has come is put aside, to be resumed.
    pub unread_bytes: u64,
    /// How long it goes on at most when nobody reads it.
    pub unread_for: Duration,
    /// How long another process that fetches the object may bring nothing before it is fetched
    /// beside it.
    pub patience: Duration,
}

impl Limits {
    /// Returns limits for somebody who waits as long as it takes, while bytes come at all: a
    /// build, a pull.
    pub(crate) fn patient(timeouts: &Timeouts, retry: &RetryPolicy) -> Limits {
        Limits {
            idle: timeouts.idle,
            // The client's own limits are for each try.
            first_byte: Duration::from_secs(3600),
            rate_min: 0,
            retry: retry.clone(),
            ..Limits::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            per_upstream: 16,
            total: 64,
            queue: Duration::from_secs(300),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            rate_min: 1024,
            rate_over: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            unread_bytes: 1 << 30,
            unread_for: Duration::from_secs(600),
            patience: Duration::from_secs(600),
        }
    }
}
