//! The store on plain files, which several processes use at once.
//!
//! ```text
//! ROOT/version                    the format; every process holds a shared lock on it for life
//! ROOT/blobs/<algorithm>/ab/<hex> bytes that hash to their own name, read-only
//! ROOT/ingest/<key>/{data,state,note}  bytes that have no name yet, with their saved hash state
//! ROOT/hosted, mirror, images     repositories (see [`crate::repository`])
//! ROOT/leases/<process>/{owner,<n>}  what running processes rely on
//! ROOT/locks/blobs/ab             one lock for each shard of the blobs
//! ROOT/locks/repositories/ab      one lock for each shard of the repositories
//! ROOT/journal/<number>           what changed in repositories, newest segments
//! ROOT/quarantine/                blobs that fsck found damaged
//! ```
//!
//! The rest of ROOT belongs to the crates above; [`layout::Layout`] names it all, so that no two
//! collide.

pub mod adopt;
pub mod disk;
pub mod fitness;
pub mod journal;
pub mod layout;

mod durable;
mod ingest;
mod leases;
mod lock;
mod root;
mod shelves;
mod sys;
mod together;

pub use durable::{create_unsynced, write_unsynced, write_whole};
pub use leases::Member;
pub use root::{FORMAT, Root, RootError, RootOptions};
pub use shelves::LocalStore;
pub use sys::{Mapping, give_memory_back, keep_buffers};

pub(crate) use durable::{Staged, make_directories, temporary_name};
pub(crate) use ingest::discard as discard_ingest;
pub(crate) use leases::{holdings, who_holds};
pub(crate) use lock::{Lock, try_lock as lock_file};
pub(crate) use root::Shared;
pub(crate) use shelves::{changed, each_name, entries, read_if_there, touch};

#[cfg(test)]
mod tests;
