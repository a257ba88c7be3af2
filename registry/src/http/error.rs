//! Errors as the specification has them: a code of its list, a message, and perhaps a detail.
//!
//! > "A `4XX` response code from the registry MAY return a body in any format. If the response
//! > body is in JSON format, it MUST have the following format: { "errors": [ { "code": ...,
//! > "message": ..., "detail": ... } ] }" (distribution-spec, "Error Codes")

use std::borrow::Cow;
use std::error::Error;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use boatyard_content::StoreError;
use boatyard_content::repository::RepositoryError;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tracing::{debug, error};

use crate::chain::chain;

/// The codes that a registry may answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// Not in the specification's list, but what the field's clients know.
    PaginationNumberInvalid,
    /// Not in the specification's list, which has none for 5xx.
    Unknown,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Denied => "DENIED",
            Code::Unsupported => "UNSUPPORTED",
            Code::TooManyRequests => "TOOMANYREQUESTS",
            Code::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Code::Unknown => "UNKNOWN",
        }
    }

    /// Returns the status that goes with the code unless an endpoint says otherwise.
    fn status(self) -> StatusCode {
        match self {
            Code::BlobUnknown
            | Code::BlobUploadUnknown
            | Code::ManifestUnknown
            | Code::NameUnknown => StatusCode::NOT_FOUND,
            Code::BlobUploadInvalid
            | Code::DigestInvalid
            | Code::ManifestBlobUnknown
            | Code::ManifestInvalid
            | Code::NameInvalid
            | Code::PaginationNumberInvalid
            | Code::SizeInvalid => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Denied => StatusCode::FORBIDDEN,
            Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An answer that is an error. Its message and detail go to the client, its cause to the log.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Problem>);

#[derive(Debug)]
struct Problem {
    code: Code,
    status: StatusCode,
    message: Cow<'static, str>,
    detail: Value,
    headers: HeaderMap,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError(Box::new(Problem {
            code,
            status: code.status(),
            message: message.into(),
            detail: Value::Null,
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// Answers that what was named is not valid, in the words of what refused it.
    pub(crate) fn refused(code: Code, refusal: &(dyn Error + 'static)) -> ApiError {
        let mut message = refusal.to_string();
        if let Some(source) = refusal.source() {
            message = format!("{message}: {source}");
        }
        ApiError::new(code, message)
    }

    /// Answers that the server failed; what failed is logged.
    pub(crate) fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> ApiError {
        ApiError::new(Code::Unknown, "the registry failed; its log says why").cause(cause)
    }

    /// Says whether something does not fit into a quota.
    pub(crate) fn is_over_quota(&self) -> bool {
        self.0.code == Code::Denied && self.0.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// Says whether there was no space, so that an upload is not worth keeping.
    pub(crate) fn ends_upload(&self) -> bool {
        self.0.status == StatusCode::INSUFFICIENT_STORAGE || self.is_over_quota()
    }

    #[must_use]
    pub(crate) fn status(mut self, status: StatusCode) -> ApiError {
        self.0.status = status;
        self
    }

    #[must_use]
    pub(crate) fn detail(mut self, detail: Value) -> ApiError {
        self.0.detail = detail;
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> ApiError {
        self.0.headers.insert(name, value);
        self
    }

    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> ApiError {
        self.0.cause = Some(cause.into());
        self
    }
}

impl Problem {
    fn log(&self) {
        let cause = self.cause.as_deref().map(|cause| chain(cause));
        if self.status.is_server_error() {
            error!(status = self.status.as_u16(), cause, "{}", self.message);
        } else {
            debug!(status = self.status.as_u16(), cause, "{}: {}", self.code.text(), self.message);
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = *self.0;
        problem.log();
        let body = json!({
            "errors": [{
                "code": problem.code.text(),
                "message": problem.message,
                "detail": problem.detail,
            }]
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = problem.status;
        *response.headers_mut() = problem.headers;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::DigestMismatch { .. } => ApiError::refused(Code::DigestInvalid, &error),
            StoreError::SizeMismatch { .. } => ApiError::refused(Code::SizeInvalid, &error),
            StoreError::IngestBusy { .. } => {
                ApiError::new(Code::TooManyRequests, "another request writes to this upload")
                    .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            error if error.is_no_space() => {
                ApiError::new(Code::Unknown, "the registry's disk is full")
                    .status(StatusCode::INSUFFICIENT_STORAGE)
                    .cause(error)
            }
            error => ApiError::internal(error),
        }
    }
}

impl From<RepositoryError> for ApiError {
    fn from(error: RepositoryError) -> ApiError {
        match error {
            RepositoryError::Store(error) => error.into(),
            // > "405 Method Not Allowed" is what a registry answers that does not delete a blob
            // (distribution-spec, "Deleting Blobs").
            RepositoryError::BlobReferenced { .. } => ApiError::refused(Code::Unsupported, &error),
            RepositoryError::TagTaken { .. } => ApiError::refused(Code::Denied, &error),
            RepositoryError::TagKept { .. } => {
                ApiError::refused(Code::Denied, &error).status(StatusCode::CONFLICT)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_body_has_the_specifications_form() {
        let error = ApiError::new(Code::BlobUnknown, "no such blob").detail(json!({"a": 1}));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let expected =
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob","detail":{"a":1}}]}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn what_failed_inside_stays_inside() {
        let source = std::io::Error::other("/var/lib/secret: input/output error");
        let error = ApiError::from(StoreError::Io { doing: "read a blob", source });
        assert_eq!(error.0.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!error.0.message.contains("secret"));
        assert!(chain(error.0.cause.as_deref().unwrap()).contains("secret"));
    }
}
