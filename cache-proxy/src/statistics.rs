//! What was served, to whom and from where: counted for whoever watches.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::engine::Decision;
use crate::target::Target;

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// From what is kept.
    Hit,
    /// From what is kept, after the upstream said that it still holds.
    Revalidated,
    /// From what is kept, though it may not hold any more: the upstream cannot be asked.
    Stale,
    /// From a transfer that this request began.
    Miss,
    /// From a transfer that another request began.
    Coalesced,
    /// From the upstream, without being kept.
    Pass,
    /// By ourselves: an error, a page.
    Own,
}

impl Outcome {
    /// Returns its name in `X-Cache`, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "HIT",
            Outcome::Revalidated => "REVALIDATED",
            Outcome::Stale => "STALE",
            Outcome::Miss => "MISS",
            Outcome::Coalesced => "COALESCED",
            Outcome::Pass => "PASS",
            Outcome::Own => "NONE",
        }
    }

    /// Says whether the bytes were fetched for this request.
    pub fn is_fetched(self) -> bool {
        matches!(self, Outcome::Miss | Outcome::Pass)
    }
}

/// An answer that was sent.
#[derive(Clone, Debug)]
pub struct Served<'a> {
    /// Who got it.
    pub client: IpAddr,
    /// The ecosystem that knew the target.
    pub ecosystem: Option<&'static str>,
    /// The configured upstream's name, or the host.
    pub upstream: &'a str,
    /// How it came about.
    pub outcome: Outcome,
    /// How many bytes of its body were sent.
    pub bytes: u64,
}

/// Counts what is served.
pub trait Statistics: fmt::Debug + Send + Sync {
    /// An answer was sent, or as much of it as the client took.
    fn served(&self, served: &Served<'_>);

    /// It was decided how a request for a target is answered.
    fn decided(&self, target: &Target, decision: &Decision) {
        let _ = (target, decision);
    }
}

/// What was served, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers from what is kept, or from a transfer that was under way.
    pub hits: u64,
    /// Answers that were fetched.
    pub misses: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Bytes sent that did not have to be fetched.
    pub bytes_saved: u64,
}

/// By what is summed up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    /// All of it.
    All,
    /// An ecosystem.
    Ecosystem(String),
    /// An upstream.
    Upstream(String),
    /// A client.
    Client(IpAddr),
}

/// The most things that are told apart; all further ones count in the sum alone.
const KINDS_MAX: usize = 10_000;

/// Tallies in memory, since the process began or what it was restored from.
#[derive(Debug, Default)]
pub struct Counters {
    tallies: Mutex<HashMap<By, Tally>>,
}

impl Counters {
    /// Returns tallies that go on from others.
    pub fn restored(tallies: impl IntoIterator<Item = (By, Tally)>) -> Counters {
        let tallies = tallies.into_iter().take(KINDS_MAX).collect();
        Counters { tallies: Mutex::new(tallies) }
    }

    /// Returns all tallies, in order.
    pub fn tallies(&self) -> Vec<(By, Tally)> {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = tallies.iter().map(|(by, tally)| (by.clone(), *tally)).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

impl Tally {
    fn add(&mut self, served: &Served<'_>) {
        let fetched = served.outcome.is_fetched();
        self.bytes += served.bytes;
        if fetched {
            self.misses += 1;
        } else {
            self.hits += 1;
            self.bytes_saved += served.bytes;
        }
    }
}

impl Statistics for Counters {
    fn served(&self, served: &Served<'_>) {
        if served.outcome == Outcome::Own {
            return;
        }
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.entry(By::All).or_default().add(served);
        let room = tallies.len() < KINDS_MAX;
        let mut count = |by: By| {
            if room || tallies.contains_key(&by) {
                tallies.entry(by).or_default().add(served);
            }
        };
        count(By::Client(served.client));
        count(By::Upstream(served.upstream.to_owned()));
        if let Some(ecosystem) = served.ecosystem {
            count(By::Ecosystem(ecosystem.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_by_everything() {
        let counters = Counters::default();
        let serve = |outcome, bytes| {
            counters.served(&Served {
                client: IpAddr::from([127, 0, 0, 1]),
                ecosystem: Some("apt"),
                upstream: "deb.example",
                outcome,
                bytes,
            });
        };
        serve(Outcome::Miss, 10);
        serve(Outcome::Hit, 10);
        serve(Outcome::Coalesced, 5);
        serve(Outcome::Own, 99);
        let expected = Tally { hits: 2, misses: 1, bytes: 25, bytes_saved: 15 };
        let tallies = counters.tallies();
        assert_eq!(tallies.len(), 4);
        assert!(tallies.iter().all(|(_, tally)| *tally == expected));
    }
}
