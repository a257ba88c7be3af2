//! What passes through: requests that write, answers that may not be kept.

use std::sync::Arc;

use boatyard_upstream::freshness::Policy;
use boatyard_upstream::transport::{Incoming, Outgoing, Payload, TransportError};
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use jiff::Timestamp;
use url::Url;

use super::Engine;
use super::fetch::{chain, of_transport};
use super::flight::Failed;
use super::read::error;
use crate::answer::Answer;
use crate::entry::Entry;
use crate::headers;
use crate::request::Request;

impl Engine {
    /// Passes a GET or HEAD through: to the first base that answers.
    pub(super) async fn pass(&self, request: &Request) -> Answer {
        let headers = self.dressed(request, headers::passed_on(&request.headers));
        let mut last = None;
        for url in self.urls(request) {
            let sent = self.send(&request.method, url, headers.clone(), Payload::Empty).await;
            match sent {
                Ok(answer) => {
                    let is_head = request.method == Method::HEAD;
                    if is_head && answer.status == StatusCode::OK {
                        self.heed_head(request, &answer).await;
                    }
                    return Answer::passing(answer, is_head, &self.shared.via);
                }
                Err(error) => last = Some(error),
            }
        }
        last.map_or_else(
            || Answer::own(StatusCode::BAD_GATEWAY, "there is nobody to ask"),
            |failure| failed(request, &failure),
        )
    }

    /// Marks what is kept as stale, where an answer to HEAD speaks of something else.
    ///
    /// > "If the cached response and the received HEAD response [...] differ in the Content-Length,
    /// > [...] or a validator, the cache SHOULD consider the stored response to be stale"
    /// > (after RFC 9111, section 4.3.5)
    async fn heed_head(&self, request: &Request, answer: &Incoming) {
        let Some(kept) = self.kept(&request.target, &request.headers).await else { return };
        let known = &kept.policy.headers;
        let differs = |name: HeaderName| {
            let (theirs, ours) = (answer.headers.get(&name), known.get(&name));
            theirs.zip(ours).is_some_and(|(theirs, ours)| theirs != ours)
        };
        let other_length = answer.content_length().is_some_and(|length| length != kept.size);
        if !(differs(ETAG) || differs(LAST_MODIFIED) || other_length) {
            return;
        }
        tracing::info!(target = %request.target, "it has changed, says an answer to HEAD");
        let long_ago = Timestamp::UNIX_EPOCH;
        let policy = Policy { requested: long_ago, received: long_ago, ..kept.policy.clone() };
        self.keep(&Arc::new(Entry { policy, ..(*kept).clone() })).await;
    }

    /// Passes a request that writes through, and gives up what is kept of its target.
    ///
    /// > "A cache MUST invalidate the target URI when it receives a non-error status code in
    /// > response to an unsafe request method (including methods whose safety is unknown)."
    /// > (RFC 9111, section 4.4)
    pub(super) async fn write(&self, request: &Request, payload: Payload) -> Answer {
        let headers = self.dressed(request, headers::passed_on(&request.headers));
        let url =
            self.urls(request).into_iter().next().unwrap_or_else(|| request.target.url().clone());
        match self.send(&request.method, url, headers, payload).await {
            Ok(answer) => {
                let safe = matches!(request.method, Method::OPTIONS | Method::TRACE);
                if !safe
                    && (answer.status.is_success() || answer.status.is_redirection())
                    && let Err(error) = self.forget(&request.target).await
                {
                    tracing::warn!(target = %request.target, %error, "it stays, though written");
                }
                Answer::passing(answer, false, &self.shared.via)
            }
            Err(failure) => failed(request, &failure),
        }
    }

    pub(super) async fn send(
        &self,
        method: &Method,
        url: Url,
        headers: HeaderMap,
        payload: Payload,
    ) -> Result<Incoming, TransportError> {
        let method = method.clone();
        let outgoing = Outgoing { method, url: url.clone(), headers, payload, unchecked: false };
        let sent = self.settings().transport.send(outgoing).await;
        let answered = sent.as_ref().map_or_else(|error| !error.is_retryable(), |_| true);
        self.note_answer(&url, answered);
        sent
    }
}

fn failed(request: &Request, failure: &TransportError) -> Answer {
    error(request, &Failed { kind: of_transport(failure), reason: chain(failure) })
}
