//! The files that mounts show, and that a new cache begins with.
//!
//! What counts for a key is their content, as for a COPY; whence they come does not. A stage or an
//! image is first looked for by its layers, which takes no byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use super::Wanted;
use crate::build::StepFailure;
use crate::cache::{Input, Key, Parts};
use crate::contents::View;
use crate::contents::view::OpenFile;
use crate::copy::{self, CopyError, Selection, Source};
use crate::dockerfile::mount::MountKind;
use crate::layer::EntryPath;
use crate::plan::{CopyFrom, MountFrom};
use crate::progress::StepId;
use crate::solve::Question;
use crate::stage::origin::Origin;
use crate::stage::{StageState, Step, StepResult};

/// The states of the stages that a step takes files from.
pub(in crate::stage) type Needed = BTreeMap<usize, StageState>;

/// Files of a mount: a part of the context, of a stage or of an image.
pub(in crate::stage) struct Shown {
    /// Which of the mounts that are wanted.
    pub(super) mount: usize,
    pub(super) origin: Origin,
    /// The path in it.
    pub(super) path: String,
}

/// What was selected, beside each of what is shown. That of stages and images comes second, for it is
/// known by its layers, too.
pub(in crate::stage) struct Selected<'s>(pub(super) Vec<Option<Selection<'s>>>);

/// What it takes to read stages and images, beside each of what is shown.
pub(in crate::stage) struct Readers<'s> {
    views: Vec<Option<View>>,
    openers: Vec<Box<Opener<'s>>>,
}

type Opener<'s> = dyn Fn(usize, &EntryPath) -> io::Result<File> + Sync + 's;

impl Step<'_> {
    /// Waits for the stages whose files mounts show.
    pub(in crate::stage) fn needed(&self) -> StepResult<Needed> {
        let mut needed = Needed::new();
        for from in &self.planned.mounts_from {
            if let MountFrom::Named(CopyFrom::Stage(index)) = from {
                let state = self.stages.wait(*index).map_err(|_| self.cancelled())?;
                needed.insert(*index, state);
            }
        }
        Ok(needed)
    }

    /// Finds which files are shown.
    pub(in crate::stage) fn shown(
        &self,
        wanted: &[Wanted<'_>],
        needed: &Needed,
    ) -> StepResult<Vec<Shown>> {
        let mut shown = Vec::new();
        for (mount, wanted) in wanted.iter().enumerate() {
            let (MountKind::Bind { source, .. } | MountKind::Cache { source, .. }) = &wanted.kind
            else {
                continue;
            };
            let from = match wanted.from {
                MountFrom::Named(from) => from,
                MountFrom::Unsaid if matches!(wanted.kind, MountKind::Bind { .. }) => {
                    &CopyFrom::Context
                }
                MountFrom::Unsaid | MountFrom::Nothing => continue,
            };
            let stage = match from {
                CopyFrom::Stage(index) => needed.get(index).cloned(),
                _ => None,
            };
            let origin = self.origin_of(Some(from), stage)?;
            shown.push(Shown { mount, origin, path: source.clone() });
        }
        Ok(shown)
    }

    /// Selects what is shown of contexts.
    pub(in crate::stage) fn select_contexts<'s>(
        &'s self,
        wanted: &[Wanted<'_>],
        shown: &'s [Shown],
    ) -> StepResult<Selected<'s>> {
        let select = |shown: &'s Shown| match &shown.origin {
            Origin::Stack { .. } => Ok(None),
            Origin::Context { name } => {
                self.select(wanted, shown, self.context(name.as_deref())?).map(Some)
            }
        };
        shown.iter().map(select).collect::<StepResult<_>>().map(Selected)
    }

    /// Returns what reads stages and images.
    pub(in crate::stage) fn readers<'s>(
        &'s self,
        shown: &'s [Shown],
        id: StepId,
    ) -> StepResult<Readers<'s>> {
        let views = shown.iter().map(|shown| self.view_of(&shown.origin, id));
        let open = |shown: &'s Shown| -> Box<Opener<'s>> {
            Box::new(self.opener(shown.origin.stack(), id))
        };
        let openers = shown.iter().map(open).collect();
        Ok(Readers { views: views.collect::<StepResult<_>>()?, openers })
    }

    /// Selects what is shown of stages and images.
    pub(in crate::stage) fn select_stacks<'s>(
        &'s self,
        wanted: &[Wanted<'_>],
        shown: &'s [Shown],
        readers: &'s Readers<'s>,
        selected: &mut Selected<'s>,
    ) -> StepResult<()> {
        for (at, place) in selected.0.iter_mut().enumerate() {
            let Origin::Stack { name, .. } = &shown[at].origin else { continue };
            let Some(view) = &readers.views[at] else { continue };
            let open: &OpenFile<'_> = &*readers.openers[at];
            let source = Source::Stack { view, name, open };
            *place = Some(self.select(wanted, &shown[at], source)?);
        }
        Ok(())
    }

    fn select<'s>(
        &self,
        wanted: &[Wanted<'_>],
        shown: &Shown,
        source: Source<'s>,
    ) -> StepResult<Selection<'s>> {
        let threads = self.builder.tools.threads;
        copy::select_path(source, &shown.path, threads)
            .map_err(|error| self.cannot_show(&wanted[shown.mount], error))
    }

    pub(super) fn cannot_show(&self, wanted: &Wanted<'_>, error: CopyError) -> StepFailure {
        let mut problem = self.error(format!("cannot mount this: {error}"), wanted.span);
        problem.hint = match &error {
            CopyError::Missing { ignored: true, .. } => {
                Some("it is there, but .dockerignore leaves it out".to_owned())
            }
            CopyError::Missing { .. } if matches!(wanted.from, MountFrom::Unsaid) => {
                Some("`source` is relative to the build context; `from` names another place".into())
            }
            _ => None,
        };
        let failure = StepFailure::new(problem);
        match error {
            CopyError::Io { source, .. } => failure.because(source),
            CopyError::Write(source) => failure.because(source),
            CopyError::Table(source) => failure.because(source),
            _ => failure,
        }
    }
}

