//! What is owed: a file for each envelope, until it is delivered.
//!
//! ```text
//! ROOT/deliveries/place              up to where the journal was read
//!                /<webhook>/<nanoseconds>-<ids>  an envelope; the oldest is first
//! ```
//!
//! The name says when the last event happened, and which they all are: written again after a
//! crash, an envelope is the same file. One with further events is another, and comes later: the
//! first may be on its way already, and is deleted when it was taken.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use boatyard_content::StoreError;
use boatyard_content::local::journal::Place;
use boatyard_content::local::write_whole;
use boatyard_oci::Digest;
use bytes::Bytes;
use fs_err as fs;
use serde_json::json;

use super::event::Event;

/// How many events one envelope has.
const EVENTS_MAX: usize = 50;
/// How many envelopes are owed to one webhook, at most.
const OWED_MAX: usize = 10_000;

/// The directory of deliveries.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
}

/// An envelope that is owed.
#[derive(Debug)]
pub(super) struct Owed {
    path: PathBuf,
    /// What is sent.
    pub(super) bytes: Bytes,
}

impl Shelf {
    pub(super) fn new(directory: PathBuf) -> Shelf {
        Shelf { directory }
    }

    fn of(&self, hook: &str) -> PathBuf {
        self.directory.join(hook)
    }

    /// Owes events to a webhook; returns how many are dropped because it is owed too much.
    pub(super) fn put(&self, hook: &str, events: &[Event]) -> Result<u64, StoreError> {
        let mut owed = names(&self.of(hook))?.len();
        let mut dropped = 0;
        for events in events.chunks(EVENTS_MAX) {
            if owed >= OWED_MAX {
                dropped += events.len() as u64;
                continue;
            }
            let Some(last) = events.last() else { continue };
            let ids: Vec<&str> = events.iter().map(Event::id).collect();
            let ids = Digest::sha256(ids.join(" ").as_bytes());
            let name = format!("{:020}-{}", last.nanoseconds(), &ids.hex()[..32]);
            let bytes = json!({ "events": events }).to_string();
            write_whole(&self.of(hook).join(name), bytes.as_bytes())?;
            owed += 1;
        }
        Ok(dropped)
    }

    /// Returns the oldest envelope that a webhook is owed.
    pub(super) fn oldest(&self, hook: &str) -> Result<Option<Owed>, StoreError> {
        let directory = self.of(hook);
        let Some(name) = names(&directory)?.into_iter().next() else { return Ok(None) };
        let path = directory.join(name);
        let bytes = fs::read(&path).map_err(|source| io("read what is owed", source))?;
        Ok(Some(Owed { path, bytes: bytes.into() }))
    }

    /// Returns how many envelopes are owed in all.
    pub(super) fn owed(&self) -> u64 {
        let hooks = subdirectories(&self.directory).unwrap_or_default();
        let count = |hook: &String| names(&self.of(hook)).map_or(0, |names| names.len() as u64);
        hooks.iter().map(count).sum()
    }

    /// Forgets what is owed to webhooks of other names; returns those.
    pub(super) fn forget_others(&self, names: &BTreeSet<&str>) -> Result<Vec<String>, StoreError> {
        let mut forgotten = subdirectories(&self.directory)?;
        forgotten.retain(|hook| !names.contains(hook.as_str()));
        for hook in &forgotten {
            fs::remove_dir_all(self.of(hook)).map_err(|source| io("forget deliveries", source))?;
        }
        Ok(forgotten)
    }

    fn place(&self) -> PathBuf {
        self.directory.join("place")
    }

    /// Returns up to where the journal was read; nothing where nobody did, or cannot tell.
    pub(super) fn read_place(&self) -> Result<Option<Place>, StoreError> {
        match fs::read(self.place()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read a place in the journal", error)),
        }
    }

    /// Writes down up to where the journal was read.
    pub(super) fn put_place(&self, place: Place) -> Result<(), StoreError> {
        let bytes = json!(place).to_string();
        write_whole(&self.place(), bytes.as_bytes())
    }

    /// Forgets up to where the journal was read.
    pub(super) fn forget_place(&self) -> Result<(), StoreError> {
        match fs::remove_file(self.place()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(io("forget a place in the journal", error))
            }
            _ => Ok(()),
        }
    }
}

impl Owed {
    /// Says that it is owed no longer.
    pub(super) fn settle(self) -> Result<(), StoreError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(io("forget what was delivered", error))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many events it has.
    pub(super) fn events(&self) -> u64 {
        let envelope = serde_json::from_slice::<serde_json::Value>(&self.bytes).ok();
        let events = envelope.as_ref().and_then(|envelope| envelope["events"].as_array());
        events.map_or(0, |events| events.len() as u64)
    }
}

fn io(doing: &'static str, source: std::io::Error) -> StoreError {
    StoreError::Io { doing, source }
}

/// Returns the names of a directory's files, in their order; temporary ones are left out.
fn names(directory: &Path) -> Result<BTreeSet<String>, StoreError> {
    let mut names = BTreeSet::new();
    for (name, is_directory) in list(directory)? {
        if !is_directory && !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}

fn subdirectories(directory: &Path) -> Result<Vec<String>, StoreError> {
    let all = list(directory)?;
    Ok(all.into_iter().filter(|(_, is_directory)| *is_directory).map(|(name, _)| name).collect())
}

fn list(directory: &Path) -> Result<Vec<(String, bool)>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("list deliveries", error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| io("list deliveries", source))?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.extend(entry.file_name().into_string().ok().map(|name| (name, is_directory)));
    }
    Ok(found)
}
