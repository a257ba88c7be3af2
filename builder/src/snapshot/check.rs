//! Whether unpacked layers are still what they were unpacked to.
//!
//! A layer's table of contents has the size and the BLAKE3 of every file; so a layer is compared with
//! its table. One that differs is a cache gone wrong: it is removed, unless a build relies on it, and
//! made again from its blob when a build needs it. Layers that are kept by their chain ID have names
//! that tell no diff ID; those and layers without a table are not looked at.

use std::collections::HashSet;
use std::io::{self, Read};

use boatyard_content::Root;
use boatyard_oci::DiffId;

use super::layers::{LayerDir, Layers, LayersError};
use crate::contents::{Row, Table};
use crate::layer::entry::{EntryPath, Kind};

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many layers were compared.
    pub layers: u64,
    /// The layers that differ, with the first path that does.
    pub wrong: Vec<(DiffId, String)>,
    /// How many of these were removed.
    pub removed: u64,
}

impl Layers {
    /// Compares the unpacked layers with their tables of contents. Those that differ are removed where
    /// `remove` says so and no build relies on them.
    ///
    /// # Errors
    /// Fails if layers cannot be listed, or one not removed.
    pub fn check(&self, root: &Root, remove: bool) -> Result<Checked, LayersError> {
        let mut checked = Checked::default();
        let mut names = HashSet::new();
        for (name, layer) in self.by_diff_ids()? {
            // A table that is damaged is none, and is made again.
            let Ok(Some(table)) = self.tables().find(layer.diff_id()) else { continue };
            checked.layers += 1;
            if let Some(path) = differs(&layer, &table) {
                // It may have been removed by a collection just now.
                if layer.tree().exists() {
                    checked.wrong.push((layer.diff_id().clone(), path));
                    names.insert(name);
                }
            }
        }
        if remove && !names.is_empty() {
            let held = || root.held_layers();
            checked.removed = self.sweep(held, |name, _| names.contains(name), false)?;
        }
        Ok(checked)
    }
}

/// Returns the first file that is not what the table says.
fn differs(layer: &LayerDir, table: &Table) -> Option<String> {
    table
        .rows()
        .filter(|(_, row)| matches!(row.kind(), Kind::File))
        .find(|(path, row)| !is_same(layer, path, row))
        .map(|(path, _)| String::from_utf8_lossy(path.as_bytes()).into_owned())
}

fn is_same(layer: &LayerDir, path: &EntryPath, row: &Row<'_>) -> bool {
    let hashed = layer.open_file(path).and_then(|file| hash(file, row.size()));
    hashed.is_ok_and(|hashed| hashed == Some(row.content()))
}

/// Returns the hash of a file, if it has this size.
fn hash(mut file: std::fs::File, size: u64) -> io::Result<Option<[u8; 32]>> {
    if file.metadata()?.len() != size {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(*hasher.finalize().as_bytes())),
            read => drop(hasher.update(&buffer[..read])),
        }
    }
}
