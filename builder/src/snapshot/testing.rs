//! One suite for snapshots: steps that write, and the layers that come of them.
//!
//! Every story is told in every view. A [`World`] is a store of layers and a stack that grows. Each step checks on its own what every
//! layer must satisfy: its archive, unpacked above the same stack, is the tree that was committed.

mod issues;
mod keeping;
mod random;

use std::io::Cursor;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::layers::chain_above;
use super::{ActiveError, DiffOptions, LayerDir, Layers, Unpack, View, ViewKind};
use crate::layer::{
    Archive, ContentTimes, DecompressLimits, Kind, Limits, Restamp, WriteOptions, Written, apply,
};

/// A time that no step runs at.
const LONG_AGO: i64 = 1_000_000_000;

/// Tells a story in each view.
fn on_every_view(story: impl Fn(ViewKind)) {
    for kind in ViewKind::ALL {
        story(kind);
    }
}

struct World {
    root: tempfile::TempDir,
    layers: Layers,
    stack: Vec<LayerDir>,
    stubs: Option<PathBuf>,
    epoch: Option<i64>,
}

struct Step {
    archive: Vec<u8>,
    written: Written,
}

impl World {
    fn new(kind: ViewKind) -> Self {
        let root = tempfile::tempdir().unwrap();
        let lease = boatyard_content::Lease::unheld();
        let layers = Layers::open(root.path(), lease, View::new(kind)).unwrap();
        Self { root, layers, stack: Vec::new(), stubs: None, epoch: None }
    }

    /// The directory of snapshots that are being written.
    fn active(&self) -> PathBuf {
        self.root.path().join("active").join(self.layers.view().name())
    }

    /// A directory of unpacked layers.
    fn kept(&self, name: &str) -> PathBuf {
        self.root.path().join("layers").join(self.layers.view().name()).join(name)
    }

    /// Runs a step on the whole stack and commits its layer on top.
    fn step(&mut self, run: impl FnOnce(&Path)) -> Step {
        self.try_step(run).unwrap()
    }

    fn try_step(&mut self, run: impl FnOnce(&Path)) -> Result<Step, ActiveError> {
        let mut active = self.layers.prepare(&self.stack)?;
        let mount = active.mount(self.stubs.as_deref()).unwrap();
        run(&PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd())));
        drop(mount);
        let mut archive = Vec::new();
        let options = DiffOptions {
            extra_bottom: self.stubs.as_deref(),
            base_layers: self.stack.len(),
            write: WriteOptions {
                times: ContentTimes::None,
                restamp: self.epoch.map_or(Restamp::AS_MADE, Restamp::epoch),
            },
        };
        let written = active.diff(&mut archive, &options)?;
        let layer = active.commit(&written)?;
        self.check(&archive, &written, &layer);
        self.stack.push(layer);
        Ok(Step { archive, written })
    }

    /// The archive unpacks to the tree that was committed, and hashes to what was said.
    fn check(&self, archive: &[u8], written: &Written, layer: &LayerDir) {
        let again = tempfile::tempdir().unwrap();
        let stack = self.layers.stack(&self.stack).unwrap();
        let applied = apply(archive, again.path(), &stack, Limits::default()).unwrap();
        assert_eq!(applied.diff_id, written.diff_id);
        assert_eq!(applied.uncompressed_size, written.size);
        assert_eq!(applied.reliance.whiteouts, written.whiteouts);
        assert!(!applied.reliance.implicit_parents && !applied.reliance.hard_links_downward);
        assert_eq!(tree(again.path()), tree(&layer.tree()));
    }

    /// What the stack shows now, one line per object, as a step would see it.
    fn view(&self) -> Vec<String> {
        let active = self.layers.prepare(&self.stack).unwrap();
        let mount = active.mount(None).unwrap();
        tree(&PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd())))
    }

    fn names(&self) -> Vec<String> {
        self.view().into_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    fn unpack(&self, step: &Step) -> LayerDir {
        let unpack = Unpack {
            blob: Cursor::new(step.archive.clone()),
            diff_id: &step.written.diff_id,
            lowers: &self.stack,
            threads: 1,
            limits: Limits::default(),
            decompress: DecompressLimits::default(),
        };
        self.layers.unpack(unpack).unwrap()
    }
}

