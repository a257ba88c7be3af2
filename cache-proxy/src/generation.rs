//! Generations: index sets of which no client ever sees a mixture.
//!
//! A set is a root that lists its children by their digests: `InRelease` and what is below it,
//! `repomd.xml` and its metadata. Upstreams replace the files of a set one after the other, and
//! mirrors fetch them one after the other; whoever looks meanwhile gets a root and children that do
//! not agree. Here they always do:
//!
//! ```text
//! client asks for the root ──▶ check: is there a newer one upstream?
//!                                │ yes: bring every child that clients want, each with the digest
//!                                │      that the new root lists
//!                                ├─ all there ──▶ publish: the new generation is shown
//!                                └─ not all  ──▶ the one before stays; it is tried again by itself,
//!                                                and by the next request
//! client asks for a child ──▶ the bytes that *its* root lists, or an error: never others
//! ```
//!
//! - Which root is a client's: by the digest in the URL; else by its connection; see [`binding`].
//! - A few generations stay behind the newest, for clients that were given their roots.
//! - A set never goes back: a root that is older than the one that was served is not shown.
//! - When the upstream is gone, what is held is served until its root says that it is no longer
//!   valid; then there is an error that says why.
//!
//! What a root looks like and where children can be had, a [`Format`] knows. What it leaves out:
//! signatures, which clients check, for they have the keys.

pub mod binding;
mod bring;
pub mod catalogue;
mod check;
mod format;
mod held;
mod listing;
mod packages;
mod publish;
mod retry;
mod set;
pub mod sets;
pub mod unpack;
mod wanted;

pub use bring::Missing;
pub use check::Checked;
pub use format::{Format, RootFile};
pub use held::{Generation, RootBlob};
pub use listing::{Child, Listing};
pub use packages::Found;
pub use set::{Asking, Options, Set};
pub use sets::Sets;
