//! COPY and ADD: what they say, what decides whether they ran before, and what the history tells.
//!
//! [`origin`](super::origin) selects what is copied, which is what a key needs; only if no earlier
//! build copied the same to the same place does [`landing`](super::landing) write a layer.

use super::origin::{Origin, Sources};
use super::remote::{self, Remote, RemoteWord};
use super::{StageState, Step, StepResult};
use crate::build::StepFailure;
use crate::cache::{Input, Parts};
use crate::context::ignore::Patterns;
use crate::copy::{CopyError, Selection};
use crate::dockerfile::instruction::{Add, Copy, CopySource};
use crate::dockerfile::{Spanned, chmod};
use crate::plan::CopyFrom;
use crate::progress::{StepEnd, StepId};
use crate::solve::{Question, Recalled, keys};

/// What COPY and ADD have in common, as the Dockerfile says it.
pub(super) struct Files<'a> {
    keyword: &'static str,
    sources: &'a [CopySource],
    pub(super) destination: &'a Spanned<String>,
    pub(super) chown: Option<&'a Spanned<String>>,
    chmod: Option<&'a Spanned<String>>,
    link: bool,
    pub(super) parents: bool,
    exclude: &'a [Spanned<String>],
    /// Archives of the context are unpacked.
    pub(super) unpack: bool,
    /// Archives of URLs are unpacked.
    pub(super) unpack_fetched: bool,
    /// It is ADD.
    pub(super) may_be_remote: bool,
    pub(super) keep_git_dir: Option<&'a Spanned<bool>>,
    pub(super) checksum: Option<&'a Spanned<String>>,
}

/// The same with its variables expanded.
pub(super) struct Words {
    /// The sources that are paths.
    pub(super) paths: Vec<String>,
    /// The sources that are elsewhere.
    pub(super) remotes: Vec<RemoteWord>,
    /// What is left out.
    pub(super) exclude: Patterns,
    /// The sources that are in the Dockerfile: names and contents.
    pub(super) heredocs: Vec<(String, String)>,
    /// Where they go, absolute.
    pub(super) destination: String,
    pub(super) owner: Option<String>,
    pub(super) mode: Option<chmod::Mode>,
    /// The layer is made as if nothing lay below.
    pub(super) linked: bool,
    /// What the history tells.
    text: String,
    mode_text: Option<String>,
}

