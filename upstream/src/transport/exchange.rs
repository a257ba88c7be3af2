//! One exchange: what goes out, what comes in, and the watch over both.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use super::{Request, TransportError};
use crate::redact::url_without_secrets;

/// A body that can be sent once.
pub type PayloadStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// What a request carries.
pub enum Payload {
    /// Nothing, not even a Content-Length (GET, HEAD, DELETE).
    Empty,
    /// Bytes in memory; they may be none (`Content-Length: 0`). Can be sent again.
    Bytes(Bytes),
    /// A stream of exactly this many bytes. Cannot be sent again.
    Stream {
        /// The number of bytes.
        length: u64,
        /// The bytes.
        stream: PayloadStream,
    },
}

/// A request.
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers; `Authorization` leaves the request with the origin of `url`.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Payload,
    /// Whether the host's certificate is not checked.
    pub unchecked: bool,
}

/// An answer, its body not yet read.
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The URL that answered, after redirects.
    pub url: Url,
    method: Method,
    body: reqwest::Response,
    idle: Duration,
}

impl Payload {
    /// Returns the same payload once more, where that can be.
    pub(crate) fn again(&self) -> Option<Payload> {
        match self {
            Payload::Empty => Some(Payload::Empty),
            Payload::Bytes(bytes) => Some(Payload::Bytes(bytes.clone())),
            Payload::Stream { .. } => None,
        }
    }

    pub(super) fn into_body(
        self,
        method: &Method,
        url: &Url,
    ) -> (Option<(reqwest::Body, HeaderValue)>, Progress) {
        let progress = Progress::new(method, url);
        let body = match self {
            Payload::Empty => None,
            Payload::Bytes(bytes) => {
                let length = HeaderValue::from(bytes.len());
                Some((reqwest::Body::from(bytes), length))
            }
            Payload::Stream { length, stream } => {
                let steps = Arc::clone(&progress.steps);
                let counted = stream.inspect(move |_| {
                    steps.fetch_add(1, Ordering::Relaxed);
                });
                Some((reqwest::Body::wrap_stream(counted), HeaderValue::from(length)))
            }
        };
        (body, progress)
    }
}

/// Watches that a request's body keeps moving until the answer's head is there.
pub(super) struct Progress {
    method: Method,
    url: String,
    steps: Arc<AtomicU64>,
}

impl Progress {
    fn new(method: &Method, url: &Url) -> Progress {
        let url = url_without_secrets(url);
        Progress { method: method.clone(), url, steps: Arc::default() }
    }

    pub(super) async fn watch(
        self,
        idle: Duration,
        head: impl Future<Output = reqwest::Result<reqwest::Response>>,
    ) -> Result<reqwest::Response, TransportError> {
        let mut head = std::pin::pin!(head);
        let mut seen = self.steps.load(Ordering::Relaxed);
        loop {
            match tokio::time::timeout(idle, &mut head).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(source)) => return Err(failed(self.method, self.url, source)),
                Err(_) => {}
            }
            let now = self.steps.load(Ordering::Relaxed);
            if now == seen {
                return Err(TransportError::Idle {
                    method: self.method,
                    url: self.url,
                    after: idle,
                });
            }
            seen = now;
        }
    }
}

pub(super) fn incoming(
    request: &Request,
    head: Result<reqwest::Response, TransportError>,
    idle: Duration,
) -> Result<Incoming, TransportError> {
    let mut body = head?;
    Ok(Incoming {
        status: body.status(),
        headers: std::mem::take(body.headers_mut()),
        url: request.url.clone(),
        method: request.method.clone(),
        body,
        idle,
    })
}

impl Incoming {
    /// Returns the next piece of the body, `None` at its end. A connection that ends before the
    /// promised Content-Length is an error.
    ///
    /// # Errors
    /// Where the connection breaks, or nothing comes for too long.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        match tokio::time::timeout(self.idle, self.body.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(source)) => {
                Err(failed(self.method.clone(), url_without_secrets(&self.url), source))
            }
            Err(_) => Err(TransportError::Idle {
                method: self.method.clone(),
                url: url_without_secrets(&self.url),
                after: self.idle,
            }),
        }
    }

    /// Returns the whole body, which may have `most` bytes.
    ///
    /// # Errors
    /// As [`Incoming::chunk`], and where it is longer: then no more than that was read.
    pub async fn bytes(mut self, most: usize) -> Result<Bytes, TransportError> {
        let too_long = |url: &Url| TransportError::TooLong { url: url_without_secrets(url), most };
        if self.content_length().is_some_and(|length| length > most as u64)
            && self.method != Method::HEAD
        {
            return Err(too_long(&self.url));
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > most {
                return Err(too_long(&self.url));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Says whether the answer's framing marks the end of its body: its length, chunks, or HTTP/2.
    /// Otherwise the body ends with the connection, and may have been cut.
    pub fn is_framed(&self) -> bool {
        let chunked = self.headers.get_all("transfer-encoding").iter().any(|value| {
            value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("chunked"))
        });
        let bodiless =
            self.method == Method::HEAD || matches!(self.status.as_u16(), 100..=199 | 204 | 304);
        self.body.version() >= http::Version::HTTP_2
            || chunked
            || bodiless
            || self.headers.contains_key("content-length")
    }

    /// Returns the body's promised length.
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Returns a header's text, where it has one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn failed(method: Method, url: String, source: reqwest::Error) -> TransportError {
    // reqwest's message repeats the URL with its query, which may hold a signature.
    let source = source.without_url();
    match take_io(&source) {
        Some(io) if source.is_body() => TransportError::Payload { method, url, source: io },
        _ => TransportError::Exchange { method, url, source },
    }
}

/// Returns the error of reading what was to be sent, where that is what failed.
fn take_io(error: &reqwest::Error) -> Option<std::io::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(unreadable) = error.downcast_ref::<Unreadable>() {
            return Some(std::io::Error::new(unreadable.0.kind(), unreadable.0.to_string()));
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref().and_then(|inner| inner.downcast_ref::<Unreadable>())
        {
            return Some(std::io::Error::new(inner.0.kind(), inner.0.to_string()));
        }
        cause = error.source();
    }
    None
}

/// Marks, within reqwest's errors, that our side could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the local blob cannot be read")]
pub(crate) struct Unreadable(#[source] pub(crate) std::io::Error);
