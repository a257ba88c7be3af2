//! Layers as trees: found where they are unpacked, unpacked where they are not; and as views, which
//! need no tree.
//!
//! Only a RUN that runs, or a COPY that needs bytes, asks for trees. Several that are missing are
//! unpacked at once, as most layers need nothing of what lies beneath; those that do follow one by
//! one, from the bottom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use boatyard_content::{Root, StoreError};
use boatyard_oci::{Descriptor, DiffId, Digest};
use thiserror::Error;

use super::StackedLayer;
use crate::base::Say;
use crate::cache::shared::{ImportError, Imports};
use crate::contents::{Table, TablesError, View};
use crate::layer::{DecompressLimits, Limits};
use crate::snapshot::{LayerDir, Layers, LayersError, Unpack};

/// Why a tree cannot be had.
#[derive(Debug, Error)]
pub enum TreesError {
    /// It cannot be unpacked, or not be kept.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// What the layer holds cannot be told.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The blob cannot be read.
    #[error("cannot read the blob {digest}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The blob is gone.
    #[error("the blob {0} is not in the store any more")]
    Gone(Digest),
    /// A shared cache promised it.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// There is neither tree nor blob.
    #[error("the layer {0} is not here any more: something deletes what builds use")]
    Lost(DiffId),
}

/// The trees of a root.
#[derive(Debug)]
pub(crate) struct Trees {
    root: Arc<Root>,
    layers: Layers,
    imports: Arc<Imports>,
    threads: usize,
}

impl Trees {
    /// Returns the trees of a root; blobs that it lacks come from `imports`, and `threads` unpack.
    pub(crate) fn new(
        root: Arc<Root>,
        layers: Layers,
        imports: Arc<Imports>,
        threads: usize,
    ) -> Trees {
        Trees { root, layers, imports, threads }
    }

    /// Returns the trees of a stack, bottom first. `say` is told what is unpacked.
    pub(crate) fn of(
        &self,
        stack: &[StackedLayer],
        say: &Say<'_>,
    ) -> Result<Vec<LayerDir>, TreesError> {
        let mut missing = Vec::new();
        for layer in stack {
            if self.find(layer)?.is_none() {
                missing.push(layer);
            }
        }
        if missing.len() > 1 && self.threads > 1 {
            self.unpack_at_once(&missing, say);
        }
        let mut trees: Vec<LayerDir> = Vec::with_capacity(stack.len());
        for layer in stack {
            trees.push(self.above(layer, &trees, say)?);
        }
        Ok(trees)
    }

    /// Returns what a stack shows. A layer whose table nobody recorded is read once for it.
    pub(crate) fn view(&self, stack: &[StackedLayer], say: &Say<'_>) -> Result<View, TreesError> {
        stack.iter().map(|layer| self.table(layer, say)).collect()
    }

    fn table(&self, layer: &StackedLayer, say: &Say<'_>) -> Result<Arc<Table>, TreesError> {
        let (tables, diff_id) = (self.layers.tables(), layer.diff_id());
        if let Some(table) = tables.find(diff_id)? {
            return Ok(table);
        }
        if let Some(blob) = layer.blob() {
            say(&format!("reading {}", blob.digest));
            return Ok(tables.scan(diff_id, self.open(blob, say)?, self.threads)?);
        }
        // Without a blob it is ours, and its tree says all.
        let tree = self.find(layer)?.ok_or_else(|| TreesError::Lost(diff_id.clone()))?;
        Ok(tables.read_tree(diff_id, &tree.tree())?)
    }

    /// Reports whether a layer can be had as a tree without unpacking it.
    pub(crate) fn find(&self, layer: &StackedLayer) -> Result<Option<LayerDir>, TreesError> {
        let mut tree = layer.tree();
        if tree.is_none() {
            *tree = self.layers.find(layer.diff_id(), layer.chain_id())?;
        }
        Ok(tree.clone())
    }

    /// Unpacks what needs nothing of what lies beneath. Whatever fails is tried again, in its place.
    fn unpack_at_once(&self, missing: &[&StackedLayer], say: &Say<'_>) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut tree = layer.tree();
                if tree.is_some() {
                    continue;
                }
                // Alone a layer has the name of its chain only if it needs more than itself.
                if self.unpack(layer, &[], 1, say).is_ok() {
                    let found = self.layers.find(layer.diff_id(), layer.chain_id());
                    *tree = found.ok().flatten();
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(missing.len()) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// Returns the tree of a layer above others.
    fn above(
        &self,
        layer: &StackedLayer,
        below: &[LayerDir],
        say: &Say<'_>,
    ) -> Result<LayerDir, TreesError> {
        let mut tree = layer.tree();
        if let Some(tree) = &*tree {
            return Ok(tree.clone());
        }
        // Somebody else may have been faster.
        let found = self.layers.find(layer.diff_id(), layer.chain_id())?;
        let found = match found {
            Some(found) => found,
            None => self.unpack(layer, below, self.threads, say)?,
        };
        *tree = Some(found.clone());
        Ok(found)
    }

    fn unpack(
        &self,
        layer: &StackedLayer,
        lowers: &[LayerDir],
        threads: usize,
        say: &Say<'_>,
    ) -> Result<LayerDir, TreesError> {
        let Some(blob) = layer.blob() else {
            return Err(TreesError::Lost(layer.diff_id().clone()));
        };
        say(&format!("unpacking {}", blob.digest));
        Ok(self.layers.unpack(Unpack {
            blob: self.open(blob, say)?,
            diff_id: layer.diff_id(),
            lowers,
            threads,
            limits: Limits::default(),
            decompress: DecompressLimits::default(),
        })?)
    }

    /// Opens a blob of the store; one that is not there is brought from where it can be had.
    pub(crate) fn open(
        &self,
        blob: &Descriptor,
        say: &Say<'_>,
    ) -> Result<fs_err::File, TreesError> {
        let opened = || self.root.store().open_blocking(&blob.digest);
        let failed = |source| TreesError::Blob { digest: blob.digest.clone(), source };
        if let Some(there) = opened().map_err(failed)? {
            return Ok(there.into_file());
        }
        say(&format!("fetching {}", blob.digest));
        self.imports.bring(&self.root, self.layers.tables(), self.threads, blob)?;
        let brought = opened().map_err(failed)?;
        Ok(brought.ok_or_else(|| TreesError::Gone(blob.digest.clone()))?.into_file())
    }
}
