//! Views: the ways in which unpacked layers become a file system that a step can write.
//!
//! A view is one kind of snapshot and one map of ids, and has its own directories below ROOT: what
//! one wrote, another cannot read. All of them make the same layers of the same changes.
//!
//! | view | a snapshot is | needs |
//! |---|---|---|
//! | `root` | an overlay of the kernel's | the rights of the host's root |
//! | `user-<map>` | an overlay of the kernel's | a user namespace, Linux 5.11 |
//! | `fuse-<map>` | an overlay of the program fuse-overlayfs | a user namespace, /dev/fuse |
//! | `copy-<map>` | a copy of the whole tree | nothing |
//!
//! `<map>` stands for the ids that the process has, and is absent where it has all.

use std::fmt;
use std::path::Path;

use super::layers::LayersError;
use super::probe::{self, ProbeError};
use crate::ids;
use crate::layer::dir::Form;

/// A kind of snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewKind {
    /// The kernel's overlay, with the attributes that only root may write.
    Root,
    /// The kernel's overlay, with attributes that a user may write.
    User,
    /// The overlay of fuse-overlayfs.
    Fuse,
    /// Copies.
    Copy,
}

impl ViewKind {
    /// All of them, the best first.
    pub const ALL: [ViewKind; 4] = [ViewKind::Root, ViewKind::User, ViewKind::Fuse, ViewKind::Copy];

    fn directory(self) -> &'static str {
        match self {
            ViewKind::Root => "root",
            ViewKind::User => "user",
            ViewKind::Fuse => "fuse",
            ViewKind::Copy => "copy",
        }
    }

    /// Returns how its trees say what is gone.
    pub(crate) fn form(self) -> Form {
        match self {
            ViewKind::Root => Form::Trusted,
            ViewKind::User | ViewKind::Fuse => Form::User,
            ViewKind::Copy => Form::Plain,
        }
    }
}

impl fmt::Display for ViewKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ViewKind::Root => "overlay, as root",
            ViewKind::User => "overlay, in a user namespace",
            ViewKind::Fuse => "fuse-overlayfs",
            ViewKind::Copy => "copies",
        })
    }
}

/// A kind of snapshot, with the ids of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    kind: ViewKind,
    name: String,
    is_mounted: bool,
}

impl View {
    /// Returns the view of a kind for this process, whether it is possible or not.
    pub fn new(kind: ViewKind) -> View {
        let directory = kind.directory();
        let name = match ids::map_name() {
            Some(map) => format!("{directory}-{map}"),
            None => directory.to_owned(),
        };
        View { kind, name, is_mounted: true }
    }

    /// Returns the view that has a directory of this name; `None` where it is none of this process.
    pub fn of_directory(name: &str) -> Option<View> {
        ViewKind::ALL.into_iter().map(View::new).find(|view| view.name == name)
    }

    /// Returns copies that are given to steps as directories, also where they could be mounted.
    pub fn unmounted() -> View {
        View { is_mounted: false, ..View::new(ViewKind::Copy) }
    }

    /// Reports whether steps get mounts, where those are possible.
    pub(crate) fn is_mounted(&self) -> bool {
        self.is_mounted
    }

    /// Returns the kind.
    pub fn kind(&self) -> ViewKind {
        self.kind
    }

    /// Returns the name of its directories.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn form(&self) -> Form {
        self.kind.form()
    }
}

/// Which view is used, and why none that is better.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The first that is possible.
    pub view: View,
    /// Those before it, with what is in the way of each.
    pub refused: Vec<(ViewKind, String)>,
}

/// Tries kinds in order, below ROOT, and returns the first that works there.
///
/// To be asked once, by whoever then opens [`Layers`](super::Layers) with the answer: trying takes
/// a mount.
///
/// # Errors
/// Where none works, or ROOT cannot be written.
pub fn choose(root: &Path, kinds: &[ViewKind]) -> Result<Choice, LayersError> {
    let mut refused = Vec::new();
    for &kind in kinds {
        let view = View::new(kind);
        match probe::probe(root, &view) {
            Ok(()) => return Ok(Choice { view, refused }),
            Err(ProbeError::Refused(why)) => refused.push((kind, why)),
            Err(ProbeError::Root(error)) => return Err(error.into()),
        }
    }
    let reasons = refused.iter().map(|(kind, why)| format!("{kind}: {why}"));
    Err(LayersError::NoView(reasons.collect::<Vec<_>>().join("; ")))
}
