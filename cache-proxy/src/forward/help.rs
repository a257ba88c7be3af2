//! The page at `/`.
//!
//! auto-apt-proxy looks for a status line that matches `406.*usage.information` at port 3142, which
//! is how it knows apt-cacher-ng: fleets that use it find us without any change.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::answer::{Answer, Body};
use crate::statistics::Outcome;

/// Returns the page.
pub(super) fn page(request: &HeaderMap) -> Answer {
    let host = request.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // It goes into a text that people paste: nothing but a host and a port.
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let host = if host.chars().all(plain) && !host.is_empty() { host } else { "127.0.0.1:3142" };
    let text = format!(
        "Boatyard's cache proxy listens here.\n\n\
         As a proxy for everything that is fetched by HTTP:\n\n    \
         export http_proxy=http://{host}\n\n\
         For apt alone, in /etc/apt/apt.conf.d/30proxy:\n\n    \
         Acquire::http::Proxy \"http://{host}\";\n\n\
         https sources then go through a tunnel and are not kept. To have them kept, write them as\n\n    \
         deb http://HTTPS///deb.example/debian stable main\n\n\
         An upstream that is configured under [proxy] is at http://{host}/NAME/ as well.\n"
    );
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Answer {
        status: StatusCode::NOT_ACCEPTABLE,
        headers,
        body: Body::Bytes(Bytes::from(text)),
        outcome: Outcome::Own,
        ecosystem: None,
        reason: Some("Usage Information"),
    }
}
