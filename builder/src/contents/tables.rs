//! The tables that a root keeps.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use boatyard_oci::DiffId;
use thiserror::Error;

use crate::contents::{Table, TableError};

/// Why a layer's table cannot be had.
#[derive(Debug, Error)]
pub enum TablesError {
    /// It cannot be made or kept.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The tables of one root, shared by all who clone it.
#[derive(Clone, Debug)]
pub struct Tables {}

impl Tables {
    /// Opens the tables below ROOT.
    pub fn open(_root: &Path) -> Tables {
        Tables {}
    }

    /// Returns a layer's table, if it was recorded.
    ///
    /// # Errors
    /// Fails if it is there and cannot be read.
    pub fn find(&self, _diff_id: &DiffId) -> Result<Option<Arc<Table>>, TablesError> {
        unimplemented!()
    }

    /// Keeps a layer's table.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn put(&self, _diff_id: &DiffId, _table: Table) -> Result<Arc<Table>, TablesError> {
        unimplemented!()
    }

    /// Makes a layer's table from its blob, however that is packed, and keeps it.
    ///
    /// # Errors
    /// Fails on a blob that is damaged or not the promised one.
    pub fn scan(
        &self,
        _diff_id: &DiffId,
        _blob: impl Read,
        _threads: usize,
    ) -> Result<Arc<Table>, TablesError> {
        unimplemented!()
    }

    /// Makes a layer's table from its unpacked tree (`LayerDir::tree`), and keeps it. For layers that
    /// we wrote: only those say all that their tree shows.
    ///
    /// # Errors
    /// Fails if the tree cannot be read.
    pub fn read_tree(&self, _diff_id: &DiffId, _tree: &Path) -> Result<Arc<Table>, TablesError> {
        unimplemented!()
    }
}
