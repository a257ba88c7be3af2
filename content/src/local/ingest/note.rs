//! What a writer announces of its ingest: `ROOT/ingest/<key>/note`.
//!
//! The first line says for which file it is and since which start of the machine: `data` that was
//! begun anew, or that a crash may have torn, is not what was announced. The rest is the writer's.
//! It is not synced: after a crash it would be void in any case.

use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use bytes::Bytes;
use fs_err as fs;

use crate::ingest::IngestKey;
use crate::local::root::Shared;
use crate::local::shelves::read_if_there;
use crate::store::{Doing as _, StoreError};

pub(super) const NAME: &str = "note";
/// A note that is being written. There is one writer, so it needs no name of its own.
pub(super) const STAGED: &str = "note.new";

/// Writes the note of an ingest whose writer the caller is.
pub(super) fn write(
    root: &Shared,
    key: &IngestKey,
    data: &fs::File,
    note: &[u8],
) -> Result<(), StoreError> {
    let directory = root.layout.ingest(key);
    let staged = directory.join(STAGED);
    let mut text = header(data)?.into_bytes();
    text.extend_from_slice(note);
    root.disk.remove_file(&staged).doing("announce an ingest")?;
    let mut file = root.disk.create(&staged).doing("announce an ingest")?;
    root.disk.write(&mut file, &text).doing("announce an ingest")?;
    root.disk.rename(&staged, &directory.join(NAME)).doing("announce an ingest")
}

/// Returns what was announced of this very file since the machine started.
pub(super) fn of(
    root: &Shared,
    key: &IngestKey,
    data: &fs::File,
) -> Result<Option<Bytes>, StoreError> {
    let path = root.layout.ingest(key).join(NAME);
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    let text = Bytes::from(text);
    let header = header(data)?;
    let announced = boot().is_some() && text.starts_with(header.as_bytes());
    Ok(announced.then(|| text.slice(header.len()..)))
}

fn header(data: &fs::File) -> Result<String, StoreError> {
    let metadata = data.metadata().doing("look at an ingest")?;
    Ok(format!("{} {}\n", boot().unwrap_or_default(), metadata.ino()))
}

/// Returns what tells this run of the kernel from others. Where it cannot be known, no note is
/// believed.
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    BOOT.get_or_init(read).as_deref().map(str::trim)
}
