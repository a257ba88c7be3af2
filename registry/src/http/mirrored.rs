//! What an upstream has, as this registry answers it.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::answer::set;
use super::error::{ApiError, Code};
use super::route::Route;
use super::{Call, blobs, manifests, referrers, tags};
use crate::chain::chain;
use crate::mirror::{Meant, MirrorError};

/// > "A registry ... SHOULD set the header `OCI-Namespace`" to the upstream that it answers for
/// > (distribution-spec, "Registry Proxying").
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// Answers a request that means an upstream.
pub(super) async fn serve(call: Call, meant: Meant, route: Route) -> Result<Response, ApiError> {
    let read = call.method == Method::GET || call.method == Method::HEAD;
    if !read {
        return Err(refuse_change(&meant));
    }
    let upstream = meant.mirror.host().to_string();
    let mut response = match route {
        Route::Manifest(_, reference) => manifests::get_mirrored(call, &meant, &reference).await?,
        Route::Blob(_, digest) => blobs::get_mirrored(call, meant, &digest).await?,
        Route::Tags(name) => tags::list_mirrored(call, meant, &name).await?,
        Route::Referrers(_, subject) => referrers::list_mirrored(call, meant, &subject).await?,
        Route::Base | Route::Catalog | Route::Uploads(_) | Route::Upload(..) => {
            return Err(refuse_change(&meant));
        }
    };
    if let Ok(upstream) = HeaderValue::try_from(upstream) {
        set(&mut response, NAMESPACE, upstream);
    }
    Ok(response)
}

/// A mirror is what its upstream is: nothing is pushed to it or deleted from it by this way.
fn refuse_change(meant: &Meant) -> ApiError {
    let host = meant.mirror.host();
    ApiError::new(
        Code::Unsupported,
        format!("this is a mirror of {host}: push to that, or to a repository of this registry"),
    )
}

/// Answers what an upstream could not give; `absent` is the code for what it does not have.
pub(super) fn refusal(error: Arc<MirrorError>, absent: Code) -> ApiError {
    let message = || match &*error {
        // What our files say is for the log alone.
        MirrorError::Kept(_) => "the mirror failed; its log says why".to_owned(),
        error => chain(error),
    };
    let unavailable = |status| ApiError::new(Code::Unknown, message()).status(status);
    match &*error {
        MirrorError::Absent { .. } => ApiError::new(absent, message()),
        // Not told apart from what is not there, except in the log.
        MirrorError::Private { upstream, what } => {
            tracing::info!("{what} of {upstream} is private, and was refused");
            ApiError::new(absent, format!("{upstream} does not have {what}"))
        }
        MirrorError::Offline { .. } => unavailable(StatusCode::GATEWAY_TIMEOUT),
        MirrorError::Slow { .. } => unavailable(StatusCode::GATEWAY_TIMEOUT),
        MirrorError::Upstream { source, .. } => match source.status() {
            Some(StatusCode::TOO_MANY_REQUESTS) => ApiError::new(Code::TooManyRequests, message())
                .header(header::RETRY_AFTER, HeaderValue::from_static("10")),
            // Ours were refused, or there are none: the client can do nothing about that.
            Some(status) if status.is_client_error() => ApiError::new(Code::Denied, message()),
            _ => unavailable(StatusCode::BAD_GATEWAY),
        },
        MirrorError::Transfer { source, .. } if source.is_no_space() => {
            ApiError::new(Code::Unknown, "the registry's disk is full")
                .status(StatusCode::INSUFFICIENT_STORAGE)
        }
        MirrorError::Transfer { .. } | MirrorError::Sizeless { .. } => {
            unavailable(StatusCode::BAD_GATEWAY)
        }
        MirrorError::Kept(_) | MirrorError::Lost { .. } => ApiError::new(Code::Unknown, message()),
    }
    .cause(error)
}

impl From<Arc<MirrorError>> for ApiError {
    fn from(error: Arc<MirrorError>) -> ApiError {
        refusal(error, Code::ManifestUnknown)
    }
}