impl Step<'_> {
    pub(super) fn copy(
        &self,
        state: &mut StageState,
        copy: &Copy,
        from: Option<StageState>,
        id: StepId,
    ) -> StepResult<StepEnd> {
        let files = Files {
            keyword: "COPY",
            sources: &copy.sources,
            destination: &copy.destination,
            chown: copy.chown.as_ref(),
            chmod: copy.chmod.as_ref(),
            link: copy.link.as_ref().is_some_and(|link| link.value),
            parents: copy.parents.as_ref().is_some_and(|parents| parents.value),
            exclude: &copy.exclude,
            unpack: false,
            unpack_fetched: false,
            may_be_remote: false,
            keep_git_dir: None,
            checksum: None,
        };
        self.files(state, from, id, &files)
    }

    pub(super) fn add(&self, state: &mut StageState, add: &Add, id: StepId) -> StepResult<StepEnd> {
        let files = Files {
            keyword: "ADD",
            sources: &add.sources,
            destination: &add.destination,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            link: add.link.as_ref().is_some_and(|link| link.value),
            parents: false,
            exclude: &add.exclude,
            unpack: add.unpack.as_ref().is_none_or(|unpack| unpack.value),
            unpack_fetched: add.unpack.as_ref().is_some_and(|unpack| unpack.value),
            may_be_remote: true,
            keep_git_dir: add.keep_git_dir.as_ref(),
            checksum: add.checksum.as_ref(),
        };
        self.files(state, None, id, &files)
    }

    /// Waits for the stage that a COPY copies from.
    pub(super) fn copied_stage(&self) -> StepResult<Option<StageState>> {
        match &self.planned.copy_from {
            Some(CopyFrom::Stage(index)) => {
                self.stages.wait(*index).map(Some).map_err(|_| self.cancelled())
            }
            _ => Ok(None),
        }
    }

    fn files(
        &self,
        state: &mut StageState,
        from: Option<StageState>,
        id: StepId,
        files: &Files<'_>,
    ) -> StepResult<StepEnd> {
        let words = self.words(state, files)?;
        let origin = self.origin(from)?;
        let parts = parts(state, files, &words);
        let remotes = self.remotes(&words, id)?;
        let definition = origin.stack().map(|stack| {
            let mut parts = parts.clone();
            let paths = serde_json::to_string(&words.paths).expect("texts always serialise");
            parts.push("stack", stack.id().to_string());
            parts.push("paths", paths);
            for (name, body) in &words.heredocs {
                parts.push(format!("heredoc {name}"), body);
            }
            parts.key()
        });
        let definition = definition.or_else(|| remote::definition(&parts, &words, &remotes));
        let known = definition.filter(|_| self.builder.request.reuse.allows(self.stage));
        let solved = match known.map(|key| self.recall(&key, state, id)) {
            Some(Recalled::Hit(record, layer)) => self.reuse_defined(state, known, &record, layer),
            _ => {
                let view = self.view_of(&origin, id)?;
                let open = self.opener(origin.stack(), id);
                let has_commit = remotes.iter().any(|it| matches!(it, Remote::Commit(_)));
                let scratch = has_commit.then(|| self.scratch()).transpose()?;
                let checkouts = match &scratch {
                    Some(scratch) => self.checkouts(&remotes, scratch.path(), id)?,
                    None => Vec::new(),
                };
                let sources = Sources {
                    origin: &origin,
                    view: view.as_ref(),
                    open: &open,
                    remotes: &remotes,
                    checkouts: &checkouts,
                };
                let selections = self.selections(files, &words, &sources)?;
                let names = names(&origin, &words, &remotes);
                let question = question(parts, definition, &origin, names, &selections);
                self.solve(state, id, &question, |state| {
                    self.keep_inputs(&selections);
                    self.land(state, files, &words, &selections, id)
                })?
            }
        };
        state.tell(words.text, true, self.time(&solved));
        Ok(solved.end)
    }

    /// Expands the words of the instruction.
    fn words(&self, state: &StageState, files: &Files<'_>) -> StepResult<Words> {
        let mut text = String::from(files.keyword);
        if files.parents {
            text.push_str(" --parents");
        }
        let mut flag = |name, word: Option<&Spanned<String>>| {
            let Some(word) = word else { return Ok(None) };
            let value = self.expand(state, word)?;
            text.push_str(&format!(" --{name}={value}"));
            Ok(Some(value))
        };
        let owner = flag("chown", files.chown)?;
        let mode_text = flag("chmod", files.chmod)?;
        let mode = match (files.chmod, &mode_text) {
            (Some(word), Some(text)) => Some(chmod::Mode::parse(text).map_err(|error| {
                StepFailure::new(self.error("cannot use this mode", word.span)).because(error)
            })?),
            _ => None,
        };
        let checksum = files.checksum.map(|word| self.expand(state, word)).transpose()?;
        let (mut paths, mut remotes, mut heredocs) = (Vec::new(), Vec::new(), Vec::new());
        for source in files.sources {
            match source {
                CopySource::Path(word) => {
                    let path = self.expand(state, word)?;
                    text.push_str(&format!(" {path}"));
                    match self.remote_word(files, checksum.as_deref(), &path, word.span)? {
                        Some(remote) => remotes.push(remote),
                        None => paths.push(path),
                    }
                }
                CopySource::Heredoc(heredoc) => {
                    text.push_str(&format!(" <<{}", heredoc.name));
                    let mut body = heredoc.body().into_owned();
                    if heredoc.expand {
                        let expanded = self.expander().expand_raw(&body, &state.environment);
                        body = expanded
                            .map_err(|error| {
                                let problem = self.whole("cannot expand this heredoc");
                                StepFailure::new(problem).because(error)
                            })?
                            .text;
                    }
                    heredocs.push((heredoc.name.clone(), body));
                }
            }
        }
        if let Some(word) = files.checksum.filter(|_| remotes.len() != 1 || !paths.is_empty()) {
            let text = "--checksum needs one source, which is a URL or a Git repository";
            return Err(StepFailure::new(self.error(text, word.span)));
        }
        let exclude = self.exclude(files)?;
        let destination = self.expand(state, files.destination)?;
        text.push_str(&format!(" {destination} # buildkit"));
        // With --chmod, --link has no meaning to BuildKit; the result must be the same.
        let linked = files.link && mode.is_none();
        let destination = absolute(state.directory(), &destination);
        Ok(Words {
            paths,
            remotes,
            exclude,
            heredocs,
            destination,
            owner,
            mode,
            linked,
            text,
            mode_text,
        })
    }

    /// Reads `--exclude`.
    fn exclude(&self, files: &Files<'_>) -> StepResult<Patterns> {
        let list = files.exclude.iter().map(|word| word.value.as_str());
        Patterns::from_list(list).map_err(|error| {
            let span = files.exclude.get(error.line.wrapping_sub(1)).map(|word| word.span);
            let span = span.unwrap_or(self.planned.instruction.keyword.span);
            StepFailure::new(self.error(error.kind.to_string(), span))
        })
    }

    /// Keeps what was selected, so that a later build can say what changed.
    pub(super) fn keep_inputs<'k>(&self, selections: impl IntoIterator<Item = &'k Selection<'k>>) {
        let cache = &self.builder.cache;
        for selection in selections {
            self.builder.or_warn(cache.put_input(&selection.content_id(), selection.table()));
        }
    }

    pub(super) fn cannot_copy(&self, files: &Files<'_>, error: CopyError) -> StepFailure {
        let error = match (error, &self.planned.copy_from) {
            (CopyError::Missing { path, ignored, .. }, Some(CopyFrom::Named(name))) => {
                CopyError::Missing { path, ignored, tree: format!("the context `{name}`") }
            }
            (error, _) => error,
        };
        let span = match &error {
            CopyError::Missing { path, .. } | CopyError::Pattern { pattern: path } => {
                files.sources.iter().find_map(|source| match source {
                    CopySource::Path(word) if word.value == *path => Some(word.span),
                    _ => None,
                })
            }
            CopyError::NotADirectory { .. } => Some(files.destination.span),
            _ => None,
        };
        let span = span.unwrap_or(self.planned.instruction.keyword.span);
        let mut diagnostic = self.error(error.to_string(), span);
        diagnostic.hint = match &error {
            CopyError::Missing { ignored: true, .. } => {
                Some("it is there, but .dockerignore leaves it out".to_owned())
            }
            CopyError::Missing { .. }
                if matches!(self.planned.copy_from, Some(CopyFrom::Context)) =>
            {
                Some("paths are relative to the build context, not to the Dockerfile".to_owned())
            }
            _ => None,
        };
        let failure = StepFailure::new(diagnostic);
        match error {
            CopyError::Io { source, .. } => failure.because(source),
            CopyError::Write(source) => failure.because(source),
            CopyError::Table(source) => failure.because(source),
            CopyError::Archive { source, .. } => failure.because(source),
            _ => failure,
        }
    }
}

