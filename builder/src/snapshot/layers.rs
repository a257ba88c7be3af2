//! The unpacked layers: finding them, unpacking them, keeping them.
//!
//! They are a cache of what blobs hold. A tree appears under its name by one rename, after its diff
//! ID agreed, so a tree that is there is whole, except after a crash of the machine: then a tree
//! that was not synced may have lost bytes. So each layer says in which boot it was made and whether
//! it was synced since; one that was made in an earlier boot and never synced does not count.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use boatyard_content::lease::Holding;
use boatyard_content::{Lease, StoreError};
use boatyard_oci::{ChainId, DiffId, Digest};
use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, utimensat};
use thiserror::Error;

use super::view::View;
use crate::contents::Tables;
use crate::layer::dir::{Dir, Form};
use crate::layer::entry::EntryPath;
use crate::layer::stack::StackError;
use crate::layer::{
    Applied, ApplyError, DecompressLimits, Decompressor, Limits, Stack, WriteError, WriteOptions,
    Written, apply,
};

const LOCK: &str = "lock";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why a layer cannot be found or kept.
#[derive(Debug, Error)]
pub enum LayersError {
    /// The file system failed; the error names the path.
    #[error("cannot keep unpacked layers")]
    Io(#[from] io::Error),
    /// The blob cannot be read or unpacked.
    #[error("cannot unpack the layer {diff_id}")]
    Apply {
        /// Which layer.
        diff_id: DiffId,
        /// What is wrong.
        #[source]
        source: ApplyError,
    },
    /// The blob cannot be decompressed.
    #[error("cannot decompress the layer {diff_id}")]
    Decompress {
        /// Which layer.
        diff_id: DiffId,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The bytes are not those that the image's configuration promises.
    #[error("the layer's bytes hash to {actual}, but the image promises {expected}")]
    WrongDiffId {
        /// From the configuration.
        expected: DiffId,
        /// Of the bytes.
        actual: DiffId,
    },
    /// A layer beneath is gone.
    #[error("a layer beneath cannot be opened")]
    Lower(#[from] StackError),
    /// Nothing that could be tried makes a file system for steps.
    #[error("no way to make snapshots works here: {0}")]
    NoView(String),
}

/// An unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDir {
    path: PathBuf,
    diff_id: DiffId,
    form: Form,
}

impl LayerDir {
    /// Returns the tree, as a lower directory of an overlay. Its form depends on the view: it is
    /// read through [`stack`].
    pub fn tree(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// Returns the layer's diff ID.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// Returns the layer's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the layer's archive again, as [`Active::diff`](super::Active::diff) did, or with other
    /// times. The tree stays as it is.
    ///
    /// # Errors
    /// Fails if the tree cannot be read, or the sink fails.
    pub fn archive<W: io::Write>(
        &self,
        sink: W,
        options: WriteOptions,
    ) -> Result<Written, WriteError> {
        let tree = self
            .open()
            .map_err(|errno| WriteError::Entry { path: EntryPath::root(), source: errno.into() })?;
        super::diff::read(&tree, sink, options).map(|(written, _)| written)
    }

    /// Opens a file of the tree; no link in its path is followed.
    ///
    /// # Errors
    /// Fails if there is no such file.
    pub fn open_file(&self, path: &EntryPath) -> io::Result<std::fs::File> {
        let parent = Dir::open(&self.tree())?.descend(&path.parent().unwrap_or_default())?;
        Ok(parent.open_file(path.name().unwrap_or_default())?)
    }

    /// Opens the tree.
    pub(crate) fn open(&self) -> rustix::io::Result<Dir> {
        Dir::open_in(self.form, &self.tree())
    }

    /// Reports whether the attributes of the tree's root are the image's.
    pub(super) fn states_root(&self) -> bool {
        self.path.join("root").exists()
    }
}

/// Opens layers of one view as a stack, the base first.
///
/// # Errors
/// Where one of them is gone.
pub fn stack(layers: &[LayerDir]) -> Result<Stack, StackError> {
    let trees: Vec<_> = layers.iter().map(LayerDir::tree).collect();
    Stack::open_in(layers.first().map_or_else(Form::default, |layer| layer.form), &trees)
}

/// Returns the chain ID of a stack; `None` for an empty one.
pub fn chain_id(layers: &[LayerDir]) -> Option<ChainId> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    ChainId::of(&diff_ids)
}

/// The chain ID of a layer above a stack.
pub(crate) fn chain_above(lowers: &[LayerDir], layer: &DiffId) -> ChainId {
    let first = || ChainId::of(std::slice::from_ref(layer)).expect("one layer is a chain");
    chain_id(lowers).map_or_else(first, |below| below.push(layer))
}

/// What to unpack.
#[derive(Debug)]
pub struct Unpack<'a, R> {
    /// The blob, packed as it may be.
    pub blob: R,
    /// What it must hash to when unpacked.
    pub diff_id: &'a DiffId,
    /// The layers beneath, the base first.
    pub lowers: &'a [LayerDir],
    /// Threads for gzip that we wrote.
    pub threads: usize,
    /// How much the archive may ask for.
    pub limits: Limits,
    /// How much may come out of the blob.
    pub decompress: DecompressLimits,
}

/// The unpacked layers of one root directory, in one view.
#[derive(Clone, Debug)]
pub struct Layers(Arc<Places>);

#[derive(Debug)]
struct Places {
    view: View,
    layers: PathBuf,
    active: PathBuf,
    boot: String,
    /// Names every layer that is found or made, so that nobody removes it meanwhile.
    lease: Lease,
    tables: Tables,
}

impl Layers {
    /// Opens the layers below ROOT, which is created where it is missing. What is found or made
    /// stays as long as the lease.
    ///
    /// # Errors
    /// Fails if directories cannot be made.
    pub fn open(root: &Path, lease: Lease, view: View) -> Result<Self, LayersError> {
        let name = view.name();
        let (layers, active) = (root.join("layers").join(name), root.join("active").join(name));
        for directory in [layers.join("diff/sha256"), layers.join("chain/sha256"), active.clone()] {
            create_private(&directory)?;
        }
        let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        let tables = Tables::open(root);
        Ok(Self(Arc::new(Places { view, layers, active, boot, lease, tables })))
    }

