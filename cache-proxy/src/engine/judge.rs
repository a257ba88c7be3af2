//! What an upstream's answer is good for, before a byte of its body is read.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_oci::Digest;
use boatyard_upstream::clock::Clock;
use boatyard_upstream::freshness::{self, Policy};
use boatyard_upstream::http::Admit;
use boatyard_upstream::transfer::SourceError;
use boatyard_upstream::transport::Incoming;
use http::header::{CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::class::{Class, Promise};
use crate::entry::Entry;
use crate::request::Request;

/// What the file system is left with, at the least.
const ROOM_MIN: u64 = 8 * 1024 * 1024;

/// What the upstream is asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: Request,
    pub(super) class: Class,
    /// What is kept, if only the upstream says that it still holds.
    pub(super) known: Option<Arc<Entry>>,
}

/// How a question was settled.
pub(super) enum Verdict {
    /// The object is being transferred.
    Admitted { policy: Policy, from: String },
    /// What is kept still holds.
    NotModified(Policy),
    /// A 304 that is about something else than what is kept.
    Contradicted,
    /// It is for the one who asked.
    Declined { answer: Box<Incoming>, reason: String },
    /// A short answer.
    Answered(Box<Incoming>),
}

/// Whether, and how, a question was settled.
#[derive(Default)]
pub(super) struct Settled {
    verdict: Mutex<Option<Verdict>>,
    begun: Mutex<Option<Timestamp>>,
}

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settled").field("settled", &self.is_settled()).finish_non_exhaustive()
    }
}

impl Settled {
    /// Says whether nobody else is to be asked. An object whose transfer fails may still be had from
    /// another upstream.
    pub(super) fn is_settled(&self) -> bool {
        let verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        verdict.as_ref().is_some_and(|verdict| !matches!(verdict, Verdict::Admitted { .. }))
    }

    pub(super) fn begin(&self, now: Timestamp) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Returns when an upstream was asked, if one was.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    }

    pub(super) fn take(&self) -> Option<Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Question {
    pub(super) fn promise(&self) -> Option<&Promise> {
        self.class.promise()
    }

    /// Says whether bytes that were fetched at any time are as good as those that are fetched now.
    pub(super) fn lasts(&self) -> bool {
        matches!(self.class, Class::Immutable(_))
    }

    /// Returns the conditions under which the upstream need not send anything.
    pub(super) fn conditions(&self) -> HeaderMap {
        let pairs = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
        let of = |entry: &Arc<Entry>| -> HeaderMap {
            let headers = &entry.policy.headers;
            pairs
                .into_iter()
                .filter_map(|(validator, condition)| {
                    Some((condition, headers.get(validator)?.clone()))
                })
                .collect()
        };
        self.known.as_ref().map(of).unwrap_or_default()
    }

    /// Returns what is to be known of an answer that may be kept, or why it may not.
    pub(super) fn policy(
        &self,
        headers: &HeaderMap,
        requested: Timestamp,
        received: Timestamp,
    ) -> Result<Policy, String> {
        let request =
            freshness::Request { method: &http::Method::GET, headers: &self.request.headers };
        let status = StatusCode::OK;
        match Policy::of(request, status, headers, requested, received) {
            Ok(policy) => Ok(self.varied(policy)),
            // Bytes that somebody vouches for by their digest are no secret of one user.
            Err(_) if self.promise().is_some() => {
                let headers = headers.clone();
                Ok(Policy { status, headers, requested, received, varied: Vec::new() })
            }
            Err(reason) => Err(reason.to_string()),
        }
    }

    /// Adds the headers that choose between variants though the upstream does not say so.
    fn varied(&self, mut policy: Policy) -> Policy {
        for name in self.class.mutable().into_iter().flat_map(|mutable| &mutable.varies) {
            if policy.varied.iter().all(|(known, _)| known != name) {
                let values = self.request.headers.get_all(name).iter().cloned().collect();
                policy.varied.push((name.clone(), values));
            }
        }
        policy
    }

    /// Says whether an answer is older than what is kept, by the number that it bears. One without
    /// a number may be anything: a mirror that bears none would else look stale for ever.
    fn goes_back(&self, headers: &HeaderMap) -> bool {
        let Some(name) = self.class.mutable().and_then(|mutable| mutable.serial.as_ref()) else {
            return false;
        };
        let number = |headers: &HeaderMap| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let kept = self.known.as_ref().and_then(|known| number(&known.policy.headers));
        number(headers).zip(kept).is_some_and(|(new, kept)| new < kept)
    }
}

