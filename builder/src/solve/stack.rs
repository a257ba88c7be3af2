//! Stacks of layers that are known before their bytes are had.
//!
//! A layer of a stack has names: its diff ID, the chain ID of the stack up to it, and, if a step
//! made it, its content ID. Its bytes are a tree, or a blob, or both. Either is had when somebody
//! asks: [`Trees`](super::Trees) unpacks, and [`Packer`](crate::pack::Packer) packs. Stages that
//! share a layer share what was had of it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use boatyard_oci::{ChainId, Descriptor, DiffId};

use super::StackId;
use crate::base::BaseImage;
use crate::cache::{Below, Ground};
use crate::layer::ContentId;
use crate::pack::Packing;
use crate::snapshot::LayerDir;

/// A stack of layers, bottom first.
#[derive(Clone, Debug)]
pub(crate) struct LayerStack {
    id: StackId,
    ground: Ground,
    layers: Vec<StackedLayer>,
}

/// A layer of a stack. Clones are the same layer.
#[derive(Clone, Debug)]
pub(crate) struct StackedLayer(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    diff_id: DiffId,
    chain_id: ChainId,
    /// A base image brought it: its archive is whatever somebody wrote.
    is_base: bool,
    /// What it can be unpacked from.
    blob: Option<Descriptor>,
    tree: Mutex<Option<LayerDir>>,
    /// What stands for it in an image.
    in_image: OnceLock<LayerBlob>,
}

/// The blob of a layer as an image has it.
#[derive(Clone, Debug)]
pub(crate) enum LayerBlob {
    /// It is in the store.
    There(Box<Descriptor>),
    /// It is being packed.
    Packing(Packing),
}

impl LayerStack {
    /// Returns the stack without layers.
    pub(crate) fn scratch() -> LayerStack {
        let ground =
            Ground { base: "scratch".to_owned(), base_id: String::new(), steps: Vec::new() };
        LayerStack { id: StackId::scratch(), ground, layers: Vec::new() }
    }

    /// Returns the stack of an image whose blobs are in the store.
    pub(crate) fn image(base: &BaseImage) -> LayerStack {
        let mut stack = LayerStack::scratch();
        stack.ground.base = base.name.familiar();
        let mut chain = None;
        for (blob, diff_id) in base.image.layers() {
            let chain_id = chain_above(chain.as_ref(), diff_id);
            let there = LayerBlob::There(Box::new(blob.clone()));
            stack.layers.push(StackedLayer(Arc::new(Facts {
                diff_id: diff_id.clone(),
                chain_id: chain_id.clone(),
                is_base: true,
                blob: Some(blob.clone()),
                tree: Mutex::new(None),
                in_image: OnceLock::from(there),
            })));
            chain = Some(chain_id);
        }
        if let Some(chain) = chain {
            stack.id = StackId::image(&chain);
            stack.ground.base_id = chain.to_string();
        }
        stack
    }

    /// Returns what identifies the stack in a key.
    pub(crate) fn id(&self) -> StackId {
        self.id
    }

    /// Returns what lies below a step on top of this stack.
    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Returns the layers, bottom first.
    pub(crate) fn layers(&self) -> &[StackedLayer] {
        &self.layers
    }

    /// Returns the chain ID that a layer on top of this stack has.
    pub(crate) fn chain_with(&self, diff_id: &DiffId) -> ChainId {
        chain_above(self.layers.last().map(|top| &top.0.chain_id), diff_id)
    }

    /// Puts the layer of a step on top.
    pub(crate) fn push(&mut self, layer: StackedLayer, content: ContentId, step: String) {
        self.id = self.id.push(&content);
        self.ground.steps.push(Below { step, content });
        self.layers.push(layer);
    }
}

impl StackedLayer {
    /// Returns a layer that is had as a tree, or from a blob of the store.
    pub(crate) fn new(
        diff_id: DiffId,
        chain_id: ChainId,
        tree: Option<LayerDir>,
        blob: Option<Descriptor>,
    ) -> StackedLayer {
        let (tree, in_image) = (Mutex::new(tree), OnceLock::new());
        StackedLayer(Arc::new(Facts { diff_id, chain_id, is_base: false, blob, tree, in_image }))
    }

    /// Says whether a base image brought it.
    pub(crate) fn is_base(&self) -> bool {
        self.0.is_base
    }

    /// Returns its diff ID.
    pub(crate) fn diff_id(&self) -> &DiffId {
        &self.0.diff_id
    }

    /// Returns the chain ID of the stack up to this layer.
    pub(crate) fn chain_id(&self) -> &ChainId {
        &self.0.chain_id
    }

    /// Returns the blob that it can be unpacked from.
    pub(crate) fn blob(&self) -> Option<&Descriptor> {
        self.0.blob.as_ref()
    }

    /// Returns its tree, if that was had before. Who holds the lock may unpack it: others wait.
    pub(super) fn tree(&self) -> MutexGuard<'_, Option<LayerDir>> {
        self.0.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what stands for it in an image; nothing if its stage is in none.
    pub(crate) fn in_image(&self) -> Option<&LayerBlob> {
        self.0.in_image.get()
    }

    /// Says what stands for it in an image, unless that is known.
    pub(crate) fn set_in_image(&self, blob: impl FnOnce() -> LayerBlob) {
        self.0.in_image.get_or_init(blob);
    }
}

fn chain_above(below: Option<&ChainId>, diff_id: &DiffId) -> ChainId {
    match below {
        Some(below) => below.push(diff_id),
        None => ChainId::of(std::slice::from_ref(diff_id)).expect("one layer is a chain"),
    }
}
