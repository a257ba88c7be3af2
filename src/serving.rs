//! What `boatyard serve` answers: made of the configuration, and made anew when it is read again.

pub mod reload;
pub mod upkeep;

use std::sync::Arc;

use axum::Router;
use boatyard_content::Root;
use boatyard_front::Health;
use boatyard_registry::{Mirrors, OpenAccess, Registry};
use boatyard_upstream::Transfers;

use crate::metrics::{Audience, Metrics};
use crate::mirrors;
use crate::report::Result;
use crate::world::World;

/// What stays the same as long as the server runs, whatever the configuration says.
#[derive(Debug)]
pub struct Services {
    root: Arc<Root>,
    /// All transfers of the server: one for an object, even across configurations.
    transfers: Transfers,
    health: Health,
    metrics: Arc<Metrics>,
}

impl Services {
    /// Returns the services of a root.
    pub fn new(root: Arc<Root>) -> Services {
        let metrics = Metrics::new(root.path().to_path_buf());
        let transfers = mirrors::transfers(&root);
        Services { root, transfers, health: Health::new(), metrics }
    }

    /// Returns where everything is kept.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Returns what the server counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns what says whether the server wants requests.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Returns all that the server answers with a configuration. Blocking: it reads files that the
    /// configuration names.
    ///
    /// # Errors
    /// Where the configuration asks for what cannot be.
    pub fn routes(&self, world: &World) -> Result<Router> {
        let mirrors = mirrors::open(world, &self.root, &self.transfers)?;
        for mirror in mirrors.all() {
            tracing::info!("{} is mirrored as `{}`", mirror.host(), mirror.name());
        }
        let router = self.health.router().merge(registry(Arc::clone(&self.root), mirrors));
        Ok(router.merge(self.metrics.router(Audience::ThisMachine)))
    }
}

/// Returns what the registry of a root answers.
pub fn registry(root: Arc<Root>, mirrors: Mirrors) -> Router {
    let limits = boatyard_registry::Limits::default();
    boatyard_registry::router(Registry::new(root, mirrors, Arc::new(OpenAccess), limits))
}
