//! Limits that work by themselves: at the end of a build the cache is pruned, if it must be.
//!
//! ```text
//! ROOT/cache/pruned    when that was done last, and how large the cache was then
//!            added     how many bytes came since, a line each time
//! ```
//!
//! That is asked for at the end of every build, so it must cost nothing as a rule: two small files are
//! read, and the file system is asked for its free space. Only once an hour, or when something was
//! added and a limit is passed, all is listed and what is too much goes:
//!
//! 1. unpacked trees of layers that have a blob, unused for two days: they are quickly made again.
//!    Where space is short, those unused for an hour;
//! 2. what was not used for longer than the greatest age;
//! 3. what was used least recently, until the cache is small enough and enough space is free. The
//!    last gigabyte is never taken for free space: on a disk that others fill, builds would never
//!    find anything again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use boatyard_content::gc::GcOptions;
use boatyard_content::local::write_unsynced;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::prune::{Pruned, Rules, choose};
use super::usage::{YOUNG, is_older};
use super::{Cache, CacheError, Doing as _, Storing as _, files};
use crate::snapshot::Layers;

/// How often all is listed, if no limit is passed.
const INTERVAL: Duration = Duration::from_secs(3600);
/// What is left of the cache however short space is.
const RESERVED_BYTES: u64 = 1 << 30;

/// How much the cache may keep.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most that it may have.
    pub max_size: Option<Amount>,
    /// How long something stays that is not used.
    pub max_age: Option<Duration>,
    /// What must be free on the file system.
    pub min_free: Option<Amount>,
    /// How long an unpacked layer stays that is not used and can be unpacked again.
    pub unpacked_age: Duration,
    /// How to free blobs.
    pub gc: GcOptions,
}

impl Default for Limits {
    /// Returns a fifth of the file system, 30 days, and a tenth of it free.
    fn default() -> Self {
        Limits {
            max_size: Some(Amount::Percent(20)),
            max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            min_free: Some(Amount::Percent(10)),
            unpacked_age: Duration::from_secs(2 * 24 * 3600),
            gc: GcOptions::default(),
        }
    }
}

/// A number of bytes, or a part of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the file system that the root is on.
    Percent(u8),
}

impl Amount {
    /// Returns the bytes, on a file system of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Amount::Bytes(bytes) => bytes,
            Amount::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

/// What was found when the cache was listed last. Unreadable, it was never listed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct State {
    at: Timestamp,
    bytes: u64,
}

/// The file system that a root is on.
#[derive(Clone, Copy, Debug)]
struct Space {
    total: u64,
    free: u64,
}

impl Space {
    fn of(path: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Space { total: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
    }

    /// Returns how many bytes are missing to what must be free.
    fn missing(self, limits: &Limits) -> u64 {
        limits.min_free.map_or(0, |min| min.of(self.total).saturating_sub(self.free))
    }

    /// Returns the most that the cache may have, if it has `bytes` now.
    fn keep(self, limits: &Limits, bytes: u64) -> u64 {
        let max = limits.max_size.map_or(u64::MAX, |max| max.of(self.total));
        let free = match self.missing(limits) {
            0 => u64::MAX,
            missing => bytes.saturating_sub(missing).max(RESERVED_BYTES),
        };
        max.min(free)
    }
}

impl Cache {
    /// Prunes the cache to its limits; `None` where there was nothing to look at. For the end of a
    /// build, when its leases are given up. `layers` are those of every view of this root.
    ///
    /// # Errors
    /// Where something cannot be listed or removed.
    pub fn enforce(
        &self,
        layers: &[Layers],
        limits: &Limits,
    ) -> Result<Option<Pruned>, CacheError> {
        let space = Space::of(self.root.path()).doing("ask for the free space")?;
        let (state, added) = (self.state()?, self.added()?);
        let bytes = state.bytes.saturating_add(added);
        let is_over = bytes > space.keep(limits, bytes);
        let is_recent = !is_older(state.at.into(), INTERVAL, SystemTime::now());
        if is_recent && !(is_over && added > 0) {
            return Ok(None);
        }
        // What comes from now on may be counted twice, which is better than not at all.
        files::remove(&self.added_path()).doing("forget what was added")?;
        let pruned = self.enforce_now(layers, limits)?;
        let bytes = pruned.left_bytes;
        self.write_state(State { at: Timestamp::now(), bytes })?;
        Ok(Some(pruned))
    }