/// One base's answers, judged.
pub(super) struct Judge {
    pub(super) question: Arc<Question>,
    pub(super) settled: Arc<Settled>,
    /// Nobody is asked after this one.
    pub(super) is_last: bool,
    pub(super) room: Arc<Root>,
    pub(super) clock: Arc<dyn Clock>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("question", &self.question).finish_non_exhaustive()
    }
}

#[async_trait]
impl Admit for Judge {
    async fn admit(&self, answer: Incoming) -> Result<Incoming, SourceError> {
        let received = self.clock.now();
        let requested = self.settled.begun().unwrap_or(received);
        let status = answer.status;
        match status.as_u16() {
            200 => self.whole(answer, requested, received),
            206 => Ok(answer),
            304 => Err(self.not_modified(&answer, requested, received)),
            // Another mirror may have it, or be well.
            _ if !self.is_last => Err(SourceError::Refused(format!("it answered {status}").into())),
            // To this user, or anybody who shows something.
            401 | 407 => Err(self.decline(answer, "it wants credentials".to_owned())),
            _ => {
                self.settled.settle(Verdict::Answered(Box::new(answer)));
                Err(SourceError::Refused(format!("it answered {status}").into()))
            }
        }
    }
}

impl Judge {
    fn whole(
        &self,
        answer: Incoming,
        requested: Timestamp,
        received: Timestamp,
    ) -> Result<Incoming, SourceError> {
        if self.is_page_instead(&answer) {
            let reason = "it answered with a page: a login, or a captive portal?";
            return Err(SourceError::Refused(reason.into()));
        }
        if self.question.goes_back(&answer.headers) {
            return Err(SourceError::Refused("what it has is older than what is kept".into()));
        }
        let policy = match self.question.policy(&answer.headers, requested, received) {
            Ok(policy) => policy,
            Err(reason) => return Err(self.decline(answer, reason)),
        };
        if !answer.is_framed() {
            return Err(self.decline(answer, "nobody can tell whether it is whole".to_owned()));
        }
        if !self.has_room(answer.content_length().unwrap_or(0)) {
            return Err(self.decline(answer, "there is no room to keep it".to_owned()));
        }
        let from = boatyard_upstream::redact::url_without_secrets(&answer.url);
        self.settled.settle(Verdict::Admitted { policy, from });
        Ok(answer)
    }

    fn decline(&self, answer: Incoming, reason: String) -> SourceError {
        let told = reason.clone();
        self.settled.settle(Verdict::Declined { answer: Box::new(answer), reason });
        SourceError::Refused(told.into())
    }

    fn not_modified(
        &self,
        answer: &Incoming,
        requested: Timestamp,
        received: Timestamp,
    ) -> SourceError {
        let known = self.question.known.as_ref();
        let renewed =
            known.and_then(|known| known.policy.refreshed(&answer.headers, requested, received));
        self.settled.settle(renewed.map_or(Verdict::Contradicted, Verdict::NotModified));
        SourceError::Refused("it has not changed".into())
    }

    /// Says whether a page came where a file of another kind was asked for.
    fn is_page_instead(&self, answer: &Incoming) -> bool {
        const PAGES: [&str; 4] = ["html", "htm", "xhtml", "php"];
        let kind = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
        let name = self.question.request.target.file_name();
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        kind.starts_with("text/html")
            && matches!(self.question.class, Class::Immutable(_))
            && extension.is_some_and(|extension| !PAGES.contains(&extension.as_str()))
    }

    fn has_room(&self, size: u64) -> bool {
        let Ok(room) = rustix::fs::statvfs(self.room.path()) else { return true };
        room.f_bavail.saturating_mul(room.f_frsize) >= size.saturating_add(ROOM_MIN)
    }
}

/// Says whether an entry is what was promised.
pub(super) fn keeps_promise(promise: Option<&Promise>, blob: &Digest) -> bool {
    promise.is_none_or(|promise| promise.digest == *blob)
}