/// Returns what decides beside the sources.
fn parts(state: &StageState, files: &Files<'_>, words: &Words) -> Parts {
    let mut parts = match words.linked {
        true => Parts::new(files.keyword),
        false => keys::below(files.keyword, state),
    };
    parts.push("destination", &words.destination);
    if let Some(owner) = &words.owner {
        parts.push("chown", owner);
    }
    if let Some(mode) = &words.mode_text {
        parts.push("chmod", mode);
    }
    if words.linked {
        parts.push("link", "true");
    }
    if files.unpack {
        parts.push("unpack", "true");
    }
    if files.unpack_fetched && !words.remotes.is_empty() {
        parts.push("unpack fetched", "true");
    }
    if files.parents {
        parts.push("parents", "true");
    }
    for pattern in files.exclude {
        parts.push("exclude", &pattern.value);
    }
    parts
}

/// Returns what the sources are called, in the order of their selections.
fn names(origin: &Origin, words: &Words, remotes: &[Remote]) -> Vec<String> {
    let mut names = Vec::new();
    if !words.paths.is_empty() {
        names.push(format!("{}{}", origin.prefix(), words.paths.join(" ")));
    }
    names.extend(remotes.iter().map(Remote::name));
    names.extend(words.heredocs.iter().map(|(name, _)| format!("<<{name}")));
    names
}

/// Adds what was selected to what decides.
fn question(
    mut parts: Parts,
    definition: Option<crate::cache::Key>,
    origin: &Origin,
    names: Vec<String>,
    selections: &[Selection<'_>],
) -> Question {
    let mut inputs = Vec::with_capacity(names.len());
    for (name, selection) in names.into_iter().zip(selections) {
        let content = selection.content_id();
        parts.push(format!("source {name}"), content.to_string());
        let stack = origin.stack().map(|stack| stack.id().to_string());
        inputs.push(Input { name, content, stack });
    }
    Question { parts, definition, inputs }
}

/// Returns a path seen from a directory; a slash at its end stays.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let directory = directory.trim_end_matches('/');
    match path {
        "" | "." => format!("{directory}/"),
        path => format!("{directory}/{path}"),
    }
}
