//! Headers on their way through: which belong to one connection only, and which to a request for
//! all clients.

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PRAGMA, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName};

/// Names the source that a Gemfile has, in a request to a mirror of it: to us.
pub const X_GEMFILE_SOURCE: HeaderName = HeaderName::from_static("x-gemfile-source");

/// Takes off what concerns one connection only.
///
/// > "Intermediaries MUST parse a received Connection header field before a message is forwarded
/// > and, for each connection-option in this field, remove any header or trailer field(s) from the
/// > message with the same name as the connection-option" (RFC 9110, section 7.6.1)
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
}

/// Returns a request's headers as the upstream gets them for a request that passes through.
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for name in [HOST, CONTENT_LENGTH, EXPECT, ACCEPT_ENCODING, X_GEMFILE_SOURCE] {
        passed.remove(name);
    }
    passed
}

/// Returns a request's headers as the upstream gets them for what all clients may share: all of the
/// resource, however much the client wants of it, whatever it has already.
pub fn shared(headers: &HeaderMap) -> HeaderMap {
    let mut shared = passed_on(headers);
    for name in [
        RANGE,
        IF_RANGE,
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
        CACHE_CONTROL,
        PRAGMA,
    ] {
        shared.remove(name);
    }
    shared
}

/// Writes the headers that tell requests for one resource apart, as far as upstreams do that.
pub fn distinguishing(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| **name != USER_AGENT && name.as_str() != "via")
        .map(|(name, value)| format!("{name}: {}\n", value.as_bytes().escape_ascii()))
        .collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_connection_keeps_to_itself() {
        let mut headers: HeaderMap = [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
            ("range", "bytes=0-1"),
            ("user-agent", "curl"),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
        strip_hop_by_hop(&mut headers);
        let names = |headers: &HeaderMap| {
            let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(names(&headers), "accept range user-agent");
        assert_eq!(names(&shared(&headers)), "accept user-agent");
        assert_eq!(distinguishing(&shared(&headers)), "accept: */*\n");
    }
}
