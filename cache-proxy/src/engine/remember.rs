//! What is remembered for a short while, in memory only: what is absent upstream, and why the last
//! request for a target was answered as it was.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use boatyard_content::entries::EntryKey;
use http::StatusCode;
use jiff::Timestamp;

use super::Engine;
use super::flight::Answered;
use crate::answer::Answer;
use crate::request::Request;
use crate::selection::insists;
use crate::statistics::Outcome;
use crate::target::Target;

/// The most absent targets that are remembered.
const ABSENT_MAX: usize = 10_000;

/// That something is absent.
#[derive(Debug)]
pub(super) struct Absent {
    until: Timestamp,
    answered: Arc<Answered>,
}

/// Why a target's last request was answered as it was.
#[derive(Clone, Debug)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// How the answer came about.
    pub outcome: Outcome,
    /// Its status.
    pub status: StatusCode,
    /// The ecosystem that knew the target.
    pub ecosystem: Option<&'static str>,
}

impl Engine {
    /// Returns what the upstream said a moment ago of something that it does not have, unless the
    /// client insists on asking.
    pub(super) fn absent(&self, request: &Request) -> Option<Arc<Answered>> {
        if insists(&request.headers) {
            return None;
        }
        let now = self.shared.options.clock.now();
        let absent = self.all_absent();
        let known = absent.get(&request.target.key()).filter(|absent| now < absent.until)?;
        Some(Arc::clone(&known.answered))
    }

    /// Remembers that something is absent. Failures are never remembered, and nothing that one
    /// user was told.
    pub(super) fn remember_absent(&self, request: &Request, answered: &Arc<Answered>) {
        let is_absent = matches!(answered.status, StatusCode::NOT_FOUND | StatusCode::GONE);
        let personal = request.headers.contains_key(http::header::AUTHORIZATION)
            || request.headers.contains_key(http::header::COOKIE);
        let now = self.shared.options.clock.now();
        let Ok(until) = now.checked_add(self.shared.options.absent_for) else { return };
        if !is_absent || personal {
            return;
        }
        let mut absent = self.all_absent();
        if absent.len() >= ABSENT_MAX {
            absent.retain(|_, absent| now < absent.until);
        }
        if absent.len() < ABSENT_MAX {
            let answered = Arc::clone(answered);
            absent.insert(request.target.key(), Absent { until, answered });
        }
    }

    /// Forgets that a target was absent: it is kept now, or was written.
    pub(super) fn forget_absent(&self, target: &Target) {
        self.all_absent().remove(&target.key());
    }

    fn all_absent(&self) -> MutexGuard<'_, HashMap<EntryKey, Absent>> {
        self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a request was answered.
    pub(super) fn note(&self, request: &Request, answer: &Answer) {
        let decision = Decision {
            at: self.shared.options.clock.now(),
            outcome: answer.outcome,
            status: answer.status,
            ecosystem: answer.ecosystem,
        };
        self.shared.options.statistics.decided(&request.target, &decision);
        self.shared.decisions.put(request.target.key(), decision, 1);
    }

    /// Returns why the last request for a target was answered as it was, if that was not long ago.
    pub fn why(&self, target: &Target) -> Option<Decision> {
        self.shared.decisions.get(&target.key())
    }

    /// Returns how many questions to upstreams are under way.
    pub fn under_way(&self) -> usize {
        self.shared.flights()
    }
}
