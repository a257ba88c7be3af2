//! Which earlier records a step is to be compared with: those of the same place, or of the same
//! text.
//!
//! ```text
//! ROOT/cache/near/place/<BLAKE3 of Dockerfile, stage, ordinal>   keys, a line each, newest first
//!                 text/<BLAKE3 of the instruction>               the same
//! ```
//!
//! A place is told by the Dockerfile's path below its context, so two projects can share one. Each
//! file therefore has several keys, and the record that agrees in most parts is taken. Two
//! that write one file at once lose one key: what is explained then is compared with an older record.

use std::path::{Path, PathBuf};

use boatyard_content::StoreError;
use boatyard_content::local::write_unsynced;

use super::key::Key;
use super::record::Record;

/// How many keys a file has.
const KEYS_MAX: usize = 8;

/// Notes that a record is the newest of its place and of its text.
pub(super) fn note(directory: &Path, record: &Record) -> Result<(), StoreError> {
    let key = record.key();
    for path in [place(directory, record), text(directory, record)] {
        let mut keys = keys(&path);
        if keys.first() == Some(&key) {
            continue;
        }
        keys.retain(|other| *other != key);
        keys.insert(0, key);
        keys.truncate(KEYS_MAX);
        let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
        write_unsynced(&path, lines.as_bytes())?;
    }
    Ok(())
}

/// Returns the earlier records to compare a step with: the best one of those of the same place, else
/// of those of the same text. `find` reads a record.
pub(super) fn best(
    directory: &Path,
    now: &Record,
    find: impl Fn(&Key) -> Option<Record>,
) -> Option<Record> {
    let own = now.key();
    let of_kind = |record: &Record| record.parts.kind() == now.parts.kind();
    [place(directory, now), text(directory, now)].iter().find_map(|path| {
        let keys = keys(path).into_iter().filter(|key| *key != own);
        let records: Vec<Record> = keys.filter_map(|key| find(&key)).filter(of_kind).collect();
        // Of equal ones `max_by_key` takes the last: that is the newest, seen from behind.
        records.into_iter().rev().max_by_key(|record| agreement(record, now))
    })
}

/// Returns the record that agrees best with a step, of those of the same place or the same text.
pub(super) fn best_of<'a>(
    records: impl Iterator<Item = &'a Record>,
    now: &Record,
) -> Option<&'a Record> {
    let own = now.key();
    let is_near = |record: &&Record| {
        let at =
            |record: &Record| (record.dockerfile.clone(), record.stage.clone(), record.ordinal);
        record.parts.kind() == now.parts.kind()
            && (at(record) == at(now) || record.text == now.text)
            && record.key() != own
    };
    records.filter(is_near).max_by_key(|record| (agreement(record, now), record.created))
}

/// Returns how many parts two records have in common. The instruction's text counts as many: a step
/// that was only moved is the same step.
fn agreement(record: &Record, now: &Record) -> usize {
    let same = now.parts.iter().filter(|part| record.parts.get(&part.name) == Some(&part.value));
    let weight = if record.text == now.text { now.parts.iter().count() } else { 0 };
    same.count() + weight
}

/// Removes the files that name no record any more.
pub(super) fn sweep(directory: &Path, is_there: impl Fn(&Key) -> bool) -> std::io::Result<()> {
    for kind in ["place", "text"] {
        for path in super::files::list(&directory.join(kind))? {
            if !keys(&path).iter().any(&is_there) {
                super::files::remove(&path)?;
            }
        }
    }
    Ok(())
}

fn place(directory: &Path, record: &Record) -> PathBuf {
    let place = [record.dockerfile.as_str(), &record.stage, &record.ordinal.to_string()];
    directory.join("place").join(name(&place))
}

fn text(directory: &Path, record: &Record) -> PathBuf {
    directory.join("text").join(name(&[&record.text]))
}

fn name(words: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for word in words {
        hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Reads a file of keys; what is not there, or torn, has none.
fn keys(path: &Path) -> Vec<Key> {
    let text = fs_err::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
