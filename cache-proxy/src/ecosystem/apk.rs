//! Alpine's repositories, as apk uses them.
//!
//! ```text
//! <repository>/<architecture>/APKINDEX.tar.gz       signed; lists the packages beside it
//! <repository>/<architecture>/hello-2.12-r0.apk     a signature, a control segment, the files
//! ```
//!
//! An index is an index set of [`crate::generation`] that has no children: one that is broken is never
//! shown, and older ones stay for clients that have them. It gives the size of each package, and the
//! SHA-1 of its control segment; that segment gives the SHA-256 of the rest. Both are checked of what
//! is fetched, before anybody gets it; what differs is fetched anew once, for packages are replaced
//! under their names. What it leaves out: signatures, which clients check.

mod index;
mod repositories;
pub mod segments;

pub use index::{IndexError, Indexes};
pub use repositories::Apk;
