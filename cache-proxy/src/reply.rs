//! An answer that an ecosystem makes itself: a private index, the outcome of an upload.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// An answer with a body in memory. That of a GET with status 200 may be asked for in ranges and
/// under conditions, for which it has an `ETag` or a `Last-Modified`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers, but for the body's length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// Returns an answer with a body of some type.
    pub fn new(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        Reply { status, headers, body: body.into() }
    }

    /// Returns an answer in plain text.
    pub fn text(status: StatusCode, message: &str) -> Reply {
        Reply::new(status, "text/plain; charset=utf-8", format!("{message}\n"))
    }

    /// Returns an answer without a body.
    pub fn empty(status: StatusCode) -> Reply {
        Reply { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Returns an answer in JSON.
    pub fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
        Reply::new(status, "application/json", value.to_string())
    }

    /// Adds a header; a value that cannot be one is left out.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &str) -> Reply {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Asks for a login, where the status says that there must be one: clients that keep a password
    /// for this server then send it.
    #[must_use]
    pub fn asking(self) -> Reply {
        if self.status != StatusCode::UNAUTHORIZED {
            return self;
        }
        self.with(WWW_AUTHENTICATE, "Basic realm=\"boatyard\", charset=\"UTF-8\"")
    }

    /// Returns the answer to who may not see private packages.
    pub fn unauthorized() -> Reply {
        let message = "private packages are shown to who has logged in and may `pull` there";
        Reply::text(StatusCode::UNAUTHORIZED, message).asking()
    }
}
