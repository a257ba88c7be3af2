//! What is known of each request, told when its answer has ended.
//!
//! A request gets a name when its header has arrived ([`RequestId`]), which the answer carries as
//! `X-Request-Id` and all log lines meanwhile as `id`. When the last byte of the answer has left, or
//! the client has, an [`Observer`] is told what became of it: metrics and the access log are made
//! of that. A service adds what only it knows by [`Labels`] in the extensions of its answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use uuid::Uuid;

use crate::connection::Peer;

/// Where the name of a request stands, in it and in its answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest name of a request that is taken from a client.
const GIVEN_MAX: usize = 64;

/// The name of a request, in its extensions.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes the name that a client or a proxy gave, if it is harmless in a log, or makes one.
    pub(crate) fn of(headers: &HeaderMap) -> RequestId {
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let is_harmless = |name: &&str| {
            (1..=GIVEN_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        match given.filter(is_harmless) {
            Some(given) => RequestId(given.into()),
            None => {
                let mut buffer = Uuid::encode_buffer();
                RequestId((&*Uuid::now_v7().simple().encode_lower(&mut buffer)).into())
            }
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a service says of a request, in the extensions of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The service: `registry`, `proxy`.
    pub service: &'static str,
    /// What was asked for, of few kinds: `blob`, `manifest`.
    pub route: &'static str,
    /// Who asked, where somebody proved a name.
    pub who: Option<Arc<str>>,
}

/// A request and what became of it.
#[derive(Debug)]
pub struct Exchange {
    /// Its name.
    pub id: RequestId,
    /// Who sent it.
    pub peer: Peer,
    /// The method.
    pub method: Method,
    /// The path, without the query: that may hold secrets.
    pub path: String,
    /// What the client calls itself.
    pub user_agent: Option<HeaderValue>,
    /// The answer's status; `None` where the client left before there was one.
    pub status: Option<StatusCode>,
    /// What the service said of it.
    pub labels: Labels,
    /// From the end of the request's header until the answer's.
    pub waited: Duration,
    /// From the end of the request's header until the last byte of the answer.
    pub lasted: Duration,
    /// The bytes of the request's body that were read.
    pub received: u64,
    /// The bytes of the answer's body that were handed to the connection.
    pub sent: u64,
    /// Whether all of the answer was.
    pub complete: bool,
}

/// Somebody who wants to know. Called once for each request, on the threads that serve: it must
/// not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A request begins.
    fn began(&self);

    /// A request has ended.
    fn ended(&self, exchange: &Exchange);
}

/// Follows a request until it is dropped, with the answer's body or before there is one.
pub(crate) struct Attendance {
    observer: Arc<dyn Observer>,
    exchange: Exchange,
    begun: Instant,
    received: Arc<AtomicU64>,
}

impl Attendance {
    pub(crate) fn begin<B>(
        observer: Arc<dyn Observer>,
        id: RequestId,
        peer: Peer,
        request: &Request<B>,
    ) -> Attendance {
        observer.began();
        let exchange = Exchange {
            id,
            peer,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            user_agent: request.headers().get(http::header::USER_AGENT).cloned(),
            status: None,
            labels: Labels::default(),
            waited: Duration::ZERO,
            lasted: Duration::ZERO,
            received: 0,
            sent: 0,
            complete: false,
        };
        Attendance { observer, exchange, begun: Instant::now(), received: Arc::default() }
    }

    /// Returns what counts the bytes of the request's body.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The answer begins.
    pub(crate) fn answered<B>(&mut self, answer: &mut http::Response<B>) {
        self.exchange.status = Some(answer.status());
        self.exchange.waited = self.begun.elapsed();
        self.exchange.labels = answer.extensions_mut().remove().unwrap_or_default();
        // Nothing of the body is sent, and nobody asks it for an end.
        self.exchange.complete = self.exchange.method == Method::HEAD
            || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.exchange.sent += bytes as u64;
    }

    pub(crate) fn complete(&mut self) {
        self.exchange.complete = true;
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.exchange.lasted = self.begun.elapsed();
        if self.exchange.status.is_none() {
            self.exchange.waited = self.exchange.lasted;
        }
        self.exchange.received = self.received.load(Ordering::Relaxed);
        self.observer.ended(&self.exchange);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_where_it_is_harmless() {
        let of = |given: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(given));
            RequestId::of(&headers)
        };
        assert_eq!(of("build-17.3_a").as_str(), "build-17.3_a");
        for bad in ["", "a b", "a\"b", "x\ty", "<script>", &"a".repeat(65).leak()[..]] {
            assert_eq!(of(bad).as_str().len(), 32, "{bad}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }
}
