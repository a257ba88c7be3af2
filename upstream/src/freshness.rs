//! HTTP freshness, as RFC 9111 has it for a shared cache: what may be kept, and what may be done
//! with what was kept.
//!
//! Pure: time is an argument, and nothing is fetched or stored here. A [`Policy`] is made of an
//! answer that may be kept, or says why it may not; [`decide`] says of a request whether the answer
//! serves it at once, after a question to the upstream, or not at all; [`Policy::refreshed`] takes
//! in the upstream's 304. Rules that are stricter or laxer than HTTP's (indexes that always are
//! asked for, files that never change) belong to whoever calls.

mod age;
mod directives;

use std::time::Duration;

use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, EXPIRES,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, PROXY_AUTHENTICATE, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use age::{current_age, lifetime};
pub use directives::Directives;

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What is known of an answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// When it was asked for.
    pub requested: Timestamp,
    /// When it came.
    pub received: Timestamp,
    /// The request's headers that chose it, each with its values.
    pub varied: Vec<(HeaderName, Vec<HeaderValue>)>,
}

/// Why an answer may not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// It answers something else than GET.
    #[error("only answers to GET are kept")]
    Method,
    /// Its status is none that a cache understands, or a part of an answer.
    #[error("answers of this status are not kept")]
    Status,
    /// `no-store`, in the request or the answer.
    #[error("it must not be stored")]
    NoStore,
    /// `private`.
    #[error("it is meant for one user")]
    Private,
    /// The request had credentials, and the answer does not say that others may have it.
    #[error("it was given to a user who showed credentials")]
    Authorized,
    /// It sets a cookie: nobody else may get that.
    #[error("it sets a cookie")]
    Cookie,
    /// `Vary: *`.
    #[error("it depends on more than the request")]
    Varies,
}

/// What is to be done for a request with an answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It serves, at this `Age`.
    Fresh {
        /// How old it is.
        age: Duration,
    },
    /// The upstream is to be asked whether it still holds.
    Revalidate(Conditions),
    /// It does not serve.
    Unusable(Why),
}

/// How to ask whether an answer still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// What to add to the request. Empty where the answer has no validator: then all of it is
    /// fetched again.
    pub headers: HeaderMap,
    /// How old the answer is.
    pub age: Duration,
    /// It may be sent at once, and the upstream asked meanwhile (RFC 5861).
    pub meanwhile: bool,
    /// It may be sent where the upstream does not answer, or with an error of its own (5xx).
    pub on_error: bool,
}

/// Why an answer does not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The request is no GET or HEAD.
    Method,
    /// It differs in a header that `Vary` names.
    Varies,
    /// The request wants what is kept, and that is not fresh enough: 504.
    OnlyIfCached,
}

/// Statuses that are kept without being told to.
///
/// > "the status codes that are heuristically cacheable (e.g., 200, 203, 204, 206, 300, 301, 308,
/// > 404, 405, 410, 414, and 501 in this specification)" (RFC 9110, section 15.1)
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

impl Policy {
    /// Returns what is to be known of an answer, where it may be kept.
    ///
    /// # Errors
    /// Why it may not (RFC 9111, section 3).
    pub fn of(
        request: Request<'_>,
        status: StatusCode,
        headers: &HeaderMap,
        requested: Timestamp,
        received: Timestamp,
    ) -> Result<Policy, NotKept> {
        let (asked, told) = (Directives::of(request.headers), Directives::of(headers));
        // > "if the response status code is 206 or 304, or the must-understand cache directive is
        // > present: the cache understands the response status code"
        let heuristic = HEURISTIC.contains(&status.as_u16());
        let explicit = told.public
            || told.max_age.is_some()
            || told.s_maxage.is_some()
            || headers.contains_key(EXPIRES);
        let partial = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        let not_understood = told.must_understand && !heuristic;
        let shared = told.must_revalidate || told.public || told.s_maxage.is_some();
        if *request.method != Method::GET {
            Err(NotKept::Method)
        } else if status.is_informational() || partial || not_understood || !(heuristic || explicit)
        {
            Err(NotKept::Status)
        } else if asked.no_store || (told.no_store && !told.must_understand) {
            Err(NotKept::NoStore)
        } else if told.private {
            Err(NotKept::Private)
        } else if request.headers.contains_key(AUTHORIZATION) && !shared {
            Err(NotKept::Authorized)
        } else if headers.contains_key(SET_COOKIE) {
            Err(NotKept::Cookie)
        } else {
            let varied = varied(headers, request.headers).ok_or(NotKept::Varies)?;
            Ok(Policy { status, headers: headers.clone(), requested, received, varied })
        }
    }

