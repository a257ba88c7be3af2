//! What `boatyard serve` answers: made of the configuration, and made anew when it is read again.

pub mod reload;
pub mod retaining;
pub mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use boatyard_access::{Access, Authority};
use boatyard_content::Root;
use boatyard_front::Health;
use boatyard_registry::{
    Immutable, Limits, Mirrors, Policies, QuotaRule, Registry, RetentionRule, Webhook, Webhooks,
};
use boatyard_upstream::Transfers;
use tokio::task::JoinHandle;

use crate::access;
use crate::metrics::{Audience, Metrics};
use crate::mirrors;
use crate::policies;
use crate::report::{Context as _, Result};
use crate::webhooks;
use crate::world::World;
use retaining::Retaining;

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
    policies: Policies,
    retaining: Arc<Retaining>,
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
        let address = addresses.first().map(ToString::to_string).unwrap_or_default();
        let webhooks = Webhooks::new(Arc::clone(&root), address, Arc::clone(&metrics) as _);
        let policies = Policies { webhooks, ..Policies::none(&root) };
        let uses = Arc::clone(&policies.uses);
        let retaining = Retaining::new(Arc::clone(&root), Arc::clone(&authority), uses);
        let health = Health::new();
        Ok(Services { root, transfers, addresses, authority, health, metrics, policies, retaining })
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

    /// Returns what the registry keeps to, and shares with what looks after it.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Returns what keeps to the rules of retention.
    pub fn retaining(&self) -> &Arc<Retaining> {
        &self.retaining
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
        let decided = Decided {
            retention: policies::retention(&world.config)?,
            immutable: policies::immutable(&world.config),
            quotas: policies::quotas(&world.config)?,
            webhooks: webhooks::open(world)?,
        };
        let immutable = decided.immutable.clone();
        let policies = Policies { immutable, ..self.policies.clone() };
        let registry = registry(&self.root, mirrors, &self.authority, limits, policies);
        let router = self
            .health
            .router()
            .merge(boatyard_registry::guarded_router(
                Arc::clone(&registry),
                Arc::clone(&self.authority),
            ))
            .merge(self.metrics.router(Audience::ThisMachine));
        let webhooks = Arc::clone(&self.policies.webhooks);
        Ok(Answers { router, registry, webhooks, decided })
    }

    /// Has what a configuration decides about tags, space and webhooks count from now on. Blocking:
    /// it lists what quotas limit.
    ///
    /// # Errors
    /// Where files cannot be read or written.
    pub fn decide(&self, answers: &Answers) -> Result<()> {
        let Decided { retention, immutable, quotas, webhooks } = answers.decided.clone();
        self.policies.quotas.configure(quotas).context("cannot count what quotas limit")?;
        let told = self.policies.webhooks.configure(webhooks);
        told.context("cannot write down what webhooks are owed")?;
        self.retaining.configure(retention, immutable);
        Ok(())
    }
}

/// What a server answers with one configuration.
#[derive(Debug)]
pub struct Answers {
    /// All of it.
    pub router: Router,
    /// The registry, which has work of its own to do: see [`Answers::tend`].
    registry: Arc<Registry>,
    webhooks: Arc<Webhooks>,
    decided: Decided,
}

/// What a configuration decides, and servers keep to beyond their answers.
#[derive(Clone, Debug)]
struct Decided {
    retention: Vec<RetentionRule>,
    immutable: Immutable,
    quotas: Vec<QuotaRule>,
    webhooks: Vec<Webhook>,
}

impl Answers {
    /// Does what the registry does by itself, for as long as what is returned lives. Needs a
    /// runtime around it.
    pub fn tend(&self) -> Tending {
        Tending([
            tokio::spawn(Arc::clone(&self.registry).end_stale_uploads()),
            tokio::spawn(Arc::clone(&self.webhooks).run()),
        ])
    }
}

/// Work that ends when this is dropped.
#[derive(Debug)]
pub struct Tending([JoinHandle<()>; 2]);

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Returns the registry of a root.
pub fn registry(
    root: &Arc<Root>,
    mirrors: Mirrors,
    authority: &Arc<Authority>,
    limits: Limits,
    policies: Policies,
) -> Arc<Registry> {
    let access = Arc::clone(authority) as Arc<dyn Access>;
    Registry::keeping(Arc::clone(root), mirrors, access, limits, policies)
}
