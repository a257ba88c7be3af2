//! What a step gets for its mounts, and what has to stay until the step is over.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat};

use super::shown::{Selected, Shown};
use super::{SECRET_MODE, SSH_MODE, Wanted};
use crate::build::StepFailure;
use crate::cache::mounts::Taken;
use crate::contents::View;
use crate::copy::{self, Landing, Selection, TreeOut};
use crate::dockerfile::mount::{MountKind, Ownership};
use crate::execute::{Hidden, MountKind as Made, Source, Spec, StepMount, rootfs};
use crate::layer::TreeWriter;
use crate::plan::MountFrom;
use crate::progress::StepId;
use crate::snapshot::layers::Temporary;
use crate::snapshot::{Active, MountError};
use crate::ssh::{Access, AgentSource, KeyAgent, Relay};
use crate::stage::{Step, StepResult};

/// The name of what is copied, in a directory of its own.
const COPIED: &str = "it";
/// The variable that tells programs where the agent is.
const AUTH_SOCK: &str = "SSH_AUTH_SOCK";

/// What is to be mounted for a step.
pub(in crate::stage) struct Furnishing<'a> {
    pub(in crate::stage) wanted: &'a [Wanted<'a>],
    pub(in crate::stage) shown: &'a [Shown],
    pub(in crate::stage) selected: &'a Selected<'a>,
    pub(in crate::stage) id: StepId,
}

/// What goes when the step is over.
#[derive(Default)]
pub(crate) struct Furnished {
    snapshots: Vec<Active>,
    copies: Vec<Arc<Temporary>>,
    caches: BTreeMap<usize, Arc<Taken>>,
    agents: Vec<(Relay, Option<Arc<KeyAgent>>)>,
}

impl fmt::Debug for Furnished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Furnished").finish_non_exhaustive()
    }
}

impl Furnished {
    /// Says whether the step keeps anything in caches.
    pub(in crate::stage) fn has_caches(&self) -> bool {
        !self.caches.is_empty()
    }

    /// Mounts again what a step can have once only.
    pub(crate) fn mount_again(&self, spec: &mut Spec) -> Result<(), MountError> {
        let parts = spec.mounts.iter_mut().filter_map(|mount| match &mut mount.kind {
            Made::Part { of, .. } => Some(of),
            _ => None,
        });
        for (of, snapshot) in parts.zip(&self.snapshots) {
            *of = Source::new(snapshot.mount(None)?);
        }
        Ok(())
    }
}