    /// Returns how many bytes an amount is on the file system of the root.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn bytes_of(&self, amount: Amount) -> Result<u64, CacheError> {
        let space = Space::of(self.root.path()).doing("ask for the size of the disk")?;
        Ok(amount.of(space.total))
    }

    fn enforce_now(&self, layers: &[Layers], limits: &Limits) -> Result<Pruned, CacheError> {
        let failed = |source| CacheError::Layers { doing: "remove unpacked layers", source };
        layers.iter().try_for_each(Layers::sweep_active).map_err(failed)?;
        let path = self.root.path();
        let space = || Space::of(path).doing("ask for the free space");
        let age = match space()?.missing(limits) {
            0 => limits.unpacked_age,
            _ => limits.unpacked_age.min(YOUNG),
        };
        self.sweep_unpacked(layers, age, false)?;
        let (space, now) = (space()?, SystemTime::now());
        let usage = self.usage()?;
        let old = Rules { older_than: limits.max_age, ..Rules::default() };
        let mut chosen = match limits.max_age {
            Some(_) => choose(&usage, &old, now),
            None => Vec::new(),
        };
        let keep_bytes = Some(space.keep(limits, usage.bytes()));
        let large = choose(&usage, &Rules { keep_bytes, ..Rules::default() }, now);
        // Both take from the same order, so what is old is part of what is too much, or all of it.
        chosen.extend(large.into_iter().filter(|at| !chosen.contains(at)).collect::<Vec<_>>());
        self.remove(layers, usage, &chosen, false, &limits.gc)
    }

    /// Removes unpacked trees that nobody used for so long and that can be unpacked again; returns
    /// how many.
    ///
    /// # Errors
    /// Where something cannot be listed or removed.
    pub fn sweep_unpacked(
        &self,
        layers: &[Layers],
        age: Duration,
        dry_run: bool,
    ) -> Result<u64, CacheError> {
        let only = self.only_trees()?;
        let now = SystemTime::now();
        let is_unneeded = |name: &str, used| is_older(used, age, now) && !only.contains(name);
        let sweep = |layers: &Layers| {
            layers
                .sweep(|| self.root.held_layers(), is_unneeded, dry_run)
                .map_err(|source| CacheError::Layers { doing: "remove unpacked layers", source })
        };
        layers.iter().map(sweep).sum()
    }

    /// Returns how much is free on the file system of the root, if it says that.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        Space::of(self.root.path()).ok().map(|space| space.free)
    }

    /// Notes that a step that mounts caches may have added to them what is less free than before.
    /// Others write too; but counting a cache would take longer than most steps.
    ///
    /// # Errors
    /// Where the file could not be written.
    pub(crate) fn note_taken_since(&self, free_before: u64) -> Result<(), CacheError> {
        let taken = free_before.saturating_sub(self.free_bytes().unwrap_or(free_before));
        if taken == 0 { Ok(()) } else { self.note_added(taken) }
    }

    /// Notes that about so many bytes came to the cache.
    pub(super) fn note_added(&self, bytes: u64) -> Result<(), CacheError> {
        files::append(&self.added_path(), format!("{bytes}\n").as_bytes())
            .doing("note what was added")
    }

    fn added(&self) -> Result<u64, CacheError> {
        let bytes = files::read(&self.added_path()).doing("read what was added")?;
        let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        Ok(text.lines().filter_map(|line| line.parse::<u64>().ok()).fold(0, u64::saturating_add))
    }

    fn added_path(&self) -> PathBuf {
        self.directory.join("added")
    }

    fn state(&self) -> Result<State, CacheError> {
        let bytes = files::read(&self.directory.join("pruned")).doing("read what was pruned")?;
        Ok(serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default())
    }

    fn write_state(&self, state: State) -> Result<(), CacheError> {
        let bytes = serde_json::to_vec(&state).expect("numbers always serialise");
        let path = self.directory.join("pruned");
        write_unsynced(&path, &bytes).storing("note what was pruned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts_and_something_is_left() {
        const GIB: u64 = 1 << 30;
        let limits = Limits {
            max_size: Some(Amount::Percent(20)),
            min_free: Some(Amount::Bytes(10 * GIB)),
            ..Limits::default()
        };
        let keep = |free, bytes| Space { total: 100 * GIB, free }.keep(&limits, bytes);
        assert_eq!(keep(50 * GIB, 5 * GIB), 100 * GIB / 100 * 20, "enough is free");
        assert_eq!(keep(8 * GIB, 5 * GIB), 3 * GIB, "two are missing");
        assert_eq!(keep(0, 5 * GIB), GIB, "others fill the disk");
    }
}
