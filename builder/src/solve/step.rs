//! One step: found, or run and recorded.

use std::ops::ControlFlow;
use std::time::Instant;

use boatyard_oci::{Descriptor, DiffId, Digest};
use jiff::Timestamp;

use super::explain::{Earlier, Explanation, Why};
use super::recall::Recalled;
use super::{LayerBlob, LayerStack, StackedLayer};
use crate::attest::witness::StepSeen;
use crate::build::{StepFailure, Tools};
use crate::cache::{Input, Key, Parts, Record, RecordedLayer, StepLock};
use crate::execute::Outcome;
use crate::layer::{ContentId, Written};
use crate::progress::{StepEnd, StepId};
use crate::snapshot::LayerDir;
use crate::stage::{StageState, Step, StepResult};

/// What decides whether a step has run before.
#[derive(Debug)]
pub(crate) struct Question {
    /// The parts of its key.
    pub(crate) parts: Parts,
    /// A key that needs no bytes, where the parts do.
    pub(crate) definition: Option<Key>,
    /// What it copies.
    pub(crate) inputs: Vec<Input>,
}

impl From<Parts> for Question {
    fn from(parts: Parts) -> Question {
        Question { parts, definition: None, inputs: Vec::new() }
    }
}

/// What a step left: a layer that is not kept yet. Dropped, it is gone.
pub(crate) struct Made<'a> {
    /// What the layer is.
    pub(crate) written: Written,
    /// Keeps it.
    pub(crate) keep: Keep<'a>,
}

/// Keeps a layer that was made.
pub(crate) type Keep<'a> = Box<dyn FnOnce(&Written) -> StepResult<Kept> + 'a>;

/// A layer that is kept, as one or the other.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its tree.
    pub(crate) tree: Option<LayerDir>,
    /// Its blob, packed as the image wants it.
    pub(crate) blob: Option<Descriptor>,
}

/// How a step was solved. Its layer is on the stack.
#[derive(Debug)]
pub(crate) struct Solved {
    /// Whether it ran.
    pub(crate) end: StepEnd,
    /// When its layer was made.
    pub(crate) created: Timestamp,
}