    /// Opens the layers of every view of this process that there is below ROOT.
    ///
    /// # Errors
    /// Fails if they cannot be listed.
    pub fn open_all(root: &Path, lease: &Lease) -> Result<Vec<Self>, LayersError> {
        let entries = match fs::read_dir(root.join("layers")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            if let Some(view) = View::of_directory(&entry?.file_name().to_string_lossy()) {
                all.push(Self::open(root, lease.clone(), view)?);
            }
        }
        Ok(all)
    }

    /// Returns the view.
    pub fn view(&self) -> &View {
        &self.0.view
    }

    /// Returns the tables of contents, to which every layer adds its own that is unpacked or made.
    pub fn tables(&self) -> &Tables {
        &self.0.tables
    }

    /// Finds a layer: one that fits any stack, or else the one for this stack.
    ///
    /// # Errors
    /// Fails if a layer that does not count cannot be removed.
    pub fn find(
        &self,
        diff_id: &DiffId,
        chain_id: &ChainId,
    ) -> Result<Option<LayerDir>, LayersError> {
        let _shared = self.lock_layers(FlockOperation::LockShared)?;
        for path in [self.by_diff(diff_id), self.by_chain(chain_id)] {
            if self.counts(&path)? {
                self.keep(&path)?;
                return Ok(Some(self.layer(path, diff_id)));
            }
        }
        Ok(None)
    }

