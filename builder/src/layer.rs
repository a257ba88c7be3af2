//! Layers: the archives that an image is stacked from.
//!
//! What an archive holds ([`entry`], [`whiteout`]), how it is read and written ([`tar`],
//! [`write`]), how its bytes are packed ([`compress`], [`decompress`]), how it becomes a directory
//! ([`apply`]) and what identifies it whatever its times are ([`content_id`]). All of it is plain
//! blocking code.

pub mod entry;
pub mod whiteout;
pub mod tar;

pub use entry::{Entry, EntryPath, Kind, Mtime, Xattrs};
