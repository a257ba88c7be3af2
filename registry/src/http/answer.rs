//! What answers have in common: their headers.

use axum::body::Body;
use axum::response::Response;
use boatyard_oci::{Digest, RepositoryName};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::error::{ApiError, Code};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Returns an answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Returns a JSON text as an answer.
pub(crate) fn json(text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    set(&mut response, header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the answer to a push: 201, where to pull it, and its digest.
pub(crate) fn created(location: &str, digest: &Digest) -> Result<Response, ApiError> {
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, header::LOCATION, text(location)?);
    set(&mut response, CONTENT_DIGEST, text(&digest.to_string())?);
    Ok(response)
}

/// Sets the headers that name a blob's or manifest's bytes: its digest, and the ETag made of it.
pub(crate) fn set_digest(response: &mut Response, digest: &Digest) -> Result<(), ApiError> {
    let plain = digest.to_string();
    set(response, header::ETAG, text(&format!("\"{plain}\""))?);
    set(response, CONTENT_DIGEST, text(&plain)?);
    Ok(())
}

pub(crate) fn set(response: &mut Response, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}

/// Returns a header's value; what is not one is our bug, and no reason to panic.
pub(crate) fn text(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(text).map_err(ApiError::internal)
}

/// Returns where a blob is pulled.
///
/// Locations have no host: behind a proxy we cannot know under which one we are reached.
pub(crate) fn blob_location(name: &RepositoryName, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// Reads a digest of a path or a parameter.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|refusal| ApiError::refused(Code::DigestInvalid, &refusal))
}

/// Says whether `If-None-Match` names what has this digest.
///
/// > "A recipient MUST use the weak comparison function when comparing entity tags for
/// > If-None-Match" (RFC 9110, section 13.1.2)
pub(crate) fn matches(if_none_match: &str, digest: &Digest) -> bool {
    if_none_match.split(',').map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*"
            || tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).is_some_and(|tag| {
                tag.split_once(':').is_some_and(|(algorithm, hex)| {
                    algorithm == digest.algorithm().name() && hex == digest.hex()
                })
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_match_weakly_and_in_lists() {
        let digest = Digest::sha256(b"x");
        for tags in [
            format!("\"{digest}\""),
            format!("W/\"{digest}\""),
            format!("\"other\", \"{digest}\""),
            "*".to_owned(),
        ] {
            assert!(matches(&tags, &digest), "{tags}");
        }
        for tags in ["", "\"\"", "\"other\"", &digest.to_string(), "\"sha256:\""] {
            assert!(!matches(tags, &digest), "{tags}");
        }
    }
}
