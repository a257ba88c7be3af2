//! What the owner of a registry has decided about tags, space, and who is told.

use std::sync::Arc;

use boatyard_content::Root;

use crate::immutable::Immutable;
use crate::quota::Quotas;
use crate::uses::Uses;
use crate::webhooks::{NoTally, Webhooks};

/// What a [`Registry`](crate::Registry) keeps to besides its limits. What has a state is shared by
/// all configurations of a server.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The tags that cannot be moved.
    pub immutable: Immutable,
    /// How much repositories may hold.
    pub quotas: Arc<Quotas>,
    /// When what is hosted was pulled last.
    pub uses: Arc<Uses>,
    /// Who is told what happens.
    pub webhooks: Arc<Webhooks>,
}

impl Policies {
    /// Returns no rules for a root.
    pub fn none(root: &Arc<Root>) -> Policies {
        Policies {
            immutable: Immutable::default(),
            quotas: Quotas::new(Arc::clone(root)),
            uses: Arc::new(Uses::new(root.repositories())),
            webhooks: Webhooks::new(Arc::clone(root), String::new(), Arc::new(NoTally)),
        }
    }
}
