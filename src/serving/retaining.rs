//! Retention, as a server does it by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use boatyard_access::Authority;
use boatyard_content::Root;
use boatyard_registry::retention::{self, Removed, Retirer};
use boatyard_registry::{Immutable, RetentionRule, Uses};

use crate::output;

/// What it is called in the audit log.
const WHO: &str = "retention";

/// The rules in force, and what it takes to keep to them.
#[derive(Debug)]
pub struct Retaining {
    root: Arc<Root>,
    authority: Arc<Authority>,
    uses: Arc<Uses>,
    rules: Mutex<Arc<Rules>>,
}

#[derive(Debug, Default)]
struct Rules {
    retention: Vec<RetentionRule>,
    immutable: Immutable,
}

impl Retaining {
    /// Returns retention without rules.
    pub fn new(root: Arc<Root>, authority: Arc<Authority>, uses: Arc<Uses>) -> Arc<Retaining> {
        Arc::new(Retaining { root, authority, uses, rules: Mutex::default() })
    }

    /// Has these rules count from now on.
    pub fn configure(&self, retention: Vec<RetentionRule>, immutable: Immutable) {
        let rules = Arc::new(Rules { retention, immutable });
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Takes away what is to go now. Blocks.
    pub fn once(&self) {
        let rules = Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner));
        if rules.retention.is_empty() {
            return;
        }
        let mut removed = Removed::default();
        // What was pulled until now counts.
        let done = self.uses.write().and_then(|()| {
            let (root, now) = (&self.root, SystemTime::now());
            let by = Retirer { access: &*self.authority, who: WHO, uses: Some(&self.uses) };
            let retention = &rules.retention;
            let mut each = |repository: &_, evaluated: retention::Evaluated| {
                let one = retention::apply(repository, &evaluated, retention, by)?;
                removed.tags += one.tags;
                removed.manifests += one.manifests;
                Ok(())
            };
            retention::evaluate(root, retention, &rules.immutable, now, &mut each)
        });
        if removed.tags + removed.manifests > 0 {
            tracing::info!(
                "retention removed {} and {}",
                output::count(removed.tags, "tag"),
                output::count(removed.manifests, "manifest")
            );
        }
        if let Err(error) = done {
            let failure = crate::report::Failure::new("retention did not end").because(error);
            tracing::error!("{failure}");
        }
    }
}