    /// Returns how old the answer is.
    pub fn age(&self, now: Timestamp) -> Duration {
        current_age(&self.headers, self.requested, self.received, now)
    }

    /// Takes in a 304 that answered our question. `None` where it is about other bytes than those
    /// that are kept: then all of it is to be fetched again, without conditions.
    ///
    /// > "If the new response contains any strong validators, then each of those strong validators
    /// > identifies a selected representation for update. [...] If no stored response [has them],
    /// > then the cache MUST NOT use the new response to update any stored responses."
    /// > (section 4.3.4)
    pub fn refreshed(
        &self,
        headers: &HeaderMap,
        requested: Timestamp,
        received: Timestamp,
    ) -> Option<Policy> {
        let told = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
        if told.is_some() && told != self.headers.get(ETAG) {
            return None;
        }
        let mut updated = self.headers.clone();
        updated.remove(AGE);
        for name in headers.keys().filter(|name| !is_of_the_body(name)) {
            updated.remove(name);
            for value in headers.get_all(name) {
                updated.append(name, value.clone());
            }
        }
        Some(Policy { headers: updated, requested, received, ..self.clone() })
    }

    fn conditions(&self) -> HeaderMap {
        let pairs = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
        pairs
            .into_iter()
            .filter_map(|(validator, condition)| {
                Some((condition, self.headers.get(validator)?.clone()))
            })
            .collect()
    }

    fn serves(&self, headers: &HeaderMap) -> bool {
        self.varied.iter().all(|(name, values)| headers.get_all(name).iter().eq(values))
    }
}

/// Decides what is to be done for a request with an answer that is kept.
pub fn decide(policy: &Policy, request: Request<'_>, now: Timestamp) -> Decision {
    if !matches!(*request.method, Method::GET | Method::HEAD) {
        return Decision::Unusable(Why::Method);
    }
    if !policy.serves(request.headers) {
        return Decision::Unusable(Why::Varies);
    }
    let (asked, told) = (Directives::of(request.headers), Directives::of(&policy.headers));
    let age = policy.age(now);
    let heuristic = HEURISTIC.contains(&policy.status.as_u16()) || told.public;
    let lifetime = lifetime(&policy.headers, &told, policy.received, heuristic);
    // > "s-maxage [...] incorporates the semantics of the proxy-revalidate response directive"
    // > (section 5.2.2.10)
    let strict =
        told.must_revalidate || told.proxy_revalidate || told.s_maxage.is_some() || told.no_cache;
    let staleness = age.saturating_sub(lifetime);
    let young = asked.max_age.is_none_or(|most| age <= most);
    let lasting = age.saturating_add(asked.min_fresh.unwrap_or_default()) < lifetime;
    let tolerated =
        asked.max_stale.is_some_and(|most| staleness <= most && !strict && age >= lifetime);
    if !asked.no_cache && !told.no_cache && young && (lasting || tolerated) {
        return Decision::Fresh { age };
    }
    if asked.only_if_cached {
        return Decision::Unusable(Why::OnlyIfCached);
    }
    let within = |most: Option<Duration>| most.is_some_and(|most| staleness <= most);
    let insists = asked.no_cache || !young || asked.min_fresh.is_some();
    Decision::Revalidate(Conditions {
        headers: policy.conditions(),
        age,
        meanwhile: !strict && !insists && within(told.stale_while_revalidate),
        on_error: !strict && told.stale_if_error.is_none_or(|most| staleness <= most),
    })
}

/// Returns the request's headers that `Vary` names; `None` for `Vary: *`.
fn varied(answer: &HeaderMap, request: &HeaderMap) -> Option<Vec<(HeaderName, Vec<HeaderValue>)>> {
    let mut varied = Vec::new();
    for list in answer.get_all(VARY) {
        for name in list.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is no name of a header, and fails here.
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name != "*")?;
            let values = request.get_all(&name).iter().cloned().collect();
            varied.push((name, values));
        }
    }
    Some(varied)
}

/// Says whether a header of a 304 would be wrong for the bytes that are kept, or concerns the
/// connection only (section 3.2). A tag is the same, or a weak form of the one that is kept.
fn is_of_the_body(name: &HeaderName) -> bool {
    [
        ETAG,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONNECTION,
        PROXY_AUTHENTICATE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests;
