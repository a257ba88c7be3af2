//! The task of a flight: asks the upstream, and keeps what comes.

use std::sync::Arc;
use std::time::Duration;

use boatyard_content::entries::EntryKey;
use boatyard_content::{IngestKey, Lease};
use boatyard_upstream::Wanted;
use boatyard_upstream::freshness::Policy;
use boatyard_upstream::guard;
use boatyard_upstream::http::HttpError;
use boatyard_upstream::transfer::{Failure, Reader, TransferError};
use boatyard_upstream::transport::TransportError;

use super::flight::{Answered, Arriving, Failed, FailedKind, Flight, Landing, News};
use super::judge::{Question, Settled, Verdict};
use super::read::Plan;
use super::{Engine, Shared};
use crate::entry::Entry;
use crate::headers;

/// The longest body of an answer that is passed to several clients from memory.
const ANSWER_MAX: usize = 64 * 1024;
/// How often the upstream is asked for one flight: with conditions, without, after another process.
const TRIES_MAX: usize = 3;
/// How long the first request may take to begin to read.
const FIRST_READER: Duration = Duration::from_secs(10);

/// Whether the upstream is asked in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Nothing was kept a moment ago, and nothing is now.
    UnlessKept,
    /// It is.
    Always,
}

impl Engine {
    /// Joins the flight that brings what is asked for, and begins it where there is none. `true`
    /// where it was begun.
    pub(super) fn fly(&self, question: Question, ask: Asking) -> (Arc<Flight>, bool) {
        let request = &question.request;
        let told_apart = headers::distinguishing(&headers::shared(&request.headers));
        let promised = question.promise().map(|promise| promise.digest.to_string());
        let text = format!("{}\n{}\n", request.target, promised.unwrap_or_default());
        let object = EntryKey::of(&text);
        let key = EntryKey::of(&format!("{text}{told_apart}"));
        let (flight, landing) = self.board(&key, &object, request);
        let Some(landing) = landing else { return (flight, false) };
        let engine = self.clone();
        tokio::spawn(async move { engine.lead(key, landing, question, ask).await });
        (flight, true)
    }

