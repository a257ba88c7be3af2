//! A snapshot that a step is writing: made, mounted, diffed, and then committed or discarded.
//!
//! [`Active::commit`] and [`Active::discard`] consume it, and a dropped one is discarded. A process
//! that is killed leaves a directory behind, whose lock nobody holds: [`Layers::sweep_active`]
//! removes those.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use rustix::io::Errno;
use thiserror::Error;

use super::clean::{self, CleanError};
use super::copy::{self, Laid};
use super::diff;
use super::fuse::{self, Daemon};
use super::layers::{LayerDir, Layers, LayersError, Temporary, create_private};
use super::overlay::{MountError, Overlay};
use super::view::ViewKind;
use crate::layer::dir::Dir;
use crate::layer::entry::is_written_xattr;
use crate::layer::stack::StackError;
use crate::layer::{Mtime, Stack, WriteError, WriteOptions, Written};

/// Why a snapshot cannot be diffed or kept.
#[derive(Debug, Error)]
pub enum ActiveError {
    /// The directories of the snapshot failed.
    #[error("cannot keep the snapshot")]
    Layers(#[from] LayersError),
    /// A layer beneath cannot be read.
    #[error("cannot read what lies beneath the snapshot")]
    Stack(#[from] StackError),
    /// What the step wrote cannot be made into a layer.
    #[error("cannot make a layer of what the step wrote")]
    Clean(#[from] CleanError),
    /// The layer's archive cannot be written.
    #[error("cannot write the layer of the step")]
    Write(#[from] WriteError),
}

/// How to diff a snapshot.
#[derive(Clone, Debug)]
pub struct DiffOptions<'a> {
    /// The directory that was given to [`Active::mount`]: what only it has is no part of the image.
    pub extra_bottom: Option<&'a Path>,
    /// How many of the layers beneath are the base image's, whose times are what they are.
    pub base_layers: usize,
    /// How times are treated.
    pub write: WriteOptions,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub struct Active {
    layers: Layers,
    lowers: Vec<LayerDir>,
    directory: Temporary,
    mounted: Mutex<Mounted>,
}

/// What has to be seen to when the mounts are gone.
#[derive(Debug, Default)]
struct Mounted {
    daemons: Vec<Daemon>,
    laid: Option<Laid>,
}

impl Layers {
    /// Starts a snapshot above a stack, the base first; an empty stack is `FROM scratch`.
    ///
    /// # Errors
    /// Fails if its directories cannot be made.
    pub fn prepare(&self, lowers: &[LayerDir]) -> Result<Active, LayersError> {
        let directory = self.temporary("step-")?;
        for name in ["upper", "empty"] {
            create_private(&directory.path().join(name))?;
        }
        let (lowers, mounted) = (lowers.to_vec(), Mutex::default());
        let active = Active { layers: self.clone(), lowers, directory, mounted };
        active.take_root_attributes(&active.open_upper()?)?;
        Ok(active)
    }
}

impl Active {
    /// Returns the directory into which changes go.
    pub fn upper(&self) -> PathBuf {
        self.directory.path().join("upper")
    }

    /// Mounts the snapshot, attached nowhere. `extra_bottom` lies beneath all layers: mount points
    /// in it need not exist in the image, and never get into the upper directory.
    ///
    /// Copies, where nothing can be mounted, are given as their directory. The mount must be gone
    /// before [`Self::diff`].
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn mount(&self, extra_bottom: Option<&Path>) -> Result<OwnedFd, MountError> {
        let path = |name| self.directory.path().join(name);
        let (upper, work, empty) = (self.upper(), path("work"), path("empty"));
        self.fresh_work(&work)?;
        let mut lowers = self.lower_trees();
        // Overlayfs insists on something to lie over.
        lowers.push(extra_bottom.map_or_else(|| empty.clone(), Path::to_owned));
        let form = self.layers.view().form();
        let overlay =
            Overlay { lowers: &lowers, upper: &upper, work: &work, mount_point: &empty, form };
        match self.layers.view().kind() {
            ViewKind::Root | ViewKind::User => overlay.mount(),
            ViewKind::Fuse => {
                let (mount, daemon) = fuse::mount(&overlay)?;
                self.mounted().daemons.push(daemon);
                Ok(mount)
            }
            ViewKind::Copy => self.lay(extra_bottom),
        }
    }

    /// Copies what lies beneath, once, and opens the copy.
    fn lay(&self, extra_bottom: Option<&Path>) -> Result<OwnedFd, MountError> {
        let merged = self.merged();
        let mut mounted = self.mounted();
        if mounted.laid.is_none() {
            let failed = |source: io::Error| MountError::Open { path: merged.clone(), source };
            let missing = |error: StackError| failed(io::Error::other(error));
            create_private(&merged).map_err(|error| failed(io::Error::other(error)))?;
            let beneath = self.layers.stack(&self.lowers).map_err(missing)?;
            let stubs: Vec<_> = extra_bottom.into_iter().collect();
            let laid = copy::lay(&merged, &beneath, &Stack::open(&stubs).map_err(missing)?)?;
            let root = Dir::open(&merged).map_err(|errno| failed(errno.into()))?;
            self.take_root_attributes(&root).map_err(|error| failed(io::Error::other(error)))?;
            mounted.laid = Some(laid);
        }
        copy::open(&merged, self.layers.view().is_mounted())
    }

    /// Cleans the upper directory until it is what its archive would unpack to, and writes that
    /// archive.
    ///
    /// # Errors
    /// Fails if the step left something that no layer can hold, and if the file system or the sink
    /// does.
    pub fn diff<W: Write>(
        &mut self,
        sink: W,
        options: &DiffOptions<'_>,
    ) -> Result<Written, ActiveError> {
        let stubs: Vec<_> = options.extra_bottom.into_iter().collect();
        let (beneath, stubs) = (self.layers.stack(&self.lowers)?, Stack::open(&stubs)?);
        let upper = self.open_upper()?;
        self.settle(&upper, &beneath)?;
        let of_base = self.lowers.len().min(options.base_layers);
        let base = self.layers.stack(&self.lowers[..of_base])?;
        let inherited = clean::clean(&upper, &beneath, &base, &stubs)?;
        let (written, table) = diff::write(&upper, sink, options.write.clone(), inherited)?;
        if let Some(table) = table {
            self.layers.tables().put(&written.diff_id, table);
        }
        Ok(written)
    }

    /// Gets what the step wrote into the upper directory, if it is not there yet.
    fn settle(&mut self, upper: &Dir, beneath: &Stack) -> Result<(), ActiveError> {
        let Mounted { daemons, laid } = std::mem::take(&mut *self.mounted());
        for daemon in daemons {
            daemon.finish().map_err(LayersError::from)?;
        }
        match (self.layers.view().kind(), laid) {
            (ViewKind::Fuse, _) => {
                fuse::rewrite(upper).map_err(|errno| LayersError::Io(errno.into()))?;
            }
            (_, Some(laid)) => copy::collect(&self.merged(), &laid, beneath, upper)?,
            _ => {}
        }
        Ok(())
    }

    fn merged(&self) -> PathBuf {
        self.directory.path().join("merged")
    }

    fn mounted(&self) -> MutexGuard<'_, Mounted> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Freezes the snapshot as the layer that [`Self::diff`] wrote.
    ///
    /// # Errors
    /// Fails if it cannot be moved to its place.
    pub fn commit(self, written: &Written) -> Result<LayerDir, ActiveError> {
        let layer = self.directory.path().join("layer");
        create_private(&layer)?;
        fs::rename(self.upper(), layer.join("fs")).map_err(LayersError::from)?;
        let shared = !written.whiteouts;
        Ok(self.layers.publish(&layer, &written.diff_id, &self.lowers, shared)?)
    }

    /// Ends the snapshot and removes what was written.
    ///
    /// # Errors
    /// Fails if something cannot be removed.
    pub fn discard(self) -> Result<(), LayersError> {
        Ok(self.directory.remove()?)
    }

    /// Returns the trees beneath, the topmost first.
    ///
    /// An image may hold a layer twice, and overlayfs takes no directory twice. Only the topmost
    /// says anything: what it holds is all there again, and a shared layer removes nothing.
    fn lower_trees(&self) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let trees = self.lowers.iter().rev().map(LayerDir::tree);
        trees.filter(|tree| seen.insert(tree.clone())).collect()
    }

    /// The root of an overlay has the attributes of its upper directory; give it the image's.
    fn take_root_attributes(&self, upper: &Dir) -> Result<(), LayersError> {
        let stated = self.lowers.iter().rev().find(|layer| layer.states_root());
        let set = || -> rustix::io::Result<()> {
            let Some(layer) = stated else {
                upper.set_mode(b".", 0o755)?;
                return upper.set_own_mtime(Mtime::default());
            };
            let lower = layer.open()?;
            let root = lower.own()?;
            upper.set_owner(b".", root.uid, root.gid)?;
            for (name, value) in lower.xattrs(b".")? {
                if is_written_xattr(&name) {
                    upper.set_xattr(b".", &name, &value)?;
                }
            }
            upper.set_mode(b".", root.mode)?;
            upper.set_own_mtime(root.mtime)
        };
        set().map_err(|errno| LayersError::Io(errno.into()))
    }

    fn open_upper(&self) -> Result<Dir, LayersError> {
        Dir::open_in(self.layers.view().form(), &self.upper())
            .map_err(|errno| LayersError::Io(errno.into()))
    }

    /// A volatile mount marks its work directory as used up, so each mount gets a new one.
    fn fresh_work(&self, work: &Path) -> Result<(), MountError> {
        let fresh = || -> rustix::io::Result<()> {
            let directory = Dir::open(self.directory.path())?;
            match directory.remove(b"work") {
                Ok(()) | Err(Errno::NOENT) => directory.make_dir(b"work"),
                Err(errno) => Err(errno),
            }
        };
        fresh().map_err(|errno| MountError::Open { path: work.to_owned(), source: errno.into() })
    }
}
