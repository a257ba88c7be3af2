//! Layers: the archives that an image is stacked from.
//!
//! What an archive holds ([`entry`], [`whiteout`]), how it is read and written ([`tar`],
//! [`mod@write`]), what identifies it whatever its bytes are ([`content_id`]), how it becomes a directory
//! ([`mod@apply`]) above what lies beneath ([`stack`]), and how its bytes are packed ([`compress`],
//! [`decompress`]). All of it is plain blocking code.

pub mod apply;
pub mod compress;
pub mod content_id;
pub mod decompress;
pub(crate) mod dir;
pub mod entry;
pub mod hashed;
pub mod rewrite;
pub mod stack;
pub mod tar;
#[cfg(test)]
pub(crate) mod testing;
pub mod times;
pub mod tree;
pub mod whiteout;
pub mod write;

pub use apply::{Applied, ApplyError, Reliance, apply};
pub use compress::{Compression, Compressor};
pub use content_id::ContentId;
pub use decompress::{DecompressLimits, Decompressor};
pub use entry::{Entry, EntryPath, Kind, Mtime, Xattrs};
pub use hashed::Content;
pub use stack::Stack;
pub use tar::{Archive, Limits};
pub use times::{Chosen, ContentTimes, Restamp};
pub use tree::TreeWriter;
pub use write::{LayerWriter, WriteError, WriteOptions, Written};
