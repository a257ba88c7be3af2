//! What a server does by itself to stay within its disk.

use std::sync::Arc;
use std::time::Duration;

use boatyard_content::Root;
use boatyard_content::gc::{self, GcError, GcOptions};
use boatyard_content::local;
use boatyard_registry::Policies;
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::output;
use crate::serving::retaining::Retaining;

/// How long after its start a server collects for the first time, at most.
const FIRST: Duration = Duration::from_secs(300);

/// How often it is written down what was pulled, and counted what other processes did.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// Writes down what was pulled, and counts what other processes did, again and again, for ever.
pub async fn note(policies: Policies) {
    let mut ticks = tokio::time::interval(NOTE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let policies = policies.clone();
        let noting = tokio::task::spawn_blocking(move || note_now(&policies));
        // The same failure again and again is told once.
        let failure = noting.await.ok().flatten();
        if failure != told {
            if let Some(failure) = &failure {
                tracing::warn!("{failure}");
            }
            told = failure;
        }
    }
}

/// Does so once; returns what went wrong. Blocks.
pub fn note_now(policies: &Policies) -> Option<String> {
    let written = policies.uses.write().err().map(|error| ("note what was pulled", error));
    let counted = policies.quotas.catch_up().err().map(|error| ("count for the quotas", error));
    let (what, error) = written.or(counted)?;
    Some(crate::report::Failure::new(format!("cannot {what}")).because(error).to_string())
}

/// Keeps to the rules of retention and collects, again and again, for ever. Nothing waits for it:
/// pushes, builds and transfers go on.
pub async fn collect(root: Arc<Root>, config: config::Gc, retaining: Arc<Retaining>) {
    let Some(every) = config.every.filter(|every| !every.is_zero()) else {
        return std::future::pending().await;
    };
    let begin = tokio::time::Instant::now() + every.min(FIRST);
    let mut ticks = tokio::time::interval_at(begin, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (root, retaining) = (Arc::clone(&root), Arc::clone(&retaining));
        let options = GcOptions { grace: config.grace(), ..GcOptions::default() };
        // A collection that panics is told by the panic; the next one tries again.
        let _ = tokio::task::spawn_blocking(move || {
            retaining.once();
            once(&root, &options);
            // It knew the names of all blobs.
            local::give_memory_back();
        })
        .await;
    }
}

fn once(root: &Root, options: &GcOptions) {
    match gc::collect(root, options) {
        Ok(report) => {
            let (blobs, bytes) = (report.freed.len() as u64, report.freed_bytes());
            if blobs > 0 || report.abandoned > 0 {
                tracing::info!(
                    "collected {} in {}, {} given up",
                    output::size(bytes),
                    output::count(blobs, "blob"),
                    output::count(report.abandoned, "unfinished transfer")
                );
            }
        }
        Err(GcError::Running) => {}
        Err(error) => {
            let failure = crate::report::Failure::new("garbage is not collected").because(error);
            tracing::error!("{failure}");
        }
    }
}