impl Step {
    /// The archive's entries: a sign for the kind, the name, and a link's target.
    fn entries(&self) -> Vec<String> {
        let mut archive = Archive::new(self.archive.as_slice(), Limits::default());
        let mut lines = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            let name = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
            lines.push(match entry.kind {
                Kind::Directory => format!("{name}/"),
                Kind::Symlink { target } => format!("{name} -> {}", target.escape_ascii()),
                Kind::HardLink { target } => format!("{name} = {target}"),
                _ => name,
            });
        }
        lines
    }
}

/// Every object of a tree with all that a layer keeps of it.
fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    list(root, Path::new(""), &mut lines);
    lines.sort();
    lines
}

fn list(root: &Path, below: &Path, lines: &mut Vec<String>) {
    for entry in fs_err::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let full = root.join(&path);
        let meta = fs_err::symlink_metadata(&full).unwrap();
        let is_device = meta.mode() & 0o170_000 == 0o020_000;
        let is_socket = meta.mode() & 0o170_000 == 0o140_000;
        let whiteout = (is_device && meta.rdev() == 0) || is_socket;
        if whiteout {
            lines.push(format!("{} whiteout", path.display()));
            continue;
        }
        let content = if meta.is_file() {
            blake3::hash(&fs_err::read(&full).unwrap()).to_hex()[..8].to_owned()
        } else if meta.is_symlink() {
            fs_err::read_link(&full).unwrap().display().to_string()
        } else {
            format!("{:x}", meta.rdev())
        };
        let directory = crate::layer::dir::Dir::open(full.parent().unwrap()).unwrap();
        let name = full.file_name().unwrap().as_encoded_bytes();
        let xattrs = directory.xattrs(name).unwrap();
        let xattrs: Vec<_> =
            xattrs.iter().map(|(k, v)| (k.escape_ascii().to_string(), v)).collect();
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let (mode, uid, gid, mtime) = (meta.mode(), meta.uid(), meta.gid(), meta.mtime());
        let nsec = meta.mtime_nsec();
        lines.push(format!(
            "{} {mode:o} {uid}:{gid} {mtime}.{nsec} {content} {links} {xattrs:?}",
            path.display()
        ));
        if meta.is_dir() {
            list(root, &path, lines);
        }
    }
}

fn write(root: &Path, name: &str, content: &str) {
    fs_err::write(root.join(name), content).unwrap();
}

fn mkdir(root: &Path, name: &str) {
    fs_err::create_dir_all(root.join(name)).unwrap();
}

fn chmod(root: &Path, name: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
}

fn remove(root: &Path, name: &str) {
    let path = root.join(name);
    if fs_err::symlink_metadata(&path).unwrap().is_dir() {
        fs_err::remove_dir_all(path).unwrap();
    } else {
        fs_err::remove_file(path).unwrap();
    }
}

fn touch(root: &Path, name: &str, seconds: i64) {
    let parent = root.join(name);
    let directory = crate::layer::dir::Dir::open(parent.parent().unwrap()).unwrap();
    let name = parent.file_name().unwrap().as_encoded_bytes();
    directory.set_mtime(name, crate::layer::Mtime::from_seconds(seconds)).unwrap();
}

fn chown(root: &Path, name: &str, owner: u32) {
    std::os::unix::fs::lchown(root.join(name), Some(owner), Some(owner)).unwrap();
}

fn set_xattr(root: &Path, name: &str, xattr: &str, value: &[u8]) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(root.join(name), xattr, value, flags).unwrap();
}
