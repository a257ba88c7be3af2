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
//!     upper/ work/ empty/
//! ```
//!
//! [`layers`] owns the first tree and [`active`] the second; [`overlay`] mounts, `clean` makes an
//! upper directory what its archive would unpack to, and `diff` writes that archive. A view is one
//! kind of extended attributes and one map of ids; so far there is `root`: `trusted.*`, ids as they
//! are.

pub mod active;
mod clean;
mod diff;
pub mod fresh;
pub mod layers;
pub mod overlay;

#[cfg(test)]
mod testing;

pub use active::{Active, ActiveError, DiffOptions};
pub(crate) use diff::write as archive_tree;
pub use fresh::FreshLayer;
pub use layers::{LayerDir, Layers, LayersError, Unpack};
pub use overlay::MountError;
