//! What COPY and ADD copy from, and what they select of it.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use super::files::{Files, Words};
use super::remote::{Checkout, Remote};
use super::{StageState, Step, StepResult};
use crate::build::StepFailure;
use crate::contents::View;
use crate::contents::view::OpenFile;
use crate::copy::{self, SelectOptions, Selection, Source};
use crate::layer::EntryPath;
use crate::plan::CopyFrom;
use crate::progress::StepId;
use crate::solve::LayerStack;

/// What is copied from.
pub(super) enum Origin {
    /// The build context, that of a name, or the Dockerfile alone.
    Context {
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// A stage or an image.
    Stack {
        stack: LayerStack,
        /// What it is called in messages.
        name: String,
        /// The word of `--from`.
        from: String,
    },
}

impl Origin {
    /// Returns the stack that is copied from, if it is one.
    pub(super) fn stack(&self) -> Option<&LayerStack> {
        match self {
            Origin::Context { .. } => None,
            Origin::Stack { stack, .. } => Some(stack),
        }
    }

    /// Returns what stands before the sources where they are named.
    pub(super) fn prefix(&self) -> String {
        match self {
            Origin::Context { name: None } => String::new(),
            Origin::Context { name: Some(name) } => format!("--from={name} "),
            Origin::Stack { from, .. } => format!("--from={from} "),
        }
    }
}

/// All that an instruction copies from.
pub(super) struct Sources<'s> {
    pub(super) origin: &'s Origin,
    /// What a stack that is copied from shows.
    pub(super) view: Option<&'s View>,
    pub(super) open: &'s OpenFile<'s>,
    pub(super) remotes: &'s [Remote],
    /// The files of the commits among them.
    pub(super) checkouts: &'s [Checkout],
}

impl Step<'_> {
    /// Finds what is copied from; `from` is the state of the stage, if it is one.
    pub(super) fn origin(&self, from: Option<StageState>) -> StepResult<Origin> {
        self.origin_of(self.planned.copy_from.as_ref(), from)
    }

    /// The same, of whatever takes files from somewhere.
    pub(super) fn origin_of(
        &self,
        of: Option<&CopyFrom>,
        from: Option<StageState>,
    ) -> StepResult<Origin> {
        let (stack, name, from) = match (of, from) {
            (Some(CopyFrom::Stage(index)), Some(from)) => {
                let stage = self.builder.plan.stages.iter().find(|stage| stage.index == *index);
                let name = stage.map_or_else(String::new, |stage| stage.name.clone());
                (from.stack, format!("stage {name}"), name)
            }
            (Some(CopyFrom::Image(image)), _) => {
                let found = self.builder.bases.resolve(image, &self.stage.platform, &|_| {});
                let found = found.map_err(|error| {
                    let problem = self.whole("cannot read what this step copies from");
                    StepFailure::new(problem).because(error)
                })?;
                (found.stack, format!("image {}", image.familiar()), image.familiar())
            }
            (Some(CopyFrom::Named(name)), _) => {
                return Ok(Origin::Context { name: Some(name.clone()) });
            }
            _ => return Ok(Origin::Context { name: None }),
        };
        Ok(Origin::Stack { stack, name, from })
    }

    /// Returns what a stack that is copied from shows.
    pub(super) fn view_of(&self, origin: &Origin, id: StepId) -> StepResult<Option<View>> {
        origin.stack().map(|stack| self.view(stack, id)).transpose()
    }

    /// Returns what opens the files of a stack. Its layers are unpacked when the first is opened.
    pub(super) fn opener<'o>(
        &'o self,
        stack: Option<&'o LayerStack>,
        id: StepId,
    ) -> impl Fn(usize, &EntryPath) -> io::Result<File> + Sync + 'o {
        let trees = OnceLock::new();
        move |layer, path| {
            let Some(stack) = stack else { return Err(io::ErrorKind::NotFound.into()) };
            let say = |text: &str| self.builder.tools.progress.status(id, text);
            if trees.get().is_none() {
                let had = self.builder.trees.of(stack.layers(), &say).map_err(io::Error::other)?;
                let _ = trees.set(had);
            }
            let tree = trees.get().and_then(|trees| trees.get(layer));
            tree.ok_or(io::ErrorKind::NotFound)?.open_file(path)
        }
    }

    /// Selects what the words mean: first all that are paths, then each heredoc.
    pub(super) fn selections<'s>(
        &'s self,
        files: &Files<'_>,
        words: &'s Words,
        from: &Sources<'s>,
    ) -> StepResult<Vec<Selection<'s>>> {
        let options = SelectOptions {
            unpack: files.unpack,
            threads: self.builder.tools.threads,
            parents: files.parents,
            exclude: Some(&words.exclude),
        };
        let select = |source, words: &[String], options| {
            copy::select(source, words, options).map_err(|error| self.cannot_copy(files, error))
        };
        let mut selections = Vec::new();
        if !words.paths.is_empty() {
            let source = match (from.origin, from.view) {
                (Origin::Stack { name, .. }, Some(view)) => {
                    Source::Stack { view, name, open: from.open }
                }
                (Origin::Context { name: Some(name) }, _) => self.context(Some(name))?,
                _ => self.context(None)?,
            };
            selections.push(select(source, &words.paths, options)?);
        }
        let mut checkouts = from.checkouts.iter();
        for remote in from.remotes {
            let (source, words, unpack) = match (remote, ".".to_owned()) {
                (Remote::File { name, file, .. }, _) => {
                    (Source::Fetched { name, file }, None, files.unpack_fetched)
                }
                (Remote::Commit(_), all) => match checkouts.next() {
                    Some(checkout) => (checkout.source(), Some(all), false),
                    None => continue,
                },
            };
            let words = words.as_slice();
            selections.push(select(source, words, SelectOptions { unpack, ..options })?);
        }
        let options = SelectOptions { unpack: false, ..options };
        for (name, body) in &words.heredocs {
            let source = Source::Heredoc { name, body: body.as_bytes() };
            selections.push(select(source, &[], options)?);
        }
        Ok(selections)
    }

    /// Returns the files of a named context; without a name those of the build.
    pub(super) fn context(&self, name: Option<&str>) -> StepResult<Source<'_>> {
        match self.builder.contexts.get(name) {
            Some(context) => Ok(Source::Context {
                directory: context.directory(),
                known: context.known(self.builder.tools.root.path()),
            }),
            None => {
                let mut problem = self.whole("there is no build context to copy from");
                problem.hint = Some("name a directory: `boatyard build DIR`".to_owned());
                Err(StepFailure::new(problem))
            }
        }
    }
}
