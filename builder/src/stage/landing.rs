//! Layers that are written without a file system: COPY's, ADD's and WORKDIR's.
//!
//! A layer that goes into the image and that no RUN will see becomes a blob at once, and nothing
//! else. Any other becomes a tree; the image's blob is packed of it as of a RUN's.

use std::io;

use super::files::{Files, Words, absolute};
use super::{StageState, Step, StepResult};
use crate::build::StepFailure;
use crate::contents::resolve::plain;
use crate::contents::{Table, View};
use crate::copy::{self, Entries, Landing, LayerOut, Selection};
use crate::dockerfile::Spanned;
use crate::layer::tree::TreeWriter;
use crate::layer::{ContentTimes, EntryPath, LayerWriter, Mtime, WriteOptions, Written};
use crate::progress::{StepEnd, StepId};
use crate::snapshot::layers::Temporary;
use crate::solve::{Kept, LayerStack, Made, keys};

impl Step<'_> {
    /// Returns what a stack shows.
    pub(super) fn view(&self, stack: &LayerStack, id: StepId) -> StepResult<View> {
        let say = |text: &str| self.builder.tools.progress.status(id, text);
        self.builder.trees.view(stack.layers(), &say).map_err(|error| {
            let problem = self.whole("cannot read what lies below this step");
            StepFailure::new(problem).because(error)
        })
    }

    /// Writes the layer of what was selected.
    pub(super) fn land(
        &self,
        state: &StageState,
        files: &Files<'_>,
        words: &Words,
        selections: &[Selection<'_>],
        id: StepId,
    ) -> StepResult<Made<'_>> {
        let below = match words.linked {
            true => View::default(),
            false => self.view(&state.stack, id)?,
        };
        let owner = match (&words.owner, files.chown) {
            (Some(text), Some(word)) => Some(self.owner(state, &below, text, word, id)?),
            _ => None,
        };
        let mode =
            words.mode.as_ref().map(|mode| |own: u32, is_directory| mode.apply(own, is_directory));
        let scratch = self.scratch()?;
        let landing = Landing {
            below: &below,
            destination: &words.destination,
            unpack: files.unpack || files.unpack_fetched,
            owner,
            mode: mode.as_ref().map(|change| change as &dyn Fn(u32, bool) -> u32),
            now: self.now(),
            threads: self.builder.tools.threads,
            scratch: scratch.path(),
        };
        self.write(|out| {
            copy::write(selections, &landing, out).map_err(|error| self.cannot_copy(files, error))
        })
    }

    /// Reads `--chown`: a name's ids come from the files of the destination.
    fn owner(
        &self,
        state: &StageState,
        below: &View,
        text: &str,
        word: &Spanned<String>,
        id: StepId,
    ) -> StepResult<(u32, u32)> {
        let open = self.opener(Some(&state.stack), id);
        let accounts = below.accounts(&open).map_err(|error| {
            StepFailure::new(self.error("cannot tell who this is", word.span)).because(error)
        })?;
        accounts.owner(text).map_err(|error| {
            let mut problem = self.error(error.to_string(), word.span);
            problem.hint = Some(
                "names are looked up in /etc/passwd and /etc/group of the image; a number needs \
                 no entry"
                    .to_owned(),
            );
            StepFailure::new(problem)
        })
    }

    /// Changes the working directory, and makes it.
    pub(super) fn workdir(
        &self,
        state: &mut StageState,
        word: &Spanned<String>,
        id: StepId,
    ) -> StepResult<StepEnd> {
        let path = self.expand(state, word)?;
        let path = plain(&EntryPath::root(), absolute(state.directory(), &path).as_bytes());
        let path = format!("/{}", String::from_utf8_lossy(path.as_bytes()));
        state.config.config.working_dir.clone_from(&path);
        if path == "/" {
            let at = self.metadata_time(state);
            state.tell(format!("WORKDIR {path}"), false, at);
            return Ok(StepEnd::Done);
        }
        let question = keys::workdir(state, &path).into();
        let solved = self.solve(state, id, &question, |state| self.directory(state, &path, id))?;
        state.tell(format!("WORKDIR {path}"), true, self.time(&solved));
        Ok(solved.end)
    }

    /// Writes the layer of a directory that belongs to the stage's user.
    fn directory(&self, state: &StageState, path: &str, id: StepId) -> StepResult<Made<'_>> {
        let below = self.view(&state.stack, id)?;
        let open = self.opener(Some(&state.stack), id);
        let accounts = below.accounts(&open).map_err(|error| {
            StepFailure::new(self.whole("cannot tell who the user is")).because(error)
        })?;
        let user = accounts.user(&state.config.config.user).map_err(|error| {
            StepFailure::new(self.whole("cannot run as this user")).because(error)
        })?;
        self.write(|out| {
            copy::make_directory(&below, path, (user.uid, user.gid), self.now(), out).map_err(
                |error| {
                    let problem = self.whole(format!("cannot make the directory {path}"));
                    StepFailure::new(problem).because(error)
                },
            )
        })
    }

    /// Returns the time of what is made new.
    pub(super) fn now(&self) -> Mtime {
        Mtime::from_seconds((self.builder.tools.now)().as_second())
    }

    pub(super) fn scratch(&self) -> StepResult<Temporary> {
        self.builder
            .layers
            .temporary("archive-")
            .map_err(|error| StepFailure::new(self.whole("cannot begin this step")).because(error))
    }

    /// Writes a layer, as a blob or as a tree.
    fn write(&self, fill: impl FnOnce(&mut dyn Entries) -> StepResult<()>) -> StepResult<Made<'_>> {
        let restamp = self.builder.times.restamp();
        let options = WriteOptions { times: ContentTimes::None, restamp };
        match self.builder.wants_blob(self.stage.index, self.ordinal) {
            true => self.write_blob(options, fill),
            false => self.write_tree(options, fill),
        }
    }

    fn write_blob(
        &self,
        options: WriteOptions,
        fill: impl FnOnce(&mut dyn Entries) -> StepResult<()>,
    ) -> StepResult<Made<'_>> {
        let builder = self.builder;
        let sink = builder
            .packer
            .sink(builder.request.form().compression)
            .map_err(|error| self.cannot_make(error))?;
        let mut out = LayerOut::new(LayerWriter::new(sink, options), None);
        fill(&mut out)?;
        let (sink, written, table) = out.finish().map_err(|error| self.cannot_make(error))?;
        let keep = Box::new(move |written: &Written| {
            let blob = builder.packer.land(sink, written);
            let blob = blob.map_err(|error| self.cannot_make(error))?;
            self.keep_table(written, table);
            Ok(Kept { tree: None, blob: Some(blob) })
        });
        Ok(Made { written, keep })
    }

    fn write_tree(
        &self,
        options: WriteOptions,
        fill: impl FnOnce(&mut dyn Entries) -> StepResult<()>,
    ) -> StepResult<Made<'_>> {
        let fresh = self.builder.layers.fresh().map_err(|error| self.cannot_make(error))?;
        let tree = TreeWriter::new(&fresh.tree());
        let tree = tree.map_err(|error| self.cannot_make(error))?;
        let mut out = LayerOut::new(LayerWriter::new(io::sink(), options), Some(tree));
        fill(&mut out)?;
        let (_, written, table) = out.finish().map_err(|error| self.cannot_make(error))?;
        let keep = Box::new(move |written: &Written| {
            let tree = fresh.commit(written).map_err(|error| self.cannot_make(error))?;
            self.keep_table(written, table);
            Ok(Kept { tree: Some(tree), blob: None })
        });
        Ok(Made { written, keep })
    }

    fn keep_table(&self, written: &Written, table: Option<Table>) {
        if let Some(table) = table {
            self.builder.layers.tables().put(&written.diff_id, table);
        }
    }

    fn cannot_make(&self, error: impl std::error::Error + Send + Sync + 'static) -> StepFailure {
        StepFailure::new(self.whole("cannot make the layer of this step")).because(error)
    }
}
