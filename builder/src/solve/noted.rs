//! What a build solved, noted so that other machines can be told.

use std::sync::PoisonError;

use super::{LayerStack, Solved, StackedLayer};
use crate::build::Builder;
use crate::cache::{CacheId, Key, Record};
use crate::stage::{StageState, Step};

/// A step that was found, or that ran.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    /// What it is found by.
    pub(crate) keys: Vec<Key>,
    pub(crate) record: Record,
    /// The stack with its layer on top.
    pub(crate) stack: Vec<StackedLayer>,
    /// The stage's layers are in the image.
    pub(crate) in_image: bool,
}

impl Step<'_> {
    /// Puts the layer of an earlier run on the stack, which was found by its definition.
    pub(crate) fn reuse_defined(
        &self,
        state: &mut StageState,
        definition: Option<Key>,
        record: &Record,
        layer: StackedLayer,
    ) -> Solved {
        self.note(&[definition], record, state, &layer);
        self.reuse(state, None, record, layer)
    }

    /// Notes a step, if anybody is to be told.
    pub(super) fn note(
        &self,
        keys: &[Option<Key>],
        record: &Record,
        below: &StageState,
        layer: &StackedLayer,
    ) {
        let builder = self.builder;
        if builder.tools.tells.is_none() && !builder.tools.inline {
            return;
        }
        let mut record = record.clone();
        record.layer.diff_id = layer.diff_id().clone();
        record.layer.chain_id = layer.chain_id().clone();
        let stack = stack_with(&below.stack, layer);
        let in_image = builder.is_in_image(self.stage.index);
        let keys = keys.iter().copied().flatten().collect();
        let mut noted = builder.shared.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(Noted { keys, record, stack, in_image });
    }
}

impl Builder<'_> {
    /// Notes that a step mounts a cache.
    pub(crate) fn note_mount(&self, id: &CacheId) {
        let mut mounted = self.shared.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.insert(id.name(), id.clone());
    }
}

fn stack_with(below: &LayerStack, layer: &StackedLayer) -> Vec<StackedLayer> {
    let mut stack = below.layers().to_vec();
    stack.push(layer.clone());
    stack
}
