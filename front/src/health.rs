//! Whether the process lives and wants requests, as an orchestrator asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;

/// Says whether the server wants requests; one value is shared by all who ask.
///
/// It begins not ready. [`Server::serve`](crate::Server::serve) turns it on once connections are
/// accepted, and off when told to stop, before the last request has ended.
#[derive(Clone, Debug, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Returns one that is not ready.
    pub fn new() -> Health {
        Health::default()
    }

    /// Says whether the server wants requests.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Returns the routes `/livez` (always 200: it answers) and `/readyz` (200, or 503 while
    /// starting and stopping).
    pub fn router(&self) -> Router {
        let health = self.clone();
        let ready = move || async move {
            if health.is_ready() {
                (StatusCode::OK, "ready\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
        };
        Router::new().route("/livez", get(|| async { "alive\n" })).route("/readyz", get(ready))
    }
}
