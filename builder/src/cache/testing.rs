//! Records and tables of contents for tests.

use boatyard_oci::{ChainId, DiffId, Digest};

use crate::cache::{Ground, Parts, Record, RecordedLayer};
use crate::contents::{Recorder, Table};
use crate::layer::testing::path;
use crate::layer::{Entry, Kind};

/// Returns a file's entry; its size is set by [`table`].
pub(crate) fn file(name: &str) -> Entry {
    Entry::new(path(name), Kind::File, 0o644)
}

/// Returns a directory's entry.
pub(crate) fn directory(name: &str) -> Entry {
    Entry::new(path(name), Kind::Directory, 0o755)
}

/// Records entries with their contents.
pub(crate) fn table(entries: &[(Entry, &str)]) -> Table {
    let mut recorder = Recorder::default();
    for (entry, content) in entries {
        let mut entry = entry.clone();
        let is_file = entry.kind == Kind::File;
        entry.size = if is_file { content.len() as u64 } else { 0 };
        let hash = if is_file { *blake3::hash(content.as_bytes()).as_bytes() } else { [0; 32] };
        recorder.add(&entry, &hash).unwrap();
    }
    recorder.finish().unwrap()
}

/// Returns the record of a step without parts but its command, and with a layer of its own.
pub(crate) fn record(ordinal: u32, text: &str) -> Record {
    let mut parts = Parts::new("RUN");
    parts.push("command", text);
    let diff_id = DiffId::new(Digest::sha256(text.as_bytes()));
    let content = blake3::hash(text.as_bytes()).to_hex().parse().unwrap();
    Record {
        parts,
        dockerfile: "Dockerfile".into(),
        stage: "0".into(),
        ordinal,
        text: text.into(),
        line: ordinal + 1,
        ground: Ground { base: "scratch".into(), base_id: String::new(), steps: Vec::new() },
        inputs: Vec::new(),
        layer: RecordedLayer {
            content,
            chain_id: ChainId::of(std::slice::from_ref(&diff_id)).unwrap(),
            diff_id,
            size: 5000,
        },
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        took_ms: 7,
    }
}