    async fn lead(self, key: EntryKey, landing: Landing, question: Question, ask: Asking) {
        if ask == Asking::UnlessKept
            && let Some(kept) = self.kept_meanwhile(&question).await
        {
            return landing.end(News::Found(kept));
        }
        let lease = match self.blocking(|shared| shared.root.lease()).await {
            Some(Ok(lease)) => lease,
            Some(Err(error)) => {
                let kind =
                    if error.is_no_space() { FailedKind::NoSpace } else { FailedKind::Unavailable };
                let reason = format!("the store cannot be written: {error}");
                return landing.end(News::Failed(Arc::new(Failed { kind, reason })));
            }
            None => return,
        };
        let mut question = Arc::new(question);
        for _ in 0..TRIES_MAX {
            let settled = Arc::new(Settled::default());
            let sources = self.sources(&question, &settled);
            let wanted = wanted(&key, &question);
            let opened = self.shared.transfers.open(&wanted, sources, &lease).await;
            let failure = match opened {
                Ok(reader) if settled.begun().is_some() || question.lasts() => {
                    return self.arrive(landing, &question, &settled, reader, &lease).await;
                }
                Ok(reader) => match self.inherit(&question, reader).await {
                    Ok(inherited) => {
                        question = Arc::new(inherited);
                        continue;
                    }
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            match settled.take() {
                Some(Verdict::NotModified(policy)) => {
                    let news = self.renew(&question, policy).await;
                    return landing.end(news);
                }
                // > "a 304 whose strong validator matches nothing stored": asked without conditions.
                Some(Verdict::Contradicted) if question.known.is_some() => {
                    let (request, class) = (question.request.clone(), question.class.clone());
                    question = Arc::new(Question { request, class, known: None });
                }
                Some(Verdict::Declined { answer, reason }) => {
                    tracing::debug!(target = %question.request.target, reason, "not kept");
                    landing.flight().decline(answer);
                    return landing.end(News::Declined);
                }
                Some(Verdict::Answered(answer)) => {
                    let news = self.answered(&question, *answer).await;
                    return landing.end(news);
                }
                Some(Verdict::Admitted { .. } | Verdict::Contradicted) | None => {
                    return landing.end(News::Failed(Arc::new(failed(&failure))));
                }
            }
        }
    }

    /// Looks once more at what is kept: between the first look and this flight, the one before it
    /// may have landed.
    async fn kept_meanwhile(&self, question: &Question) -> Option<Arc<Entry>> {
        let (request, class) = (&question.request, &question.class);
        let kept = self.kept(&request.target, &request.headers).await?;
        let now = self.shared.options.clock.now();
        match self.plan(request, class, Some(kept), now).await {
            Plan::Serve(kept) => Some(kept),
            _ => None,
        }
    }

    /// Keeps what a process that died, or another one, has fetched: nobody has asked the upstream
    /// for this question, so it is only what is known when that is done.
    async fn inherit(&self, question: &Question, reader: Reader) -> Result<Question, Failure> {
        let now = self.shared.options.clock.now();
        let policy = question.policy(&reader.head().headers, now, now);
        let info = reader.landed().await?;
        let (request, class) = (question.request.clone(), question.class.clone());
        let Ok(policy) = policy else {
            return Ok(Question { request, class, known: question.known.clone() });
        };
        let entry = Arc::new(Entry {
            target: request.target.clone(),
            from: request.target.to_string(),
            blob: info.digest,
            size: info.size,
            verified: None,
            policy,
        });
        self.keep(&entry).await;
        Ok(Question { request, class, known: Some(entry) })
    }

    /// Tells those who wait that bytes are coming, and keeps the blob that they become.
    async fn arrive(
        &self,
        landing: Landing,
        question: &Arc<Question>,
        settled: &Settled,
        reader: Reader,
        lease: &Lease,
    ) {
        let now = self.shared.options.clock.now();
        let (policy, from) = match settled.take() {
            Some(Verdict::Admitted { policy, from }) => (Ok(policy), Some(from)),
            // Another process fetches it, or had fetched it: we judge by what it noted.
            _ => (question.policy(&reader.head().headers, now, now), None),
        };
        let Ok(policy) = policy else {
            return landing.end(News::Declined);
        };
        let landed = match reader.watch() {
            None => reader.landed().await,
            Some(watch) => {
                let arriving = Arc::new(Arriving::new(policy.clone(), watch, reader));
                landing.flight().tell(News::Arriving(Arc::clone(&arriving)));
                let landed = arriving.watch().landed();
                let mut landed = std::pin::pin!(landed);
                match tokio::time::timeout(FIRST_READER, &mut landed).await {
                    Ok(landed) => landed,
                    Err(_) => {
                        // Whoever wanted to read does so by now: from here on, readers decide.
                        drop(arriving.take_first());
                        landed.await
                    }
                }
            }
        };
        let info = match landed {
            Ok(info) => info,
            Err(failure) => return landing.end(News::Failed(Arc::new(failed(&failure)))),
        };
        let target = &question.request.target;
        let entry = Arc::new(Entry {
            target: target.clone(),
            from: from.unwrap_or_else(|| target.to_string()),
            blob: info.digest.clone(),
            size: info.size,
            verified: question.promise().map(|promise| promise.by.clone()),
            policy,
        });
        let kept = self.keep(&entry).await;
        // The lease goes when all is said: until then the blob is held by it.
        landing.end(News::Kept(Arc::clone(&entry)));
        let _ = lease;
        if kept {
            self.forget_absent(target);
            self.hear(&question.request, entry).await;
            self.swept_after(info.size);
        }
    }

    /// Takes in that what is kept still holds.
    async fn renew(&self, question: &Question, policy: Policy) -> News {
        let Some(known) = &question.known else {
            return News::Failed(Arc::new(Failed::wrong("it says that nothing has changed")));
        };
        let entry = Arc::new(Entry { policy, ..(**known).clone() });
        self.keep(&entry).await;
        News::Renewed(entry)
    }

    async fn answered(
        &self,
        question: &Question,
        answer: boatyard_upstream::transport::Incoming,
    ) -> News {
        let (status, mut headers) = (answer.status, answer.headers.clone());
        headers::strip_hop_by_hop(&mut headers);
        headers.remove(http::header::CONTENT_LENGTH);
        // A body that is too long, or breaks off, is left out: the status says enough.
        let body = match answer.bytes(ANSWER_MAX).await {
            Ok(body) => body,
            Err(_) => {
                headers.remove(http::header::CONTENT_TYPE);
                bytes::Bytes::new()
            }
        };
        let answered = Arc::new(Answered { status, headers, body });
        // What an index lists may come at any moment.
        if question.promise().is_none() {
            self.remember_absent(&question.request, &answered);
        }
        News::Answered(answered)
    }

    /// Tells the ecosystem of a target what is kept of it now.
    async fn hear(&self, request: &crate::request::Request, entry: Arc<Entry>) {
        if let (Some(ecosystem), _) = self.classify(request) {
            ecosystem.kept(&entry, self).await;
        }
    }
}

fn wanted(key: &EntryKey, question: &Question) -> Wanted {
    match question.promise() {
        Some(promise) => {
            Wanted { key: IngestKey::of(&promise.digest), expected: promise.expected() }
        }
        None => {
            let key = format!("url-{}", &key.as_str()[..48]);
            Wanted::unpromised(key.parse().expect("hex digits are a key"))
        }
    }
}

impl Failed {
    fn wrong(reason: &str) -> Failed {
        Failed { kind: FailedKind::Wrong, reason: reason.to_owned() }
    }
}

/// Says for people why a transfer gave nothing.
fn failed(failure: &Failure) -> Failed {
    let kind = match &**failure {
        error if error.is_no_space() => FailedKind::NoSpace,
        TransferError::Digest { .. } | TransferError::Length { .. } => FailedKind::Wrong,
        TransferError::FirstByte { .. }
        | TransferError::Idle { .. }
        | TransferError::Queue { .. } => FailedKind::TimedOut,
        TransferError::Stopped => FailedKind::Abandoned,
        error => match error.reason::<HttpError>() {
            Some(HttpError::Transport(error)) => of_transport(error),
            _ => FailedKind::Unavailable,
        },
    };
    Failed { kind, reason: chain(&**failure) }
}

pub(super) fn of_transport(error: &TransportError) -> FailedKind {
    match error {
        TransportError::Denied { .. } | TransportError::Redirect { .. } => FailedKind::Forbidden,
        TransportError::Idle { .. } => FailedKind::TimedOut,
        error if guard::denied(error).is_some() => FailedKind::Forbidden,
        _ => FailedKind::Unavailable,
    }
}

/// Writes an error and what caused it on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl Shared {
    /// Returns how many flights are under way.
    pub(super) fn flights(&self) -> usize {
        self.flights.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }
}
