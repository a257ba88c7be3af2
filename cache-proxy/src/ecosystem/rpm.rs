//! RPM repositories, as dnf, yum and zypper use them.
//!
//! A repository is an index set of [`crate::generation`]: `repodata/repomd.xml`, with its signature
//! `repomd.xml.asc` where there is one, lists the other metadata by their digests: `primary`,
//! `filelists`, `other`, `comps`, `updateinfo`, `modules`, in whatever packing. `primary` lists the
//! packages by theirs. What it leaves out: signatures, which clients check, and lists of mirrors, which
//! are documents as any other.

mod format;
pub mod primary;
pub mod repomd;
mod repositories;
mod xml;

pub use format::{Repodata, RootError};
pub use repositories::Rpm;
