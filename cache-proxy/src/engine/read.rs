//! GET and HEAD.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use boatyard_upstream::freshness::{self, Decision, Why};
use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;

use super::Engine;
use super::fetch::Asking;
use super::flight::{Answered, Failed, FailedKind, News};
use super::judge::{Question, keeps_promise};
use super::kept::Opened;
use super::receive::is_alone;
use crate::answer::{Answer, Body, Bytesource, Coming, Said};
use crate::class::{Class, Promise};
use crate::ecosystem::{Classified, Ecosystem, Resolution, Resolved};
use crate::entry::Entry;
use crate::reply::Reply;
use crate::request::Request;
use crate::selection::insists;
use crate::statistics::Outcome;

/// How often a request asks anew whose flight ended without a word for it.
const TRIES_MAX: usize = 3;

/// What is to be done for a request.
pub(super) enum Plan {
    /// What is kept serves.
    Serve(Arc<Entry>),
    /// It serves, and the upstream is asked meanwhile.
    ServeAndAsk(Arc<Entry>),
    /// The upstream is asked; what is kept helps with that, and stands in where it may.
    Ask { known: Option<Arc<Entry>>, on_error: bool },
    /// The client wants what is kept, and nothing is.
    Nothing,
}

impl Engine {
    pub(super) async fn read(
        &self,
        request: &Request,
        ecosystem: Option<&Arc<dyn Ecosystem>>,
        classified: Classified,
    ) -> Answer {
        match (classified, ecosystem) {
            (Classified::As(class), _) => self.read_as(request, class, ecosystem).await,
            (Classified::Resolve, None) => self.read_as(request, Class::Http, ecosystem).await,
            (Classified::Resolve, Some(resolving)) => {
                match resolving.resolve(request, self).await {
                    Resolution::Class(class) => self.read_as(request, class, ecosystem).await,
                    Resolution::Instead(request, class) => {
                        self.read_as(&self.placed(*request), class, ecosystem).await
                    }
                    Resolution::Blob(resolved) => self.resolved(request, resolved).await,
                    Resolution::Reply(reply) => self.replied(request, reply),
                    Resolution::Moved(to) => Answer::moved(&to),
                    Resolution::Refused { status, message } => Answer::own(status, &message),
                }
            }
        }
    }

