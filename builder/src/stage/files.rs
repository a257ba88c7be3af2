//! COPY, ADD and WORKDIR: files into a snapshot, and the layer that they make.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use super::{StageState, Step, StepResult};
use crate::build::StepFailure;
use crate::copy::inside;
use crate::copy::{self, CopyError, CopyOptions, Everything, Tree};
use crate::dockerfile::instruction::{Add, Copy, CopySource};
use crate::dockerfile::lint::planned;
use crate::dockerfile::{Heredoc, Spanned, chmod};
use crate::execute::{rootfs, user};
use crate::layer::ContentTimes;
use crate::plan::CopyFrom;
use crate::progress::{StepEnd, StepId};
use crate::snapshot::Active;
use crate::solve::{LayerStack, Made, keys};

/// What COPY and ADD have in common.
struct Files<'a> {
    keyword: &'static str,
    sources: &'a [CopySource],
    destination: &'a Spanned<String>,
    chown: Option<&'a Spanned<String>>,
    chmod: Option<&'a Spanned<String>>,
    link: bool,
    unpack: bool,
}

/// The tree that is copied from, kept mounted while it is.
enum Origin {
    Context,
    Mounted { active: Active, mount: OwnedFd, name: String },
}

impl Step<'_> {
    /// Waits for the stage that a COPY copies from.
    pub(super) fn copied_stage(&self) -> StepResult<Option<StageState>> {
        match &self.planned.copy_from {
            Some(CopyFrom::Stage(index)) => {
                self.stages.wait(*index).map(Some).map_err(|_| self.cancelled())
            }
            _ => Ok(None),
        }
    }

    pub(super) fn copy(
        &self,
        state: &mut StageState,
        copy: &Copy,
        from: Option<StageState>,
        id: StepId,
    ) -> StepResult<StepEnd> {
        self.files(
            state,
            from,
            id,
            &Files {
                keyword: "COPY",
                sources: &copy.sources,
                destination: &copy.destination,
                chown: copy.chown.as_ref(),
                chmod: copy.chmod.as_ref(),
                link: copy.link.as_ref().is_some_and(|link| link.value),
                unpack: false,
            },
        )
    }

    pub(super) fn add(&self, state: &mut StageState, add: &Add, id: StepId) -> StepResult<StepEnd> {
        self.files(
            state,
            None,
            id,
            &Files {
                keyword: "ADD",
                sources: &add.sources,
                destination: &add.destination,
                chown: add.chown.as_ref(),
                chmod: add.chmod.as_ref(),
                link: add.link.as_ref().is_some_and(|link| link.value),
                unpack: add.unpack.as_ref().is_none_or(|unpack| unpack.value),
            },
        )
    }

    fn files(
        &self,
        state: &mut StageState,
        from: Option<StageState>,
        id: StepId,
        files: &Files<'_>,
    ) -> StepResult<StepEnd> {
        let mut parts = keys::below(files.keyword, state);
        parts.push("unkeyed", format!("{:?}", (self.builder.tools.now)()));
        let mut told = String::new();
        let solved = self.solve(state, id, &parts.into(), |state| {
            let (made, text) = self.make_files(state, from, id, files)?;
            told = text;
            Ok(made)
        })?;
        state.tell(told, true, self.time(&solved));
        Ok(solved.end)
    }

    fn make_files(
        &self,
        state: &StageState,
        from: Option<StageState>,
        id: StepId,
        files: &Files<'_>,
    ) -> StepResult<(Made<'_>, String)> {
        let cannot_begin = || self.whole("cannot begin this step");
        let destination = self.expand(state, files.destination)?;
        let destination = absolute(state.directory(), &destination);
        let mode = files.chmod.map(|word| self.mode(state, word)).transpose()?;
        let origin = self.origin(from, id)?;
        // With --chmod, --link has no meaning to BuildKit; the result must be the same.
        let linked = files.link && mode.is_none();
        let lowers = if linked { Vec::new() } else { self.trees(&state.stack, id)? };
        let active = self
            .builder
            .layers
            .prepare(&lowers)
            .map_err(|error| StepFailure::new(cannot_begin()).because(error))?;
        let mount =
            active.mount(None).map_err(|error| StepFailure::new(cannot_begin()).because(error))?;
        let owner = files.chown.map(|word| self.owner(state, word, &mount)).transpose()?;
        let change_mode =
            mode.as_ref().map(|mode| |own: u32, is_directory| mode.apply(own, is_directory));
        let options = CopyOptions {
            owner,
            mode: change_mode.as_ref().map(|change| change as &dyn Fn(u32, bool) -> u32),
            unpack: files.unpack,
        };
        let mut text = String::from(files.keyword);
        for (flag, word) in [("chown", files.chown), ("chmod", files.chmod)] {
            if let Some(word) = word {
                text.push_str(&format!(" --{flag}={}", self.expand(state, word)?));
            }
        }
        let paths = self.paths(state, files.sources, &mut text)?;
        self.warn_of_ignored(files);
        text.push_str(&format!(" {} # buildkit", self.expand(state, files.destination)?));
        if !paths.is_empty() {
            let done = self.with_tree(&origin, |tree| {
                copy::copy(tree, &paths, mount.as_fd(), &destination, options)
            })?;
            done.map_err(|error| self.cannot_copy(files, error))?;
        }
        for source in files.sources {
            if let CopySource::Heredoc(heredoc) = source {
                self.heredoc(state, heredoc, &mount, &destination, options)
                    .map_err(|error| self.cannot_copy(files, error))?;
            }
        }
        drop(mount);
        if let Origin::Mounted { active, mount, .. } = origin {
            drop(mount);
            let _ = active.discard();
        }
        Ok((self.layer(active, ContentTimes::None, None)?, text))
    }

    /// Warns of sources that `.dockerignore` leaves out.
    fn warn_of_ignored(&self, files: &Files<'_>) {
        let Some(context) = &self.builder.request.context else { return };
        if !matches!(self.planned.copy_from, Some(CopyFrom::Context)) {
            return;
        }
        for source in files.sources {
            if let CopySource::Path(word) = source {
                let instruction = self.planned.instruction.span;
                let patterns = context.patterns();
                let is_add = files.keyword == "ADD";
                if let Some(found) = planned::copy_ignored_file(is_add, word, patterns, instruction)
                {
                    self.warn(&found);
                }
            }
        }
    }

    /// Expands the sources that are paths, and adds all to the history's text.
    fn paths(
        &self,
        state: &StageState,
        sources: &[CopySource],
        text: &mut String,
    ) -> StepResult<Vec<String>> {
        let mut paths = Vec::new();
        for source in sources {
            match source {
                CopySource::Path(word) => {
                    let path = self.expand(state, word)?;
                    text.push_str(&format!(" {path}"));
                    paths.push(path);
                }
                CopySource::Heredoc(heredoc) => text.push_str(&format!(" <<{}", heredoc.name)),
            }
        }
        Ok(paths)
    }

    fn cannot_copy(&self, files: &Files<'_>, error: CopyError) -> StepFailure {
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
            CopyError::Archive { source, .. } => failure.because(source),
            _ => failure,
        }
    }

    /// Finds the tree that is copied from, and mounts it if it is an image's or a stage's.
    fn origin(&self, from: Option<StageState>, id: StepId) -> StepResult<Origin> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            StepFailure::new(self.whole("cannot read what this step copies from")).because(error)
        };
        let (stack, name) = match &self.planned.copy_from {
            None | Some(CopyFrom::Context) => return Ok(Origin::Context),
            Some(CopyFrom::Stage(index)) => {
                let stage = self.builder.plan.stages.iter().find(|stage| stage.index == *index);
                let name = stage.map_or_else(String::new, |stage| format!("stage {}", stage.name));
                (from.map_or_else(LayerStack::scratch, |from| from.stack), name)
            }
            Some(CopyFrom::Image(image)) => {
                let bases = self.builder.bases;
                let base = bases
                    .resolve(image, &self.stage.platform, &|_| {})
                    .map_err(|error| failed(error.into()))?;
                (base.stack, format!("image {}", image.familiar()))
            }
        };
        let lowers = self.trees(&stack, id)?;
        let active = self.builder.layers.prepare(&lowers).map_err(|error| failed(error.into()))?;
        let mount = active.mount(None).map_err(|error| failed(error.into()))?;
        Ok(Origin::Mounted { active, mount, name })
    }

    fn with_tree<T>(&self, origin: &Origin, work: impl FnOnce(Tree<'_>) -> T) -> StepResult<T> {
        match origin {
            Origin::Mounted { mount, name, .. } => Ok(work(Tree {
                root: mount.as_fd(),
                filter: &Everything,
                keeps_owners: true,
                name,
            })),
            Origin::Context => match &self.builder.request.context {
                Some(context) => Ok(work(context.tree())),
                None => {
                    let mut problem = self.whole("there is no build context to copy from");
                    problem.hint = Some("name a directory: `boatyard build DIR`".to_owned());
                    Err(StepFailure::new(problem))
                }
            },
        }
    }

    /// Writes the body of a heredoc as a file of mode 0644.
    fn heredoc(
        &self,
        state: &StageState,
        heredoc: &Heredoc,
        root: &OwnedFd,
        destination: &str,
        options: CopyOptions<'_>,
    ) -> Result<(), CopyError> {
        let failed = |doing, source: std::io::Error| CopyError::Io {
            doing,
            path: heredoc.name.clone(),
            source,
        };
        let mut body = heredoc.body().into_owned();
        if heredoc.expand {
            body = self
                .expander()
                .expand_raw(&body, &state.environment)
                .map_err(|error| failed("expand", std::io::Error::other(error)))?
                .text;
        }
        let temporary = self
            .builder
            .layers
            .temporary("heredoc-")
            .map_err(|source| failed("write", std::io::Error::other(source)))?;
        // A directory of its own: the guard keeps a lock in the one above. A delimiter may hold a
        // slash; the file's name is its last part.
        let directory = temporary.path().join("files");
        let name = heredoc.name.rsplit('/').next().unwrap_or("EOF");
        let path = directory.join(name);
        let write = || {
            use std::os::unix::fs::PermissionsExt as _;
            fs_err::create_dir(&directory)?;
            fs_err::write(&path, body.as_bytes())?;
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
            if let Some(epoch) = self.builder.epoch {
                let file = fs_err::File::options().write(true).open(&path)?;
                file.into_file().set_modified(epoch.into())?;
            }
            fs_err::File::open(&directory)
        };
        let opened = write().map_err(|source| failed("write", source))?;
        let opened: OwnedFd = opened.into_file().into();
        let tree = Tree {
            root: opened.as_fd(),
            filter: &Everything,
            keeps_owners: false,
            name: "the Dockerfile",
        };
        let options = CopyOptions { unpack: false, ..options };
        copy::copy(tree, &[name.to_owned()], root.as_fd(), destination, options)
    }

    /// Reads `--chmod`.
    fn mode(&self, state: &StageState, word: &Spanned<String>) -> StepResult<chmod::Mode> {
        let text = self.expand(state, word)?;
        chmod::Mode::parse(&text).map_err(|error| {
            StepFailure::new(self.error("cannot use this mode", word.span)).because(error)
        })
    }

    /// Reads `--chown`: a name's ids come from the files of the destination. A number alone is
    /// user and group.
    fn owner(
        &self,
        state: &StageState,
        word: &Spanned<String>,
        root: &OwnedFd,
    ) -> StepResult<(u32, u32)> {
        let text = self.expand(state, word)?;
        let read = |path: &str| {
            rootfs::read_file(root, path, user::FILE_BYTES_MAX).map_err(|error| {
                StepFailure::new(self.error("cannot tell who this is", word.span)).because(error)
            })
        };
        let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
        let (name, given_group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text.as_str(), None),
        };
        if let (Ok(number), None) = (name.parse::<u32>(), given_group) {
            return Ok((number, number));
        }
        match user::resolve(&text, passwd.as_deref(), group.as_deref()) {
            Ok(user) => Ok((user.uid, user.gid)),
            Err(error) => {
                let mut problem = self.error(error.to_string(), word.span);
                problem.hint = Some(
                    "names are looked up in /etc/passwd and /etc/group of the image; a number \
                     needs no entry"
                        .to_owned(),
                );
                Err(StepFailure::new(problem))
            }
        }
    }

    /// Changes the working directory, and makes it.
    pub(super) fn workdir(
        &self,
        state: &mut StageState,
        word: &Spanned<String>,
        id: StepId,
    ) -> StepResult<StepEnd> {
        let path = self.expand(state, word)?;
        let path = inside::normal(Path::new(&absolute(state.directory(), &path)));
        let path = path.to_string_lossy().into_owned();
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

    fn directory(&self, state: &StageState, path: &str, id: StepId) -> StepResult<Made<'_>> {
        let failed = || self.whole(format!("cannot make the directory {path}"));
        let active = self
            .builder
            .layers
            .prepare(&self.trees(&state.stack, id)?)
            .map_err(|error| StepFailure::new(failed()).because(error))?;
        let mount =
            active.mount(None).map_err(|error| StepFailure::new(failed()).because(error))?;
        let user = self.user(state, &mount)?;
        let made = inside::Made { owner: (user.uid, user.gid), mode: 0o755 };
        inside::make_directory(mount.as_fd(), Path::new(&path), made)
            .map_err(|errno| StepFailure::new(failed()).because(std::io::Error::from(errno)))?;
        drop(mount);
        self.layer(active, ContentTimes::None, None)
    }
}

/// Returns a path seen from a directory; a slash at its end stays.
fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let directory = directory.trim_end_matches('/');
    match path {
        "" | "." => format!("{directory}/"),
        path => format!("{directory}/{path}"),
    }
}
