//! What `boatyard serve` answers: made of the configuration, and made anew when it is read again.

pub mod checking;
pub mod reload;
pub mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use boatyard_access::{Access, Authority};
use boatyard_content::Root;
use boatyard_front::Health;
use boatyard_registry::{Limits, Mirrors, Registry};
use boatyard_upstream::Transfers;
use tokio::task::JoinHandle;

use crate::access;
use crate::metrics::{Audience, Metrics};
use crate::mirrors;
use crate::report::{Context as _, Result};
use crate::world::World;

/// What stays the same as long as the server runs, whatever the configuration says.
#[derive(Debug)]
pub struct Services {
    root: Arc<Root>,
    /// All transfers of the server: one for an object, even across configurations.
    transfers: Transfers,
    /// Where the server listens.
    addresses: Vec<SocketAddr>,
    authority: Arc<Authority>,
    health: Health,
    metrics: Arc<Metrics>,
}

impl Services {
    /// Returns the services of a root.
    ///
    /// # Errors
    /// Where it cannot be said who may do what.
    pub fn new(world: &World, root: Arc<Root>, addresses: Vec<SocketAddr>) -> Result<Services> {
        let metrics = Metrics::new(root.path().to_path_buf());
        let transfers = mirrors::transfers(&root);
        let authority = access::open(world, &root, &addresses)?;
        Ok(Services { root, transfers, addresses, authority, health: Health::new(), metrics })
    }

    /// Returns where the server listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns what says who may do what.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Has the rules of a configuration count from now on. Blocking.
    ///
    /// # Errors
    /// Where they cannot be used: then the old ones stay.
    pub fn configure(&self, world: &World) -> Result<()> {
        let policy = access::policy(&world.config, &self.addresses)?;
        self.authority.configure(policy).context("cannot say who may do what")
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
    pub fn answers(&self, world: &World) -> Result<Answers> {
        let mirrors = mirrors::open(world, &self.root, &self.transfers)?;
        for mirror in mirrors.all() {
            tracing::info!("{} is mirrored as `{}`", mirror.host(), mirror.name());
        }
        let limits = world.config.limits.of_registry();
        let registry = registry(&self.root, mirrors, &self.authority, limits);
        let router = self
            .health
            .router()
            .merge(boatyard_registry::guarded_router(
                Arc::clone(&registry),
                Arc::clone(&self.authority),
            ))
            .merge(self.metrics.router(Audience::ThisMachine));
        Ok(Answers { router, registry })
    }
}

/// What a server answers with one configuration.
#[derive(Debug)]
pub struct Answers {
    /// All of it.
    pub router: Router,
    /// The registry, which has work of its own to do: see [`Answers::tend`].
    registry: Arc<Registry>,
}

impl Answers {
    /// Does what the registry does by itself, for as long as what is returned lives. Needs a
    /// runtime around it.
    pub fn tend(&self) -> Tending {
        Tending(tokio::spawn(Arc::clone(&self.registry).end_stale_uploads()))
    }
}

/// Work that ends when this is dropped.
#[derive(Debug)]
pub struct Tending(JoinHandle<()>);

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the registry of a root.
pub fn registry(
    root: &Arc<Root>,
    mirrors: Mirrors,
    authority: &Arc<Authority>,
    limits: Limits,
) -> Arc<Registry> {
    Registry::new(Arc::clone(root), mirrors, Arc::clone(authority) as Arc<dyn Access>, limits)
}
