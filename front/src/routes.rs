//! What a server answers, which can change while it serves.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;

/// The routes of a [`Server`](crate::Server). Each request sees the ones of its beginning to its
/// end; the next one on the same connection sees what has replaced them.
#[derive(Clone)]
pub struct Routes(Arc<RwLock<Router>>);

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl From<Router> for Routes {
    fn from(router: Router) -> Routes {
        Routes(Arc::new(RwLock::new(router)))
    }
}

impl Routes {
    /// Has requests from now on answered by another router.
    pub fn replace(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// Returns what answers a request that begins now.
    pub(crate) fn current(&self) -> Router {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