impl Step<'_> {
    /// Gives a step its mounts.
    pub(in crate::stage) fn furnish(
        &self,
        furnishing: &Furnishing<'_>,
        spec: &mut Spec,
    ) -> StepResult<Furnished> {
        let caches = self.take_caches(furnishing)?;
        let mut furnished = Furnished { caches, ..Furnished::default() };
        for (mount, wanted) in furnishing.wanted.iter().enumerate() {
            let kind = match &wanted.kind {
                MountKind::Bind { writable, .. } => {
                    Some(self.bind(furnishing, mount, *writable, &mut furnished)?)
                }
                MountKind::Cache { .. } => {
                    let (made, lock) = self.cache_mount(wanted, &furnished.caches[&mount])?;
                    spec.held.push(lock);
                    Some(made)
                }
                MountKind::Tmpfs { size, read_only } => {
                    let size = Some(*size).filter(|size| *size > 0);
                    Some(Made::Tmpfs { size, mode: 0o1777, read_only: *read_only })
                }
                MountKind::Secret { id, env, required, owner, .. } => {
                    self.secret(wanted, (id, *required), env.as_deref(), owner, spec)?
                }
                MountKind::Ssh { id, required, owner } => {
                    self.agent(wanted, (id, *required), owner, &mut furnished, spec)?
                }
            };
            if let (Some(target), Some(kind)) = (&wanted.target, kind) {
                spec.mounts.push(StepMount { target: target.clone(), kind });
            }
        }
        Ok(furnished)
    }

    /// Shows files: of a stage or an image those of its layers, of a context a copy of them. What is
    /// written to either goes with it.
    fn bind(
        &self,
        furnishing: &Furnishing<'_>,
        mount: usize,
        writable: bool,
        furnished: &mut Furnished,
    ) -> StepResult<Made> {
        let wanted = &furnishing.wanted[mount];
        if *wanted.from == MountFrom::Nothing {
            let empty = self.temporary(wanted)?;
            let source = open(empty.path()).and_then(|directory| {
                rustix::fs::mkdirat(&directory, COPIED, Mode::from_raw_mode(0o755))?;
                open(&empty.path().join(COPIED))
            });
            furnished.copies.push(Arc::new(empty));
            let source = Source::new(source.map_err(|error| self.cannot_mount(wanted, error))?);
            return Ok(Made::Bind { source, directory: true, read_only: self.keeps(writable) });
        }
        let shown = furnishing.shown.iter().find(|shown| shown.mount == mount);
        let stack = shown.and_then(|shown| Some((shown, shown.origin.stack()?)));
        if let Some((shown, stack)) = stack.filter(|_| self.builder.mounts()) {
            let trees = self.trees(stack, furnishing.id)?;
            let active = self.builder.layers.prepare(&trees);
            let active = active.map_err(|error| self.cannot_mount(wanted, error))?;
            let of = active.mount(None).map_err(|error| self.cannot_mount(wanted, error))?;
            let directory = is_directory(&of, &shown.path);
            let directory = directory.map_err(|error| self.cannot_mount(wanted, error))?;
            furnished.snapshots.push(active);
            let (of, path) = (Source::new(of), shown.path.clone());
            return Ok(Made::Part { of, path, directory, read_only: !writable });
        }
        let selection = furnishing.selected.of(furnishing.shown, mount);
        let selection = selection.ok_or_else(|| self.cancelled())?;
        let copied = match writable && self.builder.mounts() {
            true => Arc::new(self.copied(selection, wanted)?),
            false => self
                .builder
                .shared
                .copies
                .of(&selection.content_id(), || self.copied(selection, wanted))?,
        };
        let path = copied.path().join(COPIED);
        furnished.copies.push(copied);
        let source = open(&path).map_err(|error| self.cannot_mount(wanted, error))?;
        let found = fstat(&source).map_err(|error| self.cannot_mount(wanted, error))?;
        let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let (source, read_only) = (Source::new(source), self.keeps(writable));
        Ok(Made::Bind { source, directory, read_only })
    }

    /// Says whether a mount is told to be read-only. Without mounts a step gets a copy anyhow, and
    /// what it writes is lost: that is what a writable one is to do.
    fn keeps(&self, writable: bool) -> bool {
        !writable || !self.builder.mounts()
    }

    /// Copies what was selected into a directory of its own.
    fn copied(&self, selection: &Selection<'_>, wanted: &Wanted<'_>) -> StepResult<Temporary> {
        let directory = self.temporary(wanted)?;
        self.lay_out(selection, &format!("/{COPIED}"), directory.path(), wanted)?;
        Ok(directory)
    }

    /// Writes what was selected below a directory.
    pub(super) fn lay_out(
        &self,
        selection: &Selection<'_>,
        destination: &str,
        into: &Path,
        wanted: &Wanted<'_>,
    ) -> StepResult<()> {
        let below = View::default();
        let landing = Landing {
            below: &below,
            destination,
            unpack: false,
            owner: None,
            mode: None,
            now: self.now(),
            threads: self.builder.tools.threads,
            scratch: into,
        };
        let out = TreeWriter::new(into).map_err(|error| self.cannot_mount(wanted, error))?;
        let mut out = TreeOut::new(out);
        copy::write(std::slice::from_ref(selection), &landing, &mut out)
            .map_err(|error| self.cannot_show(wanted, error))?;
        out.finish().map_err(|error| self.cannot_mount(wanted, error))
    }

    /// Gives a secret to the step, if there is one of this id: as a variable, as a file, or both.
    fn secret(
        &self,
        wanted: &Wanted<'_>,
        (id, required): (&str, bool),
        env: Option<&str>,
        owner: &Ownership,
        spec: &mut Spec,
    ) -> StepResult<Option<Made>> {
        let given = self.builder.request.mounts.secrets.get(id);
        let Some(bytes) = given.map_err(|error| self.cannot_mount(wanted, error))? else {
            if !required {
                return Ok(None);
            }
            let text = format!("this step needs the secret `{id}`, which was not given");
            let mut problem = self.error(text, wanted.span);
            problem.hint = Some(format!("--secret id={id},src=FILE gives it, or id={id},env=NAME"));
            return Err(StepFailure::new(problem));
        };
        if let Some(name) = env {
            let value = String::from_utf8(bytes.clone()).ok().filter(|text| !text.contains('\0'));
            let value = value.ok_or_else(|| {
                let text = format!("the secret `{id}` is no text, so no variable can hold it");
                StepFailure::new(self.error(text, wanted.span))
            })?;
            spec.secret_env.push((name.to_owned(), Hidden::new(value)));
        }
        if wanted.target.is_none() {
            return Ok(None);
        }
        if !self.builder.mounts() {
            let text = "without mounts, a secret as a file would lie on the disk";
            let mut problem = self.error(text, wanted.span);
            problem.hint = Some("`env=NAME` gives it as a variable".to_owned());
            return Err(StepFailure::new(problem));
        }
        let content =
            Source::in_memory(&bytes).map_err(|error| self.cannot_mount(wanted, error))?;
        Ok(Some(Made::Secret {
            content,
            uid: owner.uid.unwrap_or_default(),
            gid: owner.gid.unwrap_or_default(),
            mode: owner.mode.unwrap_or(SECRET_MODE),
        }))
    }

    /// Gives a step the way to an agent, if there is one of this id.
    fn agent(
        &self,
        wanted: &Wanted<'_>,
        (id, required): (&str, bool),
        owner: &Ownership,
        furnished: &mut Furnished,
        spec: &mut Spec,
    ) -> StepResult<Option<Made>> {
        let agents = &self.builder.request.mounts.agents;
        let Some(source) = agents.get(id) else {
            if !required {
                return Ok(None);
            }
            let text = format!("this step needs the SSH agent `{id}`, which was not given");
            let mut problem = self.error(text, wanted.span);
            problem.hint =
                Some(format!("--ssh {id} gives it yours, --ssh {id}=KEY one with a key"));
            return Err(StepFailure::new(problem));
        };
        let (socket, keys) = match source {
            AgentSource::Socket(socket) => (socket.clone(), None),
            AgentSource::Keys(keys) => {
                let agent = self.builder.shared.key_agents.of(&id.to_owned(), || {
                    let directory = self.temporary(wanted)?;
                    KeyAgent::start(directory, keys, &agents.search)
                        .map_err(|error| self.cannot_mount(wanted, error))
                })?;
                (agent.socket(), Some(agent))
            }
        };
        let access = Access {
            uid: owner.uid.unwrap_or_default(),
            gid: owner.gid.unwrap_or_default(),
            mode: owner.mode.unwrap_or(SSH_MODE),
        };
        let directory = self.temporary(wanted)?;
        let relay = Relay::start(directory.path(), socket, access, !self.builder.single_id);
        let relay = relay.map_err(|error| self.cannot_mount(wanted, error))?;
        let source = open(relay.path()).map_err(|error| self.cannot_mount(wanted, error))?;
        furnished.copies.push(Arc::new(directory));
        furnished.agents.push((relay, keys));
        if let Some(target) = wanted.target.as_ref()
            && !spec.env.iter().any(|(name, _)| name == AUTH_SOCK)
        {
            spec.env.push((AUTH_SOCK.to_owned(), target.clone()));
        }
        Ok(Some(Made::Bind { source: Source::new(source), directory: false, read_only: true }))
    }

    fn temporary(&self, wanted: &Wanted<'_>) -> StepResult<Temporary> {
        let made = self.builder.layers.temporary("mount-");
        made.map_err(|error| self.cannot_mount(wanted, error))
    }

    fn cannot_mount(
        &self,
        wanted: &Wanted<'_>,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StepFailure {
        StepFailure::new(self.error("cannot mount this", wanted.span)).because(error)
    }
}

fn is_directory(
    tree: &OwnedFd,
    path: &str,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let found = rootfs::locate(tree.as_fd(), path)?;
    Ok(FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory)
}

/// Opens something of ours as a location.
pub(super) fn open(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        let error = std::io::Error::from(errno);
        std::io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))
    })
}
