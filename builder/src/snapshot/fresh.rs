//! A layer's tree that is written by hand, without a step.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use fs_err as fs;

use super::layers::{LayerDir, Layers, LayersError, Temporary, create_private};
use crate::layer::Written;

/// An unpacked layer that is being written; it goes with its guard until it is committed.
#[derive(Debug)]
pub struct FreshLayer {
    layers: Layers,
    directory: Temporary,
}

impl Layers {
    /// Begins a layer.
    ///
    /// # Errors
    /// Fails if its directories cannot be made.
    pub fn fresh(&self) -> Result<FreshLayer, LayersError> {
        let directory = self.temporary("fresh-")?;
        let tree = directory.path().join("layer/fs");
        create_private(&tree)?;
        fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o755))?;
        Ok(FreshLayer { layers: self.clone(), directory })
    }
}

impl FreshLayer {
    /// Returns the empty directory for its tree.
    pub fn tree(&self) -> PathBuf {
        self.directory.path().join("layer/fs")
    }

    /// Gives it its name. The layer must need nothing of what lies beneath.
    ///
    /// # Errors
    /// Fails if it cannot be moved to its place.
    pub fn commit(self, written: &Written) -> Result<LayerDir, LayersError> {
        self.layers.publish(&self.directory.path().join("layer"), &written.diff_id, &[], true)
    }
}
