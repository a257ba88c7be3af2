//! The gate in front of every endpoint: who it is, before anything is looked at; and afterwards a
//! line of the audit log for what they did.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use boatyard_access::{Admission, Authority, Caller, Connection, Presented, Refusal};
use boatyard_front::{ClientCertificate, Peer, RequestId};
use http::{HeaderValue, header};
use tokio::sync::Semaphore;

use super::error::{ApiError, Code};

/// How many passwords are computed at once: each takes a core, and up to tens of megabytes.
const PASSWORDS_AT_ONCE: usize = 2;

/// What the gate asks.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) authority: Arc<Authority>,
    passwords: Semaphore,
}

impl Gate {
    pub(crate) fn new(authority: Arc<Authority>) -> Gate {
        Gate { authority, passwords: Semaphore::new(PASSWORDS_AT_ONCE) }
    }

    /// Does what computes a password, where it may block, and few at once.
    pub(crate) async fn verify(
        &self,
        work: impl FnOnce(&Authority) -> Result<Caller, Refusal> + Send + 'static,
    ) -> Result<Caller, ApiError> {
        let _permit = self.passwords.acquire().await.map_err(ApiError::internal)?;
        let authority = Arc::clone(&self.authority);
        let worked = tokio::task::spawn_blocking(move || work(&authority)).await;
        worked.map_err(ApiError::internal)?.map_err(too_many)
    }

    /// Says who makes a request.
    async fn admit(&self, presented: Presented) -> Result<Caller, ApiError> {
        match self.authority.admit_at_once(&presented) {
            Admission::Done(caller) => caller.map_err(too_many),
            Admission::MustVerify => {
                self.verify(move |authority| authority.admit(&presented)).await
            }
        }
    }
}

/// Returns what of a request says who makes it.
fn presented(request: &Request) -> Presented {
    let extensions = request.extensions();
    let peer = extensions.get::<Peer>();
    let connection = Connection {
        peer: peer.map(|peer| peer.address.ip()),
        tls: peer.is_some_and(|peer| peer.tls),
        certificate: extensions.get::<ClientCertificate>().map(|shown| Arc::clone(&shown.0)),
    };
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    Presented::of(request.headers(), authority, connection).with_request_id(request_id(request))
}

/// Puts the [`Caller`] into a request, or refuses it.
pub(crate) async fn enter(
    State(gate): State<Arc<Gate>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let presented = presented(&request);
    match gate.admit(presented).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            // Nothing behind the gate needs it.
            request.headers_mut().remove(header::AUTHORIZATION);
            next.run(request).await
        }
        Err(refusal) => {
            let mut response = refusal.into_response();
            super::say_version(&mut response);
            response
        }
    }
}

fn too_many(refusal: Refusal) -> ApiError {
    let error = ApiError::refused(Code::TooManyRequests, &refusal);
    match refusal {
        Refusal::TooMany { seconds } => {
            error.header(header::RETRY_AFTER, HeaderValue::from(seconds))
        }
    }
}

/// Returns what the request is called in the logs.
fn request_id(request: &Request) -> Arc<str> {
    request.extensions().get::<RequestId>().map_or_else(|| "".into(), |id| id.as_str().into())
}
