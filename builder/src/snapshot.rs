//! Snapshots: file systems that steps write, and the unpacked layers that they become.
//!
//! ```text
//! ROOT/layers/<view>/{diff,chain}/sha256/<hex>/   0700: set-uid files in it are out of reach
//!     fs/      the tree, in overlayfs's form; its own attributes mean nothing
//!     root     exists if the archive said what the root's attributes are, which `fs` then has
//!     boot     the boot in which the layer was unpacked
//!     durable  exists once the tree was synced
//! ROOT/layers/<view>/stubs/                       mount points that lie beneath every step
//! ROOT/active/<view>/<id>/                        0700, removed when the step ends
//!     lock     held as long as the step's process lives
//!     upper/ work/ empty/ merged/
//! ```
//!
//! [`layers`] owns the first tree and [`active`] the second. A [`view`] is a way to make snapshots:
//! [`overlay`], `fuse` or `copy`; `probe` finds out which of them is possible. `clean` makes an upper
//! directory what its archive would unpack to, and `diff` writes that archive.

pub mod active;
pub mod check;
mod clean;
mod copy;
mod diff;
pub mod fresh;
mod fuse;
pub mod layers;
pub mod overlay;
mod probe;
pub mod view;

#[cfg(test)]
mod testing;

pub use active::{Active, ActiveError, DiffOptions};
pub(crate) use copy::copy_tree;
pub(crate) use diff::read as archive_tree;
pub use fresh::FreshLayer;
pub use layers::{LayerDir, Layers, LayersError, Unpack, stack};
pub use overlay::MountError;
pub use view::{Choice, View, ViewKind, choose};
