//! Syncs that are wanted at once, done as one.
//!
//! A disk takes about as long to sync one small file as to sync forty: what costs is the journal's
//! commit and the flush of the disk's own cache. So where many threads each want a small file
//! synced (the cache proxy keeps hundreds of packages in a moment), one of them syncs the file
//! system for all: everybody has as much on the disk as he asked for, and more.
//!
//! ```text
//! few at once          each syncs its own file, at once
//! more than that       those who come within a millisecond, or while others sync, are a round:
//!                      its first one calls syncfs, all others wait for that; and so on, until
//!                      nobody has come meanwhile
//! ```
//!
//! Where syncfs is not known to mean it (a network's file system), fails, or would have to write
//! what others have left dirty, each of a round syncs its own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many sync for themselves, side by side.
const ALONE_MAX: usize = 2;
/// How long the first of a round waits for others.
const GATHER: Duration = Duration::from_millis(1);
/// From how many on a round is synced as one.
const ROUND_MIN: usize = 3;
/// How much may be dirty, in KiB: of a large file that somebody is writing, a round would have to
/// wait for all.
const DIRTY_MAX: u64 = 64 * 1024;

/// The syncs of all file systems that this process writes to, by device.
static WANTED: Mutex<Option<HashMap<u64, Arc<Wanted>>>> = Mutex::new(None);

/// The syncs of one file system.
#[derive(Debug, Default)]
struct Wanted {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    alone: usize,
    /// A round has somebody who gathers or syncs it.
    led: bool,
    /// The round that gathers.
    gathering: Arc<Round>,
    members: usize,
}

/// Those who are synced as one. What is guarded by its file system's lock is there.
#[derive(Debug, Default)]
struct Round {
    outcome: Mutex<Option<Outcome>>,
    /// There is an outcome, or nobody leads any more.
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All is on the disk.
    Synced,
    /// Each is to sync its own.
    Each,
    /// One of them is to lead.
    Lead,
}

/// Makes durable what was written to a file or directory: by `alone`, which syncs just that, or
/// together with what others want synced on the same file system.
pub(super) fn sync(file: &File, alone: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let wanted = wanted(file.metadata()?.dev());
    let mut state = lock(&wanted.state);
    if state.alone < ALONE_MAX && !state.led {
        state.alone += 1;
        drop(state);
        let result = alone();
        lock(&wanted.state).alone -= 1;
        return result;
    }
    let round = Arc::clone(&state.gathering);
    state.members += 1;
    let leads = !std::mem::replace(&mut state.led, true);
    drop(state);
    let outcome = if leads { Outcome::Lead } else { round.wait() };
    match outcome {
        Outcome::Synced => Ok(()),
        Outcome::Each => alone(),
        Outcome::Lead => match wanted.lead(&round, file) {
            Outcome::Synced => Ok(()),
            _ => alone(),
        },
    }
}

impl Wanted {
    /// Gathers a round, syncs it, and hands the lead on.
    fn lead(&self, round: &Round, file: &File) -> Outcome {
        std::thread::sleep(GATHER);
        // Who comes from now on is of the next round: what he wrote may be too late for this one.
        let members = {
            let mut state = lock(&self.state);
            state.gathering = Arc::default();
            std::mem::take(&mut state.members)
        };
        let synced = members >= ROUND_MIN && is_cheap(file) && rustix::fs::syncfs(file).is_ok();
        let outcome = if synced { Outcome::Synced } else { Outcome::Each };
        *lock(&round.outcome) = Some(outcome);
        round.changed.notify_all();
        let mut state = lock(&self.state);
        if state.members > 0 {
            *lock(&state.gathering.outcome) = Some(Outcome::Lead);
            state.gathering.changed.notify_one();
        } else {
            state.led = false;
        }
        outcome
    }
}

impl Round {
    fn wait(&self) -> Outcome {
        let mut outcome = lock(&self.outcome);
        loop {
            match *outcome {
                // For one of us only.
                Some(Outcome::Lead) => {
                    *outcome = None;
                    return Outcome::Lead;
                }
                Some(outcome) => return outcome,
                None => {
                    outcome = self.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

fn wanted(device: u64) -> Arc<Wanted> {
    let mut all = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(all.get_or_insert_default().entry(device).or_default())
}

/// Says whether syncing all of the file system means as much as syncing a file, and little more.
fn is_cheap(file: &File) -> bool {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    let kind = rustix::fs::fstatfs(file).map(|kind| kind.f_type as u64 & 0xffff_ffff);
    let knows = kind.is_ok_and(|kind| matches!(kind, EXT4 | XFS | BTRFS));
    let dirty = || {
        let text = fs_err::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Dirty:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    knows && dirty().is_some_and(|dirty| dirty < DIRTY_MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everybody_is_answered_however_many_come_at_once() {
        const THREADS: usize = 24;
        let directory = tempfile::tempdir().unwrap();
        let (alone, begun) = (AtomicUsize::new(0), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let path = directory.path().join(number.to_string());
                let (alone, begun) = (&alone, &begun);
                scope.spawn(move || {
                    let file = fs_err::File::create(path).unwrap();
                    for _ in 0..20 {
                        begun.wait();
                        let own = || {
                            alone.fetch_add(1, Ordering::SeqCst);
                            file.sync_data()
                        };
                        sync(file.file(), own).unwrap();
                    }
                });
            }
        });
        assert!(alone.load(Ordering::SeqCst) <= THREADS * 20);
    }

    #[test]
    fn an_error_reaches_the_one_whose_file_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = fs_err::File::create(directory.path().join("a")).unwrap();
        let failed = sync(file.file(), || Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        sync(file.file(), || file.sync_data()).unwrap();
    }
}
