//! What a path below `/v2/` names.
//!
//! Repository names contain slashes, so a path is read from its end: the last segments say which
//! endpoint it is, and all before them are the name. Each segment is percent-decoded once, after
//! the split: an escaped slash, dot or NUL becomes part of a name, where it is refused.

use std::str::FromStr;

use boatyard_oci::RepositoryName;

use super::error::{ApiError, Code};

/// What a path names. The last part is text still: each endpoint refuses it with a code of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(RepositoryName),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepositoryName, String),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepositoryName, String),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<session>`
    Upload(RepositoryName, String),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(RepositoryName, String),
}

impl Route {
    /// Returns the same of another repository.
    pub(super) fn moved_to(self, name: &RepositoryName) -> Route {
        let name = name.clone();
        match self {
            Route::Tags(_) => Route::Tags(name),
            Route::Referrers(_, subject) => Route::Referrers(name, subject),
            Route::Manifest(_, reference) => Route::Manifest(name, reference),
            Route::Blob(_, digest) => Route::Blob(name, digest),
            Route::Uploads(_) => Route::Uploads(name),
            Route::Upload(_, session) => Route::Upload(name, session),
            Route::Base | Route::Catalog => self,
        }
    }

    /// Reads a request's path.
    pub(crate) fn parse(path: &str) -> Result<Route, ApiError> {
        let rest = path.strip_prefix("/v2").unwrap_or(path);
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Route::Base);
        }
        let segments: Vec<String> = rest.split('/').map(decode).collect::<Result<_, _>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["_catalog"] => Ok(Route::Catalog),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Route::Uploads(parse_name(name)?))
            }
            [name @ .., "blobs", "uploads", session] => {
                Ok(Route::Upload(parse_name(name)?, (*session).to_owned()))
            }
            [name @ .., "tags", "list"] => Ok(Route::Tags(parse_name(name)?)),
            [name @ .., "manifests", reference] => {
                Ok(Route::Manifest(parse_name(name)?, (*reference).to_owned()))
            }
            [name @ .., "blobs", digest] => {
                Ok(Route::Blob(parse_name(name)?, (*digest).to_owned()))
            }
            [name @ .., "referrers", digest] => {
                Ok(Route::Referrers(parse_name(name)?, (*digest).to_owned()))
            }
            _ => Err(ApiError::new(Code::NameUnknown, "the registry has no such endpoint")),
        }
    }

    /// Returns what the path names, in a word: metrics have it as a label.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Route::Base => "base",
            Route::Catalog => "catalog",
            Route::Tags(_) => "tags",
            Route::Manifest(..) => "manifest",
            Route::Blob(..) => "blob",
            Route::Uploads(_) | Route::Upload(..) => "upload",
            Route::Referrers(..) => "referrers",
        }
    }

    /// Returns the repository that the path is in.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Route::Base | Route::Catalog => None,
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => Some(name),
        }
    }
}

fn parse_name(segments: &[&str]) -> Result<RepositoryName, ApiError> {
    // A slash that was escaped is not one that divides: two spellings must not name one thing.
    if segments.iter().any(|segment| segment.contains('/')) {
        return Err(ApiError::new(Code::NameInvalid, "a name has no escaped slashes"));
    }
    RepositoryName::from_str(&segments.join("/"))
        .map_err(|refusal| ApiError::refused(Code::NameInvalid, &refusal))
}

/// Decodes `%xx` in a segment.
fn decode(segment: &str) -> Result<String, ApiError> {
    if !segment.contains('%') {
        return Ok(segment.to_owned());
    }
    let refuse = || ApiError::new(Code::NameInvalid, "the path is not valid percent-encoded UTF-8");
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(refuse)?, digit().ok_or_else(refuse)?);
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let table = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/a/b/manifests/latest".to_owned(), Route::Manifest(name("a/b"), "latest".into())),
            (format!("/v2/a/blobs/{digest}"), Route::Blob(name("a"), digest.clone())),
            (
                format!("/v2/a/blobs/{}", digest.replace(':', "%3A")),
                Route::Blob(name("a"), digest.clone()),
            ),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/x-1".to_owned(), Route::Upload(name("a"), "x-1".into())),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(name("a"), digest.clone())),
            // Repositories that are called like endpoints.
            ("/v2/tags/list/tags/list".to_owned(), Route::Tags(name("tags/list"))),
            (
                "/v2/a/blobs/uploads/manifests/1".to_owned(),
                Route::Manifest(name("a/blobs/uploads"), "1".into()),
            ),
            (
                "/v2/manifests/manifests/manifests".to_owned(),
                Route::Manifest(name("manifests"), "manifests".into()),
            ),
        ];
        for (path, route) in table {
            assert_eq!(Route::parse(&path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn hostile_paths_name_nothing() {
        for path in [
            "/v2//",
            "/v2/a",
            "/v2/../manifests/x",
            "/v2/a/../b/manifests/x",
            "/v2/%2e%2e/manifests/x",
            "/v2/a%2f..%2fb/manifests/x",
            "/v2/a%2Fb/manifests/x",
            "/v2/a//b/manifests/x",
            "/v2//manifests/x",
            "/v2/manifests/x",
            "/v2/a%00/tags/list",
            "/v2/a%/tags/list",
            "/v2/a%zz/tags/list",
            "/v2/a%ff/tags/list",
            "/v2/a\\b/tags/list",
            "/v2/_uploads/tags/list",
            "/v2/a/_manifests/tags/list",
            "/v2/A/tags/list",
            "/v2/\u{e9}/tags/list",
            "/v2/_catalog/x",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
