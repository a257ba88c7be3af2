//! apt: the archives of Debian and its kin.
//!
//! A suite is an index set of [`crate::generation`]: `InRelease`, or `Release` with `Release.gpg`,
//! lists the other indexes by their digests. `Packages` and `Sources` list the package files by
//! theirs; a [`crate::generation::catalogue`] finds one among all of a generation. So every byte is checked by what names
//! it, from the root down, and a package file that is replaced under its name is fetched anew. What
//! no index names is revalidated on each use.
//!
//! Keys are the client's: it checks who signed. What is read of a signature here is whether it was
//! made of these bytes ([`signature`]).

pub mod address;
mod archives;
pub mod clearsign;
pub mod date;
mod format;
pub mod packages;
pub mod pdiff;
pub mod release;
pub mod signature;
pub mod stanza;

#[cfg(test)]
mod tests;

pub use archives::Apt;
pub use format::{RootError, Suites};
