//! What a server does by itself to stay within its disk.

use std::sync::Arc;
use std::time::Duration;

use boatyard_content::Root;
use boatyard_content::gc::{self, GcError, GcOptions};
use tokio::time::MissedTickBehavior;

use crate::config;
use crate::output;

/// How long after its start a server collects for the first time, at most.
const FIRST: Duration = Duration::from_secs(300);

/// Collects again and again, for ever. Nothing waits for it: pushes, builds and transfers go on.
pub async fn collect(root: Arc<Root>, config: config::Gc) {
    let Some(every) = config.every.filter(|every| !every.is_zero()) else {
        return std::future::pending().await;
    };
    let begin = tokio::time::Instant::now() + every.min(FIRST);
    let mut ticks = tokio::time::interval_at(begin, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let root = Arc::clone(&root);
        let options = GcOptions { grace: config.grace(), ..GcOptions::default() };
        // A collection that panics is told by the panic; the next one tries again.
        let _ = tokio::task::spawn_blocking(move || once(&root, &options)).await;
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