impl Step<'_> {
    /// Puts the layer of a step on the stack: that of an earlier build if there is one, else the one
    /// that `make` makes.
    pub(crate) fn solve<'m>(
        &'m self,
        state: &mut StageState,
        id: StepId,
        question: &Question,
        make: impl FnOnce(&StageState) -> StepResult<Made<'m>>,
    ) -> StepResult<Solved> {
        let solved = self.find_or_make(state, id, question, make)?;
        self.builder.shared.seen.add(StepSeen {
            platform: self.builder.platform.to_string(),
            stage: self.stage.index,
            ordinal: self.ordinal,
            stage_name: self.stage.name.clone(),
            line: self.line(),
            text: self.planned.instruction.text.clone(),
            layer: StepSeen::layer(state.stack.layers().last().map(StackedLayer::diff_id)),
        });
        Ok(solved)
    }

    fn find_or_make<'m>(
        &'m self,
        state: &mut StageState,
        id: StepId,
        question: &Question,
        make: impl FnOnce(&StageState) -> StepResult<Made<'m>>,
    ) -> StepResult<Solved> {
        let key = question.parts.key();
        let may_reuse = self.builder.request.reuse.allows(self.stage);
        if may_reuse && let Recalled::Hit(record, layer) = self.recall(&key, state, id) {
            return Ok(self.reuse(state, question.definition, &record, layer));
        }
        if self.builder.tools.dry {
            self.explain_failed(state, question, may_reuse, false);
            return Err(self.cancelled());
        }
        let _lock = self.lock(&key, id)?;
        // Who had the lock may have run the step.
        let made_here = self.builder.has_made(&key);
        let mut is_lost = false;
        if may_reuse || made_here {
            match self.recall(&key, state, id) {
                Recalled::Hit(record, layer) => {
                    return Ok(self.reuse(state, question.definition, &record, layer));
                }
                Recalled::Lost => is_lost = true,
                Recalled::Miss => {}
            }
        }
        let permit = self.builder.cores.take();
        self.check_stopped()?;
        let (created, began) = ((self.builder.tools.now)(), Instant::now());
        let made = match make(state) {
            Ok(made) => made,
            Err(failure) => {
                if failure.outcome != Some(Outcome::Cancelled) {
                    self.explain_failed(state, question, may_reuse, is_lost);
                }
                return Err(failure);
            }
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        drop(permit);
        let layer = RecordedLayer {
            content: made.written.content_id,
            diff_id: made.written.diff_id.clone(),
            chain_id: state.stack.chain_with(&made.written.diff_id),
            size: made.written.size,
        };
        let stacked = self.keep(&state.stack, made)?;
        let mut record = self.record(state, question, layer, created, took_ms);
        record.layer.diff_id = stacked.diff_id().clone();
        record.layer.chain_id = stacked.chain_id().clone();
        let nearest = self.nearest(&record);
        self.explain(may_reuse, is_lost, nearest.as_ref(), &record);
        // What was made again is as old as what it was made of first.
        let before = self.builder.record(&key).map(|record| *record).or(nearest);
        if let Some(before) = before.filter(|before| is_same(before, &record)) {
            record.created = before.created;
        }
        self.put(&key, question.definition, &record);
        let created = record.created;
        self.note(&[Some(key), question.definition], &record, state, &stacked);
        state.stack.push(stacked, record.layer.content, self.place());
        Ok(Solved { end: StepEnd::Done, created })
    }

    /// Looks for an earlier run.
    pub(crate) fn recall(&self, key: &Key, state: &StageState, id: StepId) -> Recalled {
        let say = |text: &str| self.builder.tools.progress.status(id, text);
        self.builder.recall(key, self.stage.index, &state.stack, &say)
    }

    /// Puts an earlier run's layer on the stack. `definition` shall find it next time, without a
    /// byte.
    pub(crate) fn reuse(
        &self,
        state: &mut StageState,
        definition: Option<Key>,
        record: &Record,
        layer: StackedLayer,
    ) -> Solved {
        let key = record.key();
        // What was imported becomes this machine's own when its layer comes.
        if definition.is_some() && self.builder.tools.imports.find(&key).is_none() {
            self.put(&key, definition, record);
        }
        self.note(&[Some(key), definition], record, state, &layer);
        state.stack.push(layer, record.layer.content, self.place());
        Solved { end: StepEnd::Cached, created: record.created }
    }

    /// Takes the right to run the step, and says so where somebody else is at it.
    fn lock(&self, key: &Key, id: StepId) -> StepResult<Option<StepLock>> {
        let mut is_told = false;
        let mut waiting = || {
            if !is_told {
                let text = "waiting: another build, or another stage, runs this step";
                self.builder.tools.progress.status(id, text);
                is_told = true;
            }
            match self.stages.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        match self.builder.or_warn(self.builder.cache.lock_step(key, &mut waiting)) {
            Some(Some(lock)) => Ok(Some(lock)),
            Some(None) => Err(self.cancelled()),
            // Without a lock a step may run twice, no more.
            None => Ok(None),
        }
    }

    fn check_stopped(&self) -> StepResult<()> {
        if self.stages.is_stopped() { Err(self.cancelled()) } else { Ok(()) }
    }

    /// Returns the failure of a step that was not to run any more.
    pub(crate) fn cancelled(&self) -> StepFailure {
        let mut failure = StepFailure::new(self.whole("the build was cancelled"));
        failure.outcome = Some(Outcome::Cancelled);
        failure
    }

    /// Keeps what was made, or takes the first layer of the same content in its place.
    fn keep(&self, stack: &LayerStack, made: Made<'_>) -> StepResult<StackedLayer> {
        let builder = self.builder;
        let Made { written, keep } = made;
        let (content, diff_id) = (&written.content_id, &written.diff_id);
        let (times, chosen) = (builder.times, &written.chosen);
        let first = builder.or_warn(builder.cache.adopt(content, times, diff_id, chosen));
        if let Some(first) = first.filter(|first| first != diff_id) {
            if let Some(layer) = builder.hold(&first, self.stage.index, stack) {
                return Ok(layer);
            }
            builder.or_warn(builder.cache.readopt(content, times, diff_id, chosen));
        }
        let Kept { tree, blob } = keep(&written)?;
        let chain_id = stack.chain_with(diff_id);
        let there = blob.clone().map(|blob| LayerBlob::There(Box::new(blob)));
        let layer = StackedLayer::new(written.diff_id, chain_id, tree, blob);
        builder.put_in_image(self.stage.index, stack, &layer, there);
        builder.keeps_tree(self.stage.index);
        Ok(layer)
    }

    fn record(
        &self,
        state: &StageState,
        question: &Question,
        layer: RecordedLayer,
        created: Timestamp,
        took_ms: u64,
    ) -> Record {
        Record {
            parts: question.parts.clone(),
            dockerfile: self.builder.request.dockerfile_path.clone(),
            stage: self.stage.name.clone(),
            ordinal: self.ordinal,
            text: self.planned.instruction.text.clone(),
            line: self.line(),
            ground: state.stack.ground().clone(),
            inputs: question.inputs.clone(),
            layer,
            created,
            took_ms,
        }
    }

    fn put(&self, key: &Key, definition: Option<Key>, record: &Record) {
        let keys: Vec<Key> = std::iter::once(*key).chain(definition).collect();
        self.builder.or_warn(self.builder.cache.put(&keys, record));
        self.builder.note_made(&keys);
    }

    fn explain(&self, may_reuse: bool, is_lost: bool, nearest: Option<&Record>, now: &Record) {
        let Some(explain) = self.builder.tools.explain else { return };
        let why = match nearest {
            _ if !may_reuse => Why::NotReused,
            _ if is_lost => Why::Lost,
            None => Why::First,
            Some(earlier) => Why::Differs {
                earlier: Earlier::from(earlier),
                differences: self.builder.cache.differences(earlier, now),
            },
        };
        explain(Explanation { step: self.name.clone(), line: now.line, why });
    }

    /// Says why a step ran that failed.
    fn explain_failed(
        &self,
        state: &StageState,
        question: &Question,
        may_reuse: bool,
        is_lost: bool,
    ) {
        if self.builder.tools.explain.is_none() {
            return;
        }
        // What it would have made is not compared.
        let content = ContentId::from_hasher(&blake3::Hasher::new());
        let diff_id = DiffId::new(Digest::sha256(b""));
        let chain_id = state.stack.chain_with(&diff_id);
        let layer = RecordedLayer { content, diff_id, chain_id, size: 0 };
        let record = self.record(state, question, layer, (self.builder.tools.now)(), 0);
        let nearest = self.nearest(&record);
        self.explain(may_reuse, is_lost, nearest.as_ref(), &record);
    }

    /// Returns the earlier record that says most about why a step was not found.
    fn nearest(&self, record: &Record) -> Option<Record> {
        let Tools { dry, imports, .. } = self.builder.tools;
        let own = (!dry).then(|| self.builder.cache.nearest(record)).flatten();
        own.or_else(|| imports.nearest(record))
    }

    /// Returns the step as those above it name it.
    fn place(&self) -> String {
        let text = &self.planned.instruction.text;
        format!("{}:{} {text}", self.builder.request.dockerfile_path, self.line())
    }

    pub(crate) fn line(&self) -> u32 {
        let span = match self.planned.is_trigger {
            true => self.stage.from,
            false => self.planned.instruction.span,
        };
        let line = self.builder.request.dockerfile.source.line_of(span.start);
        u32::try_from(line).unwrap_or(u32::MAX)
    }
}

/// Says whether a step made again what it made before.
fn is_same(before: &Record, now: &Record) -> bool {
    before.text == now.text && before.layer.content == now.layer.content
}