    /// Unpacks a blob above a stack and returns its layer, also if somebody else was faster.
    ///
    /// # Errors
    /// Fails on a blob that is damaged, hostile or not the promised one; nothing stays then.
    pub fn unpack<R: Read>(&self, unpack: Unpack<'_, R>) -> Result<LayerDir, LayersError> {
        let temporary = self.temporary("unpack-")?;
        let layer = temporary.path().join("layer");
        let tree = layer.join("fs");
        create_private(&layer)?;
        fs::create_dir(&tree)?;
        fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o755))?;
        let stack = self.stack(unpack.lowers)?;
        let diff_id = unpack.diff_id;
        let blob = Decompressor::new(unpack.blob, unpack.threads, unpack.decompress)
            .map_err(|source| LayersError::Decompress { diff_id: diff_id.clone(), source })?;
        let applied = apply(blob, &tree, &stack, unpack.limits)
            .map_err(|source| LayersError::Apply { diff_id: diff_id.clone(), source })?;
        let Applied { diff_id: actual, reliance, root_attributes, table, .. } = applied;
        if actual != *diff_id {
            return Err(LayersError::WrongDiffId { expected: diff_id.clone(), actual });
        }
        if root_attributes {
            fs::write(layer.join("root"), "")?;
        }
        if let Some(table) = table {
            self.tables().put(diff_id, table);
        }
        self.publish(&layer, diff_id, unpack.lowers, reliance.is_none())
    }

    /// Opens a stack in the form of this view, also an empty one.
    pub(super) fn stack(&self, layers: &[LayerDir]) -> Result<Stack, StackError> {
        let trees: Vec<_> = layers.iter().map(LayerDir::tree).collect();
        Stack::open_in(self.0.view.form(), &trees)
    }

    /// Makes what was unpacked so far survive a crash of the machine.
    ///
    /// # Errors
    /// Fails if the file system cannot be synced.
    pub fn make_durable(&self) -> Result<(), LayersError> {
        let mut fresh = Vec::new();
        for kind in ["diff/sha256", "chain/sha256"] {
            for entry in fs::read_dir(self.0.layers.join(kind))? {
                let path = entry?.path();
                if !path.join("durable").exists() && self.counts(&path)? {
                    fresh.push(path);
                }
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(fs::File::open(&self.0.layers)?).map_err(io::Error::from)?;
        for path in fresh {
            match fs::write(path.join("durable"), "") {
                // Somebody removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Gives a finished layer its name. The directory must lie on the same file system.
    pub(super) fn publish(
        &self,
        layer: &Path,
        diff_id: &DiffId,
        lowers: &[LayerDir],
        shared: bool,
    ) -> Result<LayerDir, LayersError> {
        fs::write(layer.join("boot"), &self.0.boot)?;
        let path = if shared {
            self.by_diff(diff_id)
        } else {
            self.by_chain(&chain_above(lowers, diff_id))
        };
        let _shared = self.lock_layers(FlockOperation::LockShared)?;
        // One that does not count is in the way.
        self.counts(&path)?;
        match fs::rename(layer, &path) {
            Ok(()) => {}
            // Somebody else unpacked the same bytes: a rename never replaces a directory in use.
            Err(error) if is_occupied(&error) => {}
            Err(error) => return Err(error.into()),
        }
        self.keep(&path)?;
        Ok(self.layer(path, diff_id))
    }

    fn layer(&self, path: PathBuf, diff_id: &DiffId) -> LayerDir {
        LayerDir { path, diff_id: diff_id.clone(), form: self.0.view.form() }
    }

    /// Names a layer in the lease and notes that it is used now; under the shared lock.
    fn keep(&self, path: &Path) -> Result<(), LayersError> {
        let name = Holding::Layer(self.name(path));
        self.0.lease.add(&name).map_err(|error| LayersError::Io(io::Error::other(error)))?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        utimensat(CWD, path, &times, AtFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    /// Returns how leases name a layer: its directory below `layers/`.
    fn name(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.0.layers).unwrap_or(path);
        format!("{}/{}", self.0.view.name(), below.display())
    }

    /// Returns the layers that are kept by their diff IDs and count, with the names that leases have
    /// for them.
    pub(super) fn by_diff_ids(&self) -> Result<Vec<(String, LayerDir)>, LayersError> {
        let mut layers = Vec::new();
        for entry in fs::read_dir(self.0.layers.join("diff/sha256"))? {
            let path = entry?.path();
            let hex = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(diff_id) = format!("sha256:{hex}").parse::<DiffId>() else { continue };
            if self.counts(&path)? {
                layers.push((self.name(&path), self.layer(path, &diff_id)));
            }
        }
        Ok(layers)
    }

    /// Removes the layers that are not needed and that no lease names, and returns how many those
    /// are. `is_unneeded` is told a layer's name, as leases have it, and when it was used last. They
    /// are a cache of blobs; those without a blob are what a build step ran for.
    ///
    /// # Errors
    /// Fails if the leases cannot be read, or a layer not removed.
    pub fn sweep(
        &self,
        held: impl FnOnce() -> Result<HashSet<String>, StoreError>,
        is_unneeded: impl Fn(&str, SystemTime) -> bool,
        dry_run: bool,
    ) -> Result<u64, LayersError> {
        let swept = self.temporary("swept-")?;
        let mut count = 0;
        {
            // Whoever finds a layer names it in its lease under the shared lock.
            let _exclusive = self.lock_layers(FlockOperation::LockExclusive)?;
            let held = held().map_err(|error| LayersError::Io(io::Error::other(error)))?;
            for kind in ["diff/sha256", "chain/sha256"] {
                for entry in fs::read_dir(self.0.layers.join(kind))? {
                    let path = entry?.path();
                    let used = fs::metadata(&path)?.modified()?;
                    let name = self.name(&path);
                    if held.contains(&name) || !is_unneeded(&name, used) {
                        continue;
                    }
                    if !dry_run {
                        fs::rename(&path, swept.path().join(count.to_string()))?;
                    }
                    count += 1;
                }
            }
        }
        swept.remove()?;
        Ok(count)
    }

    /// Returns the directory of mount points that may lie beneath every step.
    pub fn stubs(&self) -> PathBuf {
        self.0.layers.join("stubs")
    }

    fn lock_layers(&self, operation: FlockOperation) -> Result<fs::File, LayersError> {
        let directory = fs::File::open(&self.0.layers)?;
        rustix::fs::flock(&directory, operation).map_err(io::Error::from)?;
        Ok(directory)
    }

    /// Makes a directory that is removed with its guard, or by [`Self::sweep_active`].
    pub(crate) fn temporary(&self, prefix: &str) -> Result<Temporary, LayersError> {
        let _shared = self.lock_active(FlockOperation::LockShared)?;
        let permissions = std::fs::Permissions::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(prefix).permissions(permissions);
        let directory = builder.tempdir_in(&self.0.active)?;
        let lock = fs::File::create(directory.path().join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)?;
        Ok(Temporary { directory, _lock: lock })
    }

    /// Removes the snapshots of processes that are no more.
    ///
    /// # Errors
    /// Fails if the directory of snapshots cannot be read, or something in it not removed.
    pub fn sweep_active(&self) -> Result<(), LayersError> {
        // Whoever makes a directory holds the shared lock until it has its own.
        let _exclusive = self.lock_active(FlockOperation::LockExclusive)?;
        for entry in fs::read_dir(&self.0.active)? {
            let entry = match entry {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entry => entry?,
            };
            let path = entry.path();
            let lock = match fs::File::open(path.join(LOCK)) {
                Ok(lock) => Some(lock),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            let held = lock.is_some_and(|lock| {
                rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            });
            if held {
                continue;
            }
            let swept = Dir::open(&path).and_then(|directory| directory.remove_content());
            let swept = swept.map_err(io::Error::from).and_then(|()| fs::remove_dir(&path));
            match swept {
                // Whoever made it was removing it, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                swept => swept?,
            }
        }
        Ok(())
    }

    fn lock_active(&self, operation: FlockOperation) -> Result<fs::File, LayersError> {
        let directory = fs::File::open(&self.0.active)?;
        rustix::fs::flock(&directory, operation).map_err(io::Error::from)?;
        Ok(directory)
    }

    fn by_diff(&self, diff_id: &DiffId) -> PathBuf {
        self.by_digest("diff", diff_id.digest())
    }

    fn by_chain(&self, chain_id: &ChainId) -> PathBuf {
        self.by_digest("chain", chain_id.digest())
    }

    fn by_digest(&self, kind: &str, digest: &Digest) -> PathBuf {
        let directory = self.0.layers.join(kind).join(digest.algorithm().name());
        directory.join(digest.hex())
    }

    /// Reports whether a layer is there and whole. One that a crash may have damaged is removed.
    fn counts(&self, path: &Path) -> Result<bool, LayersError> {
        if !path.exists() {
            return Ok(false);
        }
        if self.is_whole(path) {
            return Ok(true);
        }
        let doomed = self.temporary("damaged-")?;
        let _exclusive = self.lock_active(FlockOperation::LockExclusive)?;
        // Somebody may have replaced it by a good one until the lock was ours.
        if self.is_whole(path) {
            return Ok(true);
        }
        match fs::rename(path, doomed.path().join("layer")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(false),
        }
    }

    fn is_whole(&self, path: &Path) -> bool {
        let same_boot =
            || fs::read_to_string(path.join("boot")).is_ok_and(|boot| boot == self.0.boot);
        path.exists() && (path.join("durable").exists() || same_boot())
    }
}

/// A directory that is removed when this is dropped, and swept once its process is gone.
#[derive(Debug)]
pub(crate) struct Temporary {
    directory: tempfile::TempDir,
    _lock: fs::File,
}

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it, and says so if that fails.
    pub(super) fn remove(self) -> io::Result<()> {
        Dir::open(self.path()).and_then(|directory| directory.remove_content())?;
        Ok(())
    }
}

impl Drop for Temporary {
    /// What a step wrote may be deeper than a recursive removal bears.
    fn drop(&mut self) {
        // Best effort: what stays is swept once this process is gone.
        Dir::open(self.path()).and_then(|directory| directory.remove_content()).ok();
    }
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

/// Makes a directory, and those above it, for this user alone.
pub(super) fn create_private(path: &Path) -> Result<(), LayersError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|error| {
        let message = format!("failed to create directory `{}`: {error}", path.display());
        io::Error::new(error.kind(), message).into()
    })
}
