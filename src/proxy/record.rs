//! What the cache proxy served, and why: counted, and written where commands read it.
//!
//! ```text
//! ROOT/index/proxy.json    the tallies, and the last decisions; may be lost, which costs the past
//! ```
//!
//! The server that runs writes it a moment after something was served, whole, and renames it into
//! place. No command asks the server.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boatyard_cache_proxy::Target;
use boatyard_cache_proxy::engine::Decision;
use boatyard_cache_proxy::statistics::{By, Counters, Served, Statistics, Tally};
use boatyard_content::Root;
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// How often it is written while something is served.
const EVERY: Duration = Duration::from_secs(2);
/// How many decisions are remembered.
const DECISIONS_MAX: usize = 1000;

/// What is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Recorded {
    /// Since when it counts.
    pub since: Option<Timestamp>,
    /// The tallies.
    pub tallies: Vec<Row>,
    /// The last decisions, the newest last.
    pub decisions: Vec<Decided>,
}

/// One tally.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    /// By what it is summed up: `all`, `ecosystem`, `upstream` or `client`.
    pub by: String,
    /// Which of them.
    pub name: String,
    /// Answers from what is kept, or from a transfer that was under way.
    pub hits: u64,
    /// Answers that were fetched.
    pub misses: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Those that did not have to be fetched.
    pub bytes_saved: u64,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Decided {
    /// What it was for.
    pub url: String,
    /// When.
    pub at: Timestamp,
    /// How the answer came about, as `X-Cache` has it.
    pub outcome: String,
    /// Its status.
    pub status: u16,
}

impl Recorded {
    /// Reads what was written last; nothing where that is lost or of another version.
    pub fn read(root: &Path) -> Recorded {
        let bytes = fs::read(file(root)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Returns the last decision about an address.
    pub fn last(&self, url: &str) -> Option<&Decided> {
        self.decisions.iter().rev().find(|decided| decided.url == url)
    }
}

fn file(root: &Path) -> PathBuf {
    root.join("index/proxy.json")
}

impl Row {
    fn of((by, tally): (By, Tally)) -> Row {
        let (by, name) = match by {
            By::All => ("all", String::new()),
            By::Ecosystem(name) => ("ecosystem", name),
            By::Upstream(name) => ("upstream", name),
            By::Client(address) => ("client", address.to_string()),
        };
        let Tally { hits, misses, bytes, bytes_saved } = tally;
        Row { by: by.to_owned(), name, hits, misses, bytes, bytes_saved }
    }

    fn tally(&self) -> Option<(By, Tally)> {
        let by = match self.by.as_str() {
            "all" => By::All,
            "ecosystem" => By::Ecosystem(self.name.clone()),
            "upstream" => By::Upstream(self.name.clone()),
            "client" => By::Client(self.name.parse::<IpAddr>().ok()?),
            _ => return None,
        };
        let Row { hits, misses, bytes, bytes_saved, .. } = *self;
        Some((by, Tally { hits, misses, bytes, bytes_saved }))
    }
}

/// Counts, and writes what was counted.
#[derive(Debug)]
pub struct Recorder {
    root: PathBuf,
    since: Timestamp,
    counters: Counters,
    decisions: Mutex<VecDeque<Decided>>,
    metrics: Arc<Metrics>,
    has_news: AtomicBool,
}

impl Recorder {
    /// Goes on from what was written last. Blocking.
    pub fn new(root: &Root, metrics: Arc<Metrics>) -> Recorder {
        let recorded = Recorded::read(root.path());
        Recorder {
            root: root.path().to_path_buf(),
            since: recorded.since.unwrap_or_else(Timestamp::now),
            counters: Counters::restored(recorded.tallies.iter().filter_map(Row::tally)),
            decisions: Mutex::new(recorded.decisions.into()),
            metrics,
            has_news: AtomicBool::new(false),
        }
    }

    /// Writes what changes, for ever.
    pub async fn write(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let recorder = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || recorder.write_now()).await.is_err() {
                return;
            }
        }
    }

    /// Writes what has changed since the last time. Blocking.
    pub fn write_now(&self) {
        if !self.has_news.swap(false, Ordering::AcqRel) {
            return;
        }
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        let decisions = decisions.iter().cloned().collect();
        let tallies = self.counters.tallies().into_iter().map(Row::of).collect();
        let recorded = Recorded { since: Some(self.since), tallies, decisions };
        if let Err(error) = write(&file(&self.root), &recorded) {
            tracing::debug!(%error, "the statistics of the cache proxy are not written");
        }
    }
}

fn write(path: &Path, recorded: &Recorded) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(recorded)?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Servers that take turns on a root each have a file of their own until it is renamed.
    let staged = path.with_extension(format!("json.{}", std::process::id()));
    fs::write(&staged, bytes)?;
    fs::rename(&staged, path)
}

impl Statistics for Recorder {
    fn served(&self, served: &Served<'_>) {
        self.counters.served(served);
        self.metrics.proxied(served);
        self.has_news.store(true, Ordering::Release);
    }

    fn decided(&self, target: &Target, decision: &Decision) {
        let decided = Decided {
            url: target.to_string(),
            at: decision.at,
            outcome: decision.outcome.as_str().to_owned(),
            status: decision.status.as_u16(),
        };
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        if decisions.len() >= DECISIONS_MAX {
            decisions.pop_front();
        }
        decisions.push_back(decided);
        self.has_news.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_goes_on() {
        let tally = Tally { hits: 3, misses: 1, bytes: 9, bytes_saved: 7 };
        let all = [
            By::All,
            By::Ecosystem("apt".to_owned()),
            By::Upstream("deb".to_owned()),
            By::Client([10, 0, 0, 7].into()),
        ];
        for by in all {
            assert_eq!(Row::of((by.clone(), tally)).tally(), Some((by, tally)));
        }
        assert_eq!(Row { by: "moon".to_owned(), ..Row::default() }.tally(), None);
    }

    #[test]
    fn what_is_lost_or_broken_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Recorded::read(root.path()), Recorded::default());
        fs::create_dir(root.path().join("index")).unwrap();
        fs::write(file(root.path()), "{").unwrap();
        assert_eq!(Recorded::read(root.path()), Recorded::default());
    }
}
