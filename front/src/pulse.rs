//! What a connection's client keeps the server waiting for, and since when.
//!
//! hyper has one timeout for HTTP/1 headers, and it also runs while a kept-alive connection is
//! idle; HTTP/2 and writing have none. So the times are kept here, noted by the socket, the
//! service and the response bodies of one connection, and looked at by the task that drives it.
//! They are not moved by bytes that trickle in: a request has its header complete in time or not.
//!
//! An HTTP/2 client can also refuse to take the bytes of a stream while it takes others; what it
//! was handed and has not taken is noted, too.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::body::FRAME_MAX;
use crate::limits::Limits;
use crate::patience::Patience;

/// The state of one connection. All writes are `Relaxed`: each value stands for itself.
#[derive(Debug)]
pub(crate) struct Pulse {
    opened: Instant,
    requests: AtomicU32,
    idle: Mark,
    header: Mark,
    write: Mark,
    /// What the client's taking has earned it, and its waits have cost.
    patience: Mutex<Patience>,
    /// How many bodies have handed out bytes and were not asked for more since.
    handed: AtomicU32,
    /// Since when none of them was.
    untaken: Mark,
}

/// Why a connection is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    Header,
    Idle,
    Write,
}

impl Pulse {
    pub(crate) fn new(limits: &Limits) -> Pulse {
        let pulse = Pulse {
            opened: Instant::now(),
            patience: Mutex::new(Patience::new(limits.stall_timeout, limits.rate_min)),
            handed: AtomicU32::new(0),
            untaken: Mark::default(),
            requests: AtomicU32::new(0),
            idle: Mark::default(),
            header: Mark::default(),
            write: Mark::default(),
        };
        pulse.idle.set(pulse.opened, pulse.opened);
        pulse
    }

    /// Bytes came in. Between requests they begin the next one's header.
    pub(crate) fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.header.get(self.opened).is_none() {
            self.header.set(self.opened, Instant::now());
        }
    }

    /// A header is complete.
    pub(crate) fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.header.clear();
        self.idle.clear();
    }

    /// A response has ended, or was given up.
    pub(crate) fn end_request(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.set(self.opened, Instant::now());
        }
    }

    /// The client takes no more bytes for now.
    pub(crate) fn write_blocked(&self) {
        if self.write.get(self.opened).is_none() {
            self.write.set(self.opened, Instant::now());
        }
    }

    /// The client took so many bytes.
    pub(crate) fn written(&self, bytes: usize) {
        let waited = self.write.get(self.opened).map(|since| since.elapsed());
        self.write.clear();
        self.patience().moved(waited.unwrap_or_default(), bytes);
    }

    fn patience(&self) -> std::sync::MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body handed out bytes, which are to be sent before it is asked again.
    pub(crate) fn hand_out(&self) {
        if self.handed.fetch_add(1, Ordering::Relaxed) == 0 {
            self.untaken.set(self.opened, Instant::now());
        }
    }

    /// A body that handed out bytes was asked for more, or ended.
    pub(crate) fn taken(&self) {
        if self.handed.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.untaken.clear();
        } else {
            self.untaken.set(self.opened, Instant::now());
        }
    }

    /// Forgets a header that began: what came in was a TLS handshake.
    pub(crate) fn handshake_done(&self) {
        self.header.clear();
    }

    /// Says whether nothing would be lost if the connection ended now.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && self.header.get(self.opened).is_none()
    }

    /// Returns the next moment at which the client is overdue, unless something happens.
    ///
    /// A header has its limit only where `header_counts`: an HTTP/2 client sends frames that
    /// belong to no request.
    pub(crate) fn deadline(
        &self,
        limits: &Limits,
        header_counts: bool,
    ) -> Option<(Instant, Overdue)> {
        let due = |mark: &Mark, limit: Duration, why| {
            mark.get(self.opened).map(|since| (since + limit, why))
        };
        let header = due(&self.header, limits.header_timeout, Overdue::Header);
        // HTTP/1 takes what was handed out as the socket does.
        let untaken = due(&self.untaken, untaken_max(limits), Overdue::Write);
        [
            header.filter(|_| header_counts),
            untaken.filter(|_| !header_counts),
            due(&self.idle, limits.idle_timeout, Overdue::Idle),
            due(&self.write, self.patience().left(), Overdue::Write),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

/// Returns how long no stream of a connection may take what it was handed: a frame at the least
/// rate, and the time in which nothing has to move.
fn untaken_max(limits: &Limits) -> Duration {
    let frame = (FRAME_MAX as u64).checked_div(limits.rate_min).unwrap_or(0);
    limits.stall_timeout.saturating_add(Duration::from_secs(frame))
}

/// A moment or none: milliseconds after the connection was opened, plus one.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

impl Mark {
    fn set(&self, opened: Instant, now: Instant) {
        let elapsed = now.saturating_duration_since(opened).as_millis();
        self.0.store(u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn get(&self, opened: Instant) -> Option<Instant> {
        let elapsed = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(opened + Duration::from_millis(elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overdue(pulse: &Pulse) -> Option<Overdue> {
        pulse.deadline(&Limits::default(), true).map(|(_, why)| why)
    }

    #[test]
    fn a_connection_owes_one_thing_after_the_other() {
        let pulse = Pulse::new(&Limits::default());
        assert_eq!(overdue(&pulse), Some(Overdue::Idle));
        pulse.received();
        assert_eq!(overdue(&pulse), Some(Overdue::Header));
        assert!(!pulse.is_quiet());
        pulse.begin_request();
        assert_eq!(overdue(&pulse), None);
        pulse.received();
        assert_eq!(overdue(&pulse), None, "a body is not a header");
        pulse.write_blocked();
        assert_eq!(overdue(&pulse), Some(Overdue::Write));
        pulse.written(1);
        pulse.end_request();
        assert_eq!(overdue(&pulse), Some(Overdue::Idle));
        assert!(pulse.is_quiet());
    }

    #[test]
    fn bytes_that_are_taken_one_by_one_earn_no_time() {
        let limits = Limits { stall_timeout: Duration::from_secs(60), ..Limits::default() };
        let pulse = Pulse::new(&limits);
        let mut last = None;
        for _ in 0..3 {
            pulse.write_blocked();
            std::thread::sleep(Duration::from_millis(5));
            pulse.written(1);
            let left = pulse.patience().left();
            assert!(last.is_none_or(|last| left < last), "{left:?}");
            last = Some(left);
        }
        pulse.written(1 << 20);
        assert_eq!(pulse.patience().left(), limits.stall_timeout);
    }

    #[test]
    fn what_no_stream_takes_is_owed() {
        let pulse = Pulse::new(&Limits::default());
        pulse.begin_request();
        pulse.hand_out();
        pulse.hand_out();
        pulse.taken();
        let owed = |header_counts| pulse.deadline(&Limits::default(), header_counts);
        assert_eq!(owed(false).map(|(_, why)| why), Some(Overdue::Write));
        assert_eq!(owed(true), None, "the socket knows that of HTTP/1");
        pulse.taken();
        assert_eq!(owed(false), None);
    }

    #[test]
    fn trickling_bytes_do_not_move_the_headers_deadline() {
        let pulse = Pulse::new(&Limits::default());
        pulse.received();
        let first = pulse.deadline(&Limits::default(), true);
        pulse.received();
        assert_eq!(pulse.deadline(&Limits::default(), true), first);
    }
}
