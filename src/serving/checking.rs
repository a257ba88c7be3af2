//! The integrity check that a server makes by itself, slowly, so that nobody notices it.
//!
//! ```text
//! ROOT/index/fsck.json    when a check ended last, and how far the one under way has come; may be
//!                         lost, which costs a check
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boatyard_content::Root;
use boatyard_content::fsck::{self, FsckError, FsckOptions, FsckReport, How, Loss, Onlooker};
use boatyard_content::local::write_unsynced;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::output;
use crate::refill::Upstreams;
use crate::report::Failure;
use crate::world::World;

/// How often it is looked whether a check is due, at most.
const LOOK: Duration = Duration::from_secs(60);

/// Ends a check when it is dropped: a server that stops waits for its threads.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How far the checks have come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    /// When the last one ended, or a server first ran here.
    ended: Option<Timestamp>,
    /// Up to which shard the one under way has read.
    through: Option<String>,
}

impl State {
    fn path(root: &Root) -> PathBuf {
        root.layout().index().join("fsck.json")
    }

    fn read(root: &Root) -> State {
        let bytes = fs_err::read(State::path(root)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn write(&self, root: &Root) {
        let written =
            serde_json::to_vec(self).map_err(|error| error.to_string()).and_then(|bytes| {
                write_unsynced(&State::path(root), &bytes).map_err(|error| error.to_string())
            });
        if let Err(error) = written {
            tracing::warn!(error, "how far the check has come is not remembered");
        }
    }
}

/// Checks again and again, for ever. Nothing waits for it.
pub async fn check(root: Arc<Root>, world: World) {
    let Some(every) = world.config.fsck.every.filter(|every| !every.is_zero()) else {
        return std::future::pending().await;
    };
    // A root is not read as soon as it is first served.
    let mut state = State::read(&root);
    if state.ended.is_none() {
        state.ended = Some(Timestamp::now());
        state.write(&root);
    }
    let runtime = Handle::current();
    let stop = Stop::default();
    loop {
        tokio::time::sleep(every.min(LOOK)).await;
        let (root, world, runtime) = (Arc::clone(&root), world.clone(), runtime.clone());
        let stopped = Arc::clone(&stop.0);
        // A check that panics is told by the panic; the next one tries again.
        let once = move || {
            if is_due(&State::read(&root), every) {
                once(&root, &world, runtime, stopped);
            }
        };
        let _ = tokio::task::spawn_blocking(once).await;
    }
}

fn is_due(state: &State, every: Duration) -> bool {
    let Some(ended) = state.ended else { return true };
    let since = Timestamp::now().as_second() - ended.as_second();
    since >= i64::try_from(every.as_secs()).unwrap_or(i64::MAX)
}

fn once(root: &Arc<Root>, world: &World, runtime: Handle, stopped: Arc<AtomicBool>) {
    let config = &world.config.fsck;
    let state = State::read(root);
    let upstreams = match config.repair {
        true => Upstreams::open(world, root, runtime).map_err(|error| {
            tracing::warn!("a check cannot repair: {error}");
        }),
        false => Err(()),
    };
    let options = FsckOptions {
        repair: upstreams.as_ref().ok().map(|upstreams| upstreams as &dyn fsck::Refill),
        after: state.through.clone(),
        ..FsckOptions::default()
    };
    let mut pace = Pace::new(root, state, config.rate, stopped);
    let report = fsck::check(root, &options, &mut pace);
    match report {
        Ok(report) => {
            tell(&report);
            State { ended: Some(Timestamp::now()), through: None }.write(root);
        }
        Err(FsckError::Stopped) => {}
        Err(error) => {
            let failure = Failure::new("the blobs cannot be checked").because(error);
            tracing::error!("{failure}");
        }
    }
}

fn tell(report: &FsckReport) {
    report.losses.iter().for_each(tell_loss);
    for finding in &report.findings {
        match &finding.mended {
            Some(how) => tracing::warn!("found by a check: {}; mended: {how}", finding.what),
            None => tracing::error!("found by a check: {}", finding.what),
        }
    }
    let (blobs, bytes) = (output::count(report.blobs, "blob"), output::size(report.bytes));
    match report.is_well() {
        true => tracing::info!("checked {blobs}, {bytes}: all is well"),
        false => tracing::error!("checked {blobs}, {bytes}: see above, and `boatyard fsck`"),
    }
}

fn tell_loss(loss: &Loss) {
    let how = match loss.how {
        How::Wrong { .. } | How::Unreadable => "damaged",
        How::Missing => "missing",
    };
    let breaks: Vec<String> = loss
        .breaks
        .iter()
        .flat_map(|broken| {
            broken.tags.iter().map(|tag| format!("{}:{tag}", broken.repository.key()))
        })
        .collect();
    let breaks = breaks.join(", ");
    match &loss.mended {
        Some(mended) => tracing::warn!(breaks, "{} was {how}: {mended}", loss.digest),
        None => {
            let why = loss.trouble.as_deref().unwrap_or("push it again");
            tracing::error!(breaks, "{} is {how}: {why}", loss.digest);
        }
    }
}

/// Reads no more in a second than it may, and remembers how far it came.
struct Pace<'a> {
    root: &'a Root,
    state: State,
    rate: Option<u64>,
    began: Instant,
    bytes: u64,
    stopped: Arc<AtomicBool>,
}

impl<'a> Pace<'a> {
    fn new(root: &'a Root, state: State, rate: Option<u64>, stopped: Arc<AtomicBool>) -> Pace<'a> {
        let rate = rate.filter(|rate| *rate > 0);
        Pace { root, state, rate, began: Instant::now(), bytes: 0, stopped }
    }
}

impl Onlooker for Pace<'_> {
    fn read(&mut self, bytes: u64) {
        self.bytes += bytes;
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn through(&mut self, shard: &str) {
        self.state.through = Some(shard.to_owned());
        self.state.write(self.root);
    }
}
