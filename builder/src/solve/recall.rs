//! Looking for what was made before.
//!
//! A record promises nothing: its layer is held first, as a blob or as a tree, and where neither is
//! there the record is as good as none. Nor does the cache ever fail a build: what cannot be read is
//! a miss, and a warning.

use std::error::Error;

use boatyard_oci::DiffId;

use super::{LayerBlob, LayerStack, StackedLayer};
use crate::build::Builder;
use crate::cache::{CacheError, Key, Lookup, NamedLayer, Record};
use crate::pack;

/// What there is of an earlier run of a step.
#[derive(Debug)]
pub(crate) enum Recalled {
    /// Its record, and its layer, which is held.
    Hit(Box<Record>, StackedLayer),
    /// Its record, but not its layer any more.
    Lost,
    /// Nothing.
    Miss,
}

impl Builder<'_> {
    /// Looks for an earlier run of a step above a stack.
    pub(crate) fn recall(
        &self,
        key: &Key,
        stage: usize,
        stack: &LayerStack,
        say: &dyn Fn(&str),
    ) -> Recalled {
        let own = if self.tools.dry { None } else { self.record(key) };
        if let Some(record) = &own
            && let Some(layer) = self.layer_of(record, stage, stack, say)
        {
            return Recalled::Hit(record.clone(), layer);
        }
        if let Some(shared) = self.tools.imports.find(key) {
            let record = Box::new(shared.record.clone());
            let layer = self.layer_of(&record, stage, stack, say);
            let layer = layer.or_else(|| self.imported(&record, stage, stack, say));
            if let Some(layer) = layer {
                return Recalled::Hit(record, layer);
            }
        }
        if own.is_some() { Recalled::Lost } else { Recalled::Miss }
    }

    /// Returns the layer of a record, as this machine has it.
    fn layer_of(
        &self,
        record: &Record,
        stage: usize,
        stack: &LayerStack,
        say: &dyn Fn(&str),
    ) -> Option<StackedLayer> {
        let named = self.or_warn(self.cache.layer(&record.layer.content, self.times)).flatten();
        let here = named.and_then(|diff_id| self.hold(&diff_id, stage, stack));
        here.or_else(|| self.restamped(record, stage, stack, say))
    }

    /// Returns the layer of a record that was imported. Where its times are those of this build, no
    /// byte of it is needed.
    fn imported(
        &self,
        record: &Record,
        stage: usize,
        stack: &LayerStack,
        say: &dyn Fn(&str),
    ) -> Option<StackedLayer> {
        let shared = self.tools.imports.layer(&record.layer.diff_id)?;
        if shared.times == self.times {
            return self.hold(&shared.diff_id, stage, stack);
        }
        let named = NamedLayer {
            times: shared.times,
            diff_id: shared.diff_id.clone(),
            chosen: shared.chosen.clone(),
        };
        self.restamped_from(&named, record, stage, stack, say)
    }

    /// Returns the record of a key, whether or not its layer can be had.
    pub(crate) fn record(&self, key: &Key) -> Option<Box<Record>> {
        match self.or_warn(self.cache.find(key))? {
            Lookup::Hit(record) => Some(record),
            Lookup::Miss => None,
            Lookup::Damaged { path, reason } => {
                self.tools.progress.warning(&format!(
                    "the cache record {} is damaged ({reason}): it is removed, and its step runs again",
                    path.display()
                ));
                None
            }
        }
    }

    /// Holds a layer that is to lie on top of a stack; nothing if it cannot be had.
    pub(crate) fn hold(
        &self,
        diff_id: &DiffId,
        stage: usize,
        stack: &LayerStack,
    ) -> Option<StackedLayer> {
        let (layer, there) = self.look(diff_id, stack)?;
        self.put_in_image(stage, stack, &layer, there);
        Some(layer)
    }

    /// Holds a layer that nothing says to be in the image yet, with the blob that the image wants if
    /// that is there.
    pub(super) fn look(
        &self,
        diff_id: &DiffId,
        stack: &LayerStack,
    ) -> Option<(StackedLayer, Option<LayerBlob>)> {
        let chain_id = stack.chain_with(diff_id);
        let wanted = pack::encoding(self.request.form().compression);
        let mut encodings = self.or_warn(self.cache.encodings(diff_id))?;
        encodings.sort_by_key(|(name, _)| *name != wanted);
        for (name, blob) in encodings {
            let held = self.tools.root.store().hold_blocking(&blob.digest, Some(&self.tools.lease));
            if matches!(held, Ok(Some(_))) {
                let there = (name == wanted).then(|| LayerBlob::There(Box::new(blob.clone())));
                let layer = StackedLayer::new(diff_id.clone(), chain_id, None, Some(blob));
                return Some((layer, there));
            }
        }
        let layer = StackedLayer::new(diff_id.clone(), chain_id.clone(), None, None);
        if self.trees.find(&layer).ok().flatten().is_some() {
            return Some((layer, None));
        }
        let shared = self.tools.imports.layer(diff_id)?;
        let blob = shared.blobs.iter().find(|blob| blob.encoding == wanted);
        let there = blob.map(|blob| LayerBlob::There(Box::new(blob.blob.clone())));
        let blob = blob.or(shared.blobs.first())?.blob.clone();
        Some((StackedLayer::new(diff_id.clone(), chain_id, None, Some(blob)), there))
    }

    /// Returns what the cache answered; a failure is told, the first of a build, and is no answer.
    pub(crate) fn or_warn<T>(&self, answer: Result<T, CacheError>) -> Option<T> {
        answer
            .map_err(|error| {
                if self.is_first_cache_failure() {
                    let mut reason: &dyn Error = &error;
                    while let Some(deeper) = reason.source() {
                        reason = deeper;
                    }
                    self.tools.progress.warning(&format!("{error}: {reason}"));
                }
            })
            .ok()
    }
}