    /// Answers for a target of a class.
    async fn read_as(
        &self,
        request: &Request,
        class: Class,
        ecosystem: Option<&Arc<dyn Ecosystem>>,
    ) -> Answer {
        if is_alone(request) {
            let message = "nothing of that name is published here";
            return Engine::refused(ecosystem, StatusCode::NOT_FOUND, message);
        }
        if class == Class::Pass {
            return self.pass(request).await;
        }
        for _ in 0..TRIES_MAX {
            let kept = self.kept(&request.target, &request.headers).await;
            let now = self.shared.options.clock.now();
            return match self.plan(request, &class, kept, now).await {
                Plan::Serve(entry) => self.serve(request, &class, entry, Outcome::Hit).await,
                Plan::ServeAndAsk(entry) => {
                    let question = question(request, &class, Some(Arc::clone(&entry)));
                    self.fly(question, Asking::Always);
                    self.serve(request, &class, entry, Outcome::Stale).await
                }
                Plan::Ask { known, on_error } => {
                    match self.ask(request, &class, known, on_error).await {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
                Plan::Nothing => {
                    Answer::own(StatusCode::GATEWAY_TIMEOUT, "nothing that is fresh is kept of it")
                }
            };
        }
        self.pass(request).await
    }

    pub(super) async fn plan(
        &self,
        request: &Request,
        class: &Class,
        kept: Option<Arc<Entry>>,
        now: Timestamp,
    ) -> Plan {
        let kept = kept.filter(|kept| keeps_promise(class.promise(), &kept.blob));
        let decision = kept.as_ref().map(|kept| {
            let asked = freshness::Request { method: &request.method, headers: &request.headers };
            freshness::decide(&kept.policy, asked, now)
        });
        match (class, kept, decision) {
            (Class::Immutable(immutable), Some(kept), _) => {
                Plan::Serve(self.vouched(immutable.promise.as_ref(), kept).await)
            }
            (Class::Immutable(immutable), None, _) => {
                let adopted = match &immutable.promise {
                    Some(promise) => self.adopt(request, promise, now).await,
                    None => None,
                };
                adopted.map_or_else(|| nothing_kept(request), Plan::Serve)
            }
            (_, Some(_), Some(Decision::Unusable(Why::OnlyIfCached))) => Plan::Nothing,
            (Class::Mutable(mutable), Some(kept), Some(decision)) if mutable.always_ask => {
                // > "must-revalidate [...] the cache MUST NOT use that response to satisfy subsequent
                // > requests without successful validation": an index of an archive that is gone
                // > still is what clients have their packages by, unless the upstream forbids it.
                let on_error = match decision {
                    Decision::Revalidate(conditions) => conditions.on_error,
                    _ => true,
                };
                Plan::Ask { known: Some(kept), on_error }
            }
            (Class::Revalidate(time), Some(kept), Some(_)) => {
                if kept.policy.age(now) < *time && !insists(&request.headers) {
                    return Plan::Serve(kept);
                }
                Plan::Ask { known: Some(kept), on_error: true }
            }
            (_, Some(kept), Some(Decision::Fresh { .. })) => Plan::Serve(kept),
            (_, Some(kept), Some(Decision::Revalidate(conditions))) if conditions.meanwhile => {
                Plan::ServeAndAsk(kept)
            }
            (_, Some(kept), Some(Decision::Revalidate(conditions))) => {
                Plan::Ask { known: Some(kept), on_error: conditions.on_error }
            }
            _ => nothing_kept(request),
        }
    }

    /// Notes who vouches for what was kept before anybody did, and turned out to be right.
    async fn vouched(&self, promise: Option<&Promise>, kept: Arc<Entry>) -> Arc<Entry> {
        let Some(promise) = promise.filter(|_| kept.verified.is_none()) else { return kept };
        let verified = Some(promise.by.clone());
        let vouched = Arc::new(Entry { verified, ..(*kept).clone() });
        self.keep(&vouched).await;
        vouched
    }

    /// Makes an entry of a blob that is here already: fetched from another mirror, or in an image.
    async fn adopt(
        &self,
        request: &Request,
        promise: &Promise,
        now: Timestamp,
    ) -> Option<Arc<Entry>> {
        if !self.has(&promise.digest).await {
            return None;
        }
        let size = match self.open(&promise.digest).await? {
            Opened::Memory(bytes) => bytes.len() as u64,
            Opened::File(file) => file.size(),
        };
        let policy = freshness::Policy {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            requested: now,
            received: now,
            varied: Vec::new(),
        };
        let entry = Arc::new(Entry {
            target: request.target.clone(),
            from: request.target.to_string(),
            blob: promise.digest.clone(),
            size,
            verified: Some(promise.by.clone()),
            policy,
        });
        // Without room for an entry, the bytes are here all the same.
        self.keep(&entry).await;
        Some(entry)
    }

    /// Asks the upstream, together with all who ask the same. `None` where it is to be looked once
    /// more at what is kept.
    async fn ask(
        &self,
        request: &Request,
        class: &Class,
        known: Option<Arc<Entry>>,
        on_error: bool,
    ) -> Option<Answer> {
        if request.method == Method::HEAD && recipe(class).is_none() {
            // It must not fetch what nobody wants, nor keep an empty object.
            return Some(self.ask_head(request, class, known.filter(|_| on_error)).await);
        }
        if let Some(answered) = self.absent(request) {
            return Some(self.relay(&answered, Outcome::Hit));
        }
        if let Some(known) = known.clone().filter(|_| on_error && self.rests(request)) {
            let reason = "it failed a moment ago";
            return Some(self.serve_stale(request, class, known, reason).await);
        }
        let asking = if known.is_none() { Asking::UnlessKept } else { Asking::Always };
        let (flight, mine) = self.fly(question(request, class, known.clone()), asking);
        if !mine && flight.given().load(Ordering::SeqCst) {
            flight.end().await;
            return None;
        }
        let outcome = if mine { Outcome::Miss } else { Outcome::Coalesced };
        let mut news = flight.news().await;
        if matches!(news, News::Arriving(_)) && recipe(class).is_some() {
            news = flight.end().await;
        }
        let known = known.filter(|_| on_error);
        Some(match news {
            News::Arriving(arriving) if !chosen(&arriving.policy, request) => {
                self.pass(request).await
            }
            News::Arriving(arriving) => {
                let coming = Coming {
                    reader: arriving.reader().await?,
                    given: Arc::clone(flight.given()),
                    bypass: self.bypass(request),
                };
                let bytes = Bytesource::Coming(Box::new(coming));
                self.answer_with(request, &arriving.policy.headers, bytes, outcome, None)
            }
            News::Kept(entry) if !chosen(&entry.policy, request) => self.pass(request).await,
            News::Found(entry) if !chosen(&entry.policy, request) => return None,
            News::Found(entry) => self.serve(request, class, entry, Outcome::Hit).await,
            News::Kept(entry) => self.serve(request, class, entry, outcome).await,
            News::Renewed(entry) => self.serve(request, class, entry, Outcome::Revalidated).await,
            News::Declined => match flight.take_declined().filter(|_| mine) {
                Some(answer) => {
                    Answer::passing(*answer, false, &self.shared.via).without_body_for(request)
                }
                None => self.pass(request).await,
            },
            News::Answered(answered) => match known.filter(|_| is_its_fault(answered.status)) {
                Some(known) => {
                    let reason = format!("it answered {}", answered.status);
                    self.serve_stale(request, class, known, &reason).await
                }
                None => match class.promise().filter(|_| is_absent(answered.status)) {
                    Some(promise) => unpublished(request, promise, answered.status),
                    None => self.relay(&answered, outcome),
                },
            },
            News::Failed(failed) => match (failed.kind, known) {
                (FailedKind::Abandoned, _) => return None,
                // Where the disk is full, nothing is kept and all is served: what is new as it comes,
                // what is kept when nobody else has it.
                (FailedKind::NoSpace, None) => self.pass(request).await,
                (FailedKind::NoSpace, Some(known)) => {
                    let answer = self.pass(request).await;
                    if !is_its_fault(answer.status) {
                        return Some(answer);
                    }
                    let reason = format!("it answered {}", answer.status);
                    self.serve_stale(request, class, known, &reason).await
                }
                (FailedKind::Forbidden, _) | (_, None) => error(request, &failed),
                (_, Some(known)) => self.serve_stale(request, class, known, &failed.reason).await,
            },
        })
    }

    /// Asks the upstream with HEAD, and stands in for it where it is away.
    async fn ask_head(
        &self,
        request: &Request,
        class: &Class,
        known: Option<Arc<Entry>>,
    ) -> Answer {
        let Some(known) = known else { return self.pass(request).await };
        if self.rests(request) {
            return self.serve_stale(request, class, known, "it failed a moment ago").await;
        }
        let answer = self.pass(request).await;
        if !is_its_fault(answer.status) {
            return answer;
        }
        let reason = format!("it answered {}", answer.status);
        self.serve_stale(request, class, known, &reason).await
    }

    async fn serve_stale(
        &self,
        request: &Request,
        class: &Class,
        known: Arc<Entry>,
        reason: &str,
    ) -> Answer {
        let age = known.policy.age(self.shared.options.clock.now());
        tracing::warn!(
            target = %request.target,
            age_seconds = age.as_secs(),
            "serving what was kept: the upstream does not answer ({reason})"
        );
        self.serve(request, class, known, Outcome::Stale).await
    }

    /// Answers with what is kept.
    pub(super) async fn serve(
        &self,
        request: &Request,
        class: &Class,
        entry: Arc<Entry>,
        outcome: Outcome,
    ) -> Answer {
        self.mark_used(&request.target);
        let entry = match recipe(class) {
            Some(recipe) => self.rendered(request, recipe, entry).await,
            None => entry,
        };
        let Some(opened) = self.open(&entry.blob).await else {
            // Somebody deleted it behind our back: then it is as if it had never been kept.
            tracing::warn!(target = %entry.target, blob = %entry.blob, "a kept blob is gone");
            let _ = self.forget(&entry.target).await;
            return self.pass(request).await;
        };
        let age = entry.policy.age(self.shared.options.clock.now());
        self.answer_with(request, &entry.policy.headers, opened.into(), outcome, Some(age))
    }

    /// Answers with the blob that an ecosystem chose.
    async fn resolved(&self, request: &Request, resolved: Resolved) -> Answer {
        let Some(opened) = self.open(&resolved.blob).await else {
            tracing::error!(target = %request.target, blob = %resolved.blob, "a held blob is gone");
            return self.pass(request).await;
        };
        self.mark_used(&request.target);
        let outcome = resolved.stale.map_or(resolved.outcome, |_| Outcome::Stale);
        self.answer_with(request, &resolved.headers, opened.into(), outcome, resolved.stale)
    }

    /// Answers with what an ecosystem made: in parts and under conditions, as if it were kept.
    pub(super) fn replied(&self, request: &Request, reply: Reply) -> Answer {
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        if !reads || reply.status != StatusCode::OK {
            return Answer::replied(reply);
        }
        let bytes = Bytesource::Memory(reply.body);
        self.answer_with(request, &reply.headers, bytes, Outcome::Own, None)
    }

    pub(super) fn answer_with(
        &self,
        request: &Request,
        resource: &HeaderMap,
        bytes: Bytesource,
        outcome: Outcome,
        age: Option<Duration>,
    ) -> Answer {
        let via = &self.shared.via;
        let said = Said { request: &request.headers, resource, outcome, age, via };
        Answer::of(bytes, &said)
    }

    /// Passes on a short answer of the upstream.
    fn relay(&self, answered: &Answered, outcome: Outcome) -> Answer {
        let mut headers = answered.headers.clone();
        headers.remove(AGE);
        headers.append(http::header::VIA, self.shared.via.clone());
        let word = http::HeaderValue::from_static(outcome.as_str());
        headers.insert(crate::answer::X_CACHE, word);
        let body = Body::Bytes(answered.body.clone());
        Answer { status: answered.status, headers, body, outcome, ecosystem: None, reason: None }
    }
}

impl From<Opened> for Bytesource {
    fn from(opened: Opened) -> Bytesource {
        match opened {
            Opened::Memory(bytes) => Bytesource::Memory(bytes),
            Opened::File(file) => Bytesource::File(file),
        }
    }
}

impl Answer {
    /// Leaves out the body where the request was HEAD, and the upstream was asked with GET.
    fn without_body_for(mut self, request: &Request) -> Answer {
        if request.method == Method::HEAD {
            self.body = Body::Spoken(self.body.len());
        }
        self
    }
}

pub(super) fn recipe(class: &Class) -> Option<&str> {
    match class {
        Class::Mutable(mutable) => mutable.recipe.as_deref(),
        _ => None,
    }
}

/// Says whether an answer is about the upstream's own state, and not about what was asked for.
fn is_its_fault(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Returns the answer for what an index lists and no server has: an archive that is being published
/// has its index first. Clients show the words of the status.
fn unpublished(request: &Request, promise: &Promise, status: StatusCode) -> Answer {
    let servers = match request.upstream.as_ref().map_or(1, |upstream| upstream.bases.len()) {
        1 => "the upstream answers".to_owned(),
        count => format!("all {count} servers of the upstream answer"),
    };
    let message = format!(
        "{}: {} lists it, and {servers} {status}: it is not published yet, or not any more",
        request.target, promise.by
    );
    tracing::warn!("{message}");
    let reason = Some("Listed but not at the upstream");
    Answer { reason, ..Answer::own(status, &message) }
}

fn question(request: &Request, class: &Class, known: Option<Arc<Entry>>) -> Question {
    Question { request: request.clone(), class: class.clone(), known }
}

/// Says whether an answer that varies is the one for this request, though another asked.
pub(super) fn chosen(policy: &freshness::Policy, request: &Request) -> bool {
    policy.varied.iter().all(|(name, values)| request.headers.get_all(name).iter().eq(values))
}

fn nothing_kept(request: &Request) -> Plan {
    let only_kept = request.headers.get_all(CACHE_CONTROL).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("only-if-cached"))
    });
    if only_kept { Plan::Nothing } else { Plan::Ask { known: None, on_error: false } }
}

/// Returns the answer where there is none.
pub(super) fn error(request: &Request, failed: &Failed) -> Answer {
    let status = match failed.kind {
        FailedKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        FailedKind::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_GATEWAY,
    };
    tracing::warn!(target = %request.target, reason = failed.reason, "no answer");
    let hint = match failed.kind {
        FailedKind::Forbidden => " (see allow_private and allow_ports of [proxy])",
        _ => "",
    };
    Answer::own(status, &format!("{}{hint}", failed.reason))
}
