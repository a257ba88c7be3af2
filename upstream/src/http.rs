//! Any HTTP server as a source of transfers: one URL, as it is.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use boatyard_upstream::http::HttpSource;
//! # async fn example(transport: Arc<boatyard_upstream::transport::Transport>,
//! #     transfers: boatyard_upstream::Transfers, lease: boatyard_content::Lease) {
//! let source = HttpSource::new(transport, "https://files.example/a.tar".parse().unwrap());
//! let wanted = boatyard_upstream::Wanted::unpromised("a-tar".parse().unwrap());
//! let reader = transfers.open(&wanted, vec![Arc::new(source)], &lease).await;
//! # }
//! ```

use std::fmt;
use std::sync::Arc;

use ::http::header::{CONTENT_RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream;
use url::Url;

use crate::clock::{Clock, SystemClock};
use crate::redact::url_without_secrets;
use crate::retry::{self, RetryPolicy};
use crate::transfer::{Arrival, Cause, Missing, Source, SourceError};
use crate::transport::{Incoming, Outgoing, Payload, Transport, TransportError};

/// Judges answers before a byte of their bodies is read.
#[async_trait]
pub trait Admit: fmt::Debug + Send + Sync {
    /// Returns an answer that is to be transferred: 200, or 206 where a part was asked for. All
    /// others may be kept by the judge, with their bodies.
    ///
    /// # Errors
    /// What the transfer is told instead. [`SourceError::Refused`] has the next source asked.
    async fn admit(&self, answer: Incoming) -> Result<Incoming, SourceError>;
}

/// A URL as a source.
#[derive(Clone, Debug)]
pub struct HttpSource {
    /// What asks.
    pub transport: Arc<Transport>,
    /// What is asked for.
    pub url: Url,
    /// The headers of each request, besides those that ask for a part.
    pub headers: HeaderMap,
    /// The upstream's name, by which its connections are counted and which errors show.
    pub name: String,
    /// How often it is asked before there is an answer.
    pub retry: RetryPolicy,
    /// What waits.
    pub clock: Arc<dyn Clock>,
    /// A body that ends with its connection, and says nothing of its length, counts as whole.
    pub trusts_close: bool,
    /// Judges answers; without a judge, only 200 and 206 are transferred.
    pub judge: Option<Arc<dyn Admit>>,
}

/// Why a server does not give what its URL names. The cause of a [`SourceError`].
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It answered something else.
    #[error("{url}: the answer was {status}")]
    Status {
        /// The URL that answered, without its query.
        url: String,
        /// The status.
        status: StatusCode,
        /// The headers of the answer.
        headers: Box<HeaderMap>,
    },
    /// It sent a part that nobody asked for, or one that it does not describe.
    #[error("{url}: the answer is a part of something, and not the one that was asked for")]
    Part {
        /// The URL that answered, without its query.
        url: String,
    },
    /// The body ended with the connection, so nobody can tell whether it is whole.
    #[error("{url}: the connection ended, and the answer does not say how long it is")]
    Unframed {
        /// The URL that answered, without its query.
        url: String,
    },
    /// There was no answer, or it broke off.
    #[error(transparent)]
    Transport(TransportError),
}

impl HttpSource {
    /// Returns a source that asks for a URL and nothing else, with the usual patience.
    pub fn new(transport: Arc<Transport>, url: Url) -> HttpSource {
        HttpSource {
            transport,
            name: url.host_str().unwrap_or_default().to_owned(),
            url,
            headers: HeaderMap::new(),
            retry: RetryPolicy::default(),
            clock: Arc::new(SystemClock),
            trusts_close: false,
            judge: None,
        }
    }

    /// Asks until there is an answer that waiting would not change.
    async fn ask(&self, headers: HeaderMap) -> Result<Incoming, HttpError> {
        let mut failed = 0;
        loop {
            failed += 1;
            let request = Outgoing {
                method: Method::GET,
                url: self.url.clone(),
                headers: headers.clone(),
                payload: Payload::Empty,
                unchecked: false,
            };
            let answer = self.transport.send(request).await;
            let after = match &answer {
                Ok(answer) if retry::is_retryable(answer.status) => {
                    retry::retry_after(&answer.headers, self.clock.now())
                }
                Err(error) if error.is_retryable() => None,
                _ => return answer.map_err(HttpError::Transport),
            };
            let Some(delay) = self.retry.delay(failed, after, self.clock.jitter()) else {
                return answer.map_err(HttpError::Transport);
            };
            self.clock.sleep(delay).await;
        }
    }

