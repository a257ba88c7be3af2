//! Layers whose times are another epoch's: written again, without their step.
//!
//! A record says what a step made, whatever `SOURCE_DATE_EPOCH` was then. Where its layer is here
//! under another time policy only, the bytes are read once, each time becomes what it is under this
//! build's, and what comes out is what the step would have made: content ID and epoch decide a
//! layer's bytes ([`crate::layer::times`]). A layer that is in no image stays as it is.

use std::error::Error;

use thiserror::Error;

use super::{LayerBlob, LayerStack, StackedLayer, TreesError};
use crate::build::Builder;
use crate::cache::{NamedLayer, Record, TimePolicy};
use crate::layer::rewrite::{RewriteError, rewrite};
use crate::layer::{
    Chosen, ContentTimes, DecompressLimits, Decompressor, Restamp, WriteError, WriteOptions,
};
use crate::pack::PackError;

/// Why a layer could not be written with other times. The step runs then.
#[derive(Debug, Error)]
enum RestampError {
    #[error("it cannot be found")]
    Trees(#[from] TreesError),
    #[error("it cannot be unpacked")]
    Unpack(#[source] std::io::Error),
    #[error("it cannot be read")]
    Rewrite(#[from] RewriteError),
    #[error("its tree cannot be read")]
    Tree(#[from] WriteError),
    #[error("it cannot be packed")]
    Pack(#[from] PackError),
    #[error("its content is not what its name says")]
    Content,
}

impl Builder<'_> {
    /// Returns the layer of a record as this build's time policy has it, from one that another
    /// policy has. `say` is told when it is written again.
    pub(super) fn restamped(
        &self,
        record: &Record,
        stage: usize,
        stack: &LayerStack,
        say: &dyn Fn(&str),
    ) -> Option<StackedLayer> {
        let others = self.or_warn(self.cache.layers(&record.layer.content))?;
        let mut others = others.iter().filter(|named| named.times != self.times);
        others.find_map(|named| self.restamped_from(named, record, stage, stack, say))
    }

    /// Returns the layer of a record as this build's time policy has it, from one of another's.
    pub(super) fn restamped_from(
        &self,
        named: &NamedLayer,
        record: &Record,
        stage: usize,
        stack: &LayerStack,
        say: &dyn Fn(&str),
    ) -> Option<StackedLayer> {
        if !self.is_in_image(stage) {
            return self.look(&named.diff_id, stack).map(|(layer, _)| layer);
        }
        let restamp = self.restamp(named, record)?;
        let (found, _) = self.look(&named.diff_id, stack)?;
        say("setting its times to those of this build");
        match self.write_again(&found, named, restamp, record, stack) {
            Ok((layer, there)) => {
                self.put_in_image(stage, stack, &layer, Some(there));
                Some(layer)
            }
            Err(error) => {
                self.tools.progress.warning(&cannot_restamp(named, &error));
                None
            }
        }
    }

    /// Returns what becomes of the times of a layer under this build's policy; nothing where that
    /// cannot be told, since what a context's files had is gone.
    fn restamp(&self, named: &NamedLayer, record: &Record) -> Option<Restamp> {
        match self.times {
            TimePolicy::Epoch(seconds) => Some(Restamp::epoch(seconds)),
            TimePolicy::AsMade if named.chosen == Chosen::None => None,
            TimePolicy::AsMade => Some(Restamp::made_at(record.created.as_second())),
        }
    }

    fn write_again(
        &self,
        found: &StackedLayer,
        named: &NamedLayer,
        restamp: Restamp,
        record: &Record,
        stack: &LayerStack,
    ) -> Result<(StackedLayer, LayerBlob), RestampError> {
        let _permit = self.cores.take();
        let compression = self.request.form().compression;
        let mut sink = self.packer.sink(compression)?;
        let times = ContentTimes::Noted(named.chosen.clone());
        let options = WriteOptions { times, restamp };
        let (written, table) = match found.blob() {
            Some(blob) => {
                let blob = self.trees.open(blob, &|_| {})?;
                let threads = self.tools.threads;
                let plain = Decompressor::new(blob, threads, DecompressLimits::default());
                let plain = plain.map_err(RestampError::Unpack)?;
                let (_, written, table) = rewrite(plain, &mut sink, options)?;
                (written, table)
            }
            None => {
                let tree = self.trees.find(found)?;
                let tree = tree.ok_or_else(|| TreesError::Lost(named.diff_id.clone()))?;
                (tree.archive(&mut sink, options)?, None)
            }
        };
        let content = &record.layer.content;
        if written.content_id != *content {
            return Err(RestampError::Content);
        }
        let blob = self.packer.land(sink, &written)?;
        if let Some(table) = table {
            self.layers.tables().put(&written.diff_id, table);
        }
        let diff_id = &written.diff_id;
        self.or_warn(self.cache.readopt(content, self.times, diff_id, &written.chosen));
        self.or_warn(self.cache.forget_epochs(content, self.times));
        let chain_id = stack.chain_with(diff_id);
        let there = LayerBlob::There(Box::new(blob.clone()));
        Ok((StackedLayer::new(written.diff_id, chain_id, None, Some(blob)), there))
    }
}

fn cannot_restamp(named: &NamedLayer, error: &RestampError) -> String {
    let mut text = format!(
        "the layer {} of another epoch cannot be used, so its step runs again: {error}",
        named.diff_id
    );
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(&format!(": {deeper}"));
        cause = deeper.source();
    }
    text
}