impl Selected<'_> {
    /// Returns a key that needs no byte of a stage or an image, if there is any.
    pub(in crate::stage) fn definition(
        &self,
        parts: &Parts,
        wanted: &[Wanted<'_>],
        shown: &[Shown],
    ) -> Option<Key> {
        if shown.iter().all(|shown| shown.origin.stack().is_none()) {
            return None;
        }
        let mut parts = parts.clone();
        for (shown, selection) in shown.iter().zip(&self.0) {
            let name = wanted[shown.mount].name();
            match (selection, shown.origin.stack()) {
                (Some(selection), _) => {
                    parts.push(format!("source {name}"), selection.content_id().to_string());
                }
                (None, Some(stack)) => {
                    parts.push(format!("stack {name}"), stack.id().to_string());
                    parts.push(format!("path {name}"), &shown.path);
                }
                (None, None) => {}
            }
        }
        Some(parts.key())
    }

    /// Adds what was selected to what decides.
    pub(in crate::stage) fn question(
        &self,
        mut parts: Parts,
        definition: Option<Key>,
        wanted: &[Wanted<'_>],
        shown: &[Shown],
    ) -> Question {
        let mut inputs = Vec::with_capacity(self.0.len());
        for (shown, selection) in shown.iter().zip(&self.0) {
            let Some(selection) = selection else { continue };
            let (name, content) = (wanted[shown.mount].name(), selection.content_id());
            parts.push(format!("source {name}"), content.to_string());
            let stack = shown.origin.stack().map(|stack| stack.id().to_string());
            inputs.push(Input { name, content, stack });
        }
        Question { parts, definition, inputs }
    }

    /// Returns what was selected for a mount.
    pub(super) fn of<'a>(&'a self, shown: &'a [Shown], mount: usize) -> Option<&'a Selection<'a>> {
        let at = shown.iter().position(|shown| shown.mount == mount)?;
        self.0[at].as_ref()
    }

    /// Returns all that was selected.
    pub(in crate::stage) fn all(&self) -> impl Iterator<Item = &Selection<'_>> {
        self.0.iter().flatten()
    }
}