    async fn admit(&self, answer: Incoming) -> Result<Incoming, SourceError> {
        match &self.judge {
            Some(judge) => judge.admit(answer).await,
            None if matches!(answer.status.as_u16(), 200 | 206) => Ok(answer),
            None => {
                let retryable = retry::is_retryable(answer.status);
                let error = HttpError::Status {
                    url: url_without_secrets(&answer.url),
                    status: answer.status,
                    headers: Box::new(answer.headers),
                };
                Err(if retryable {
                    SourceError::Interrupted(error.into())
                } else {
                    SourceError::Refused(error.into())
                })
            }
        }
    }
}

impl From<HttpError> for SourceError {
    fn from(error: HttpError) -> SourceError {
        let again = matches!(&error, HttpError::Transport(error) if error.is_retryable());
        let cause = Cause::from(error);
        if again { SourceError::Interrupted(cause) } else { SourceError::Refused(cause) }
    }
}

#[async_trait]
impl Source for HttpSource {
    fn upstream(&self) -> &str {
        &self.name
    }

    async fn fetch(&self, missing: &Missing) -> Result<Arrival, SourceError> {
        let mut headers = self.headers.clone();
        if missing.offset > 0 {
            // Part of it is there: whether it still holds is what If-Range asks.
            headers.remove(IF_NONE_MATCH);
            headers.remove(IF_MODIFIED_SINCE);
            let last = missing.size.map(|size| size.saturating_sub(1).to_string());
            let range = format!("bytes={}-{}", missing.offset, last.unwrap_or_default());
            headers.insert(RANGE, HeaderValue::from_str(&range).expect("digits are plain text"));
            if let Some(validator) = &missing.validator {
                headers.insert(IF_RANGE, validator.header().clone());
            }
        }
        let answer = self.ask(headers).await?;
        if answer.status == StatusCode::RANGE_NOT_SATISFIABLE && missing.offset > 0 {
            let error = HttpError::Part { url: url_without_secrets(&answer.url) };
            return Err(SourceError::Unsatisfiable(error.into()));
        }
        let answer = self.admit(answer).await?;
        let url = url_without_secrets(&answer.url);
        let (offset, size) = match answer.status {
            StatusCode::PARTIAL_CONTENT => match part(&answer.headers) {
                Some((first, whole)) if missing.offset > 0 => (first, whole),
                _ => return Err(HttpError::Part { url }.into()),
            },
            _ => (0, answer.content_length()),
        };
        let headers = answer.headers.clone();
        let framed = self.trusts_close || answer.is_framed();
        let body = stream::unfold(Some(answer), move |answer| {
            let url = url.clone();
            async move {
                let mut answer = answer?;
                match answer.chunk().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(answer))),
                    Ok(None) if framed => None,
                    Ok(None) => {
                        let error = HttpError::Unframed { url };
                        Some((Err(SourceError::Refused(error.into())), None))
                    }
                    Err(error) => {
                        let error = HttpError::Transport(error);
                        Some((Err(SourceError::Interrupted(error.into())), None))
                    }
                }
            }
        });
        Ok(Arrival { offset, size, headers, body: body.boxed() })
    }
}

/// Reads `Content-Range: bytes 5-9/10`: the first place, and the size of the whole where it is
/// said. `None` for what is not one range of bytes.
pub fn part(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (range, whole) = text.strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let whole = match whole.trim() {
        "*" => None,
        digits => Some(digits.parse::<u64>().ok()?),
    };
    (first <= last && whole.is_none_or(|whole| last < whole)).then_some((first, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_things() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("bytes */10", None),
            ("lines 5-9/10", None),
            ("bytes 5-9", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]);
            assert_eq!(part(&headers), expected, "{text}");
        }
    }
}
