//! The archive format of layers: a reader that accepts what the world writes, and a writer that has
//! one way to write each entry.
//!
//! [`Archive`] understands ustar, PAX, GNU long names, base-256 numbers and sparse files in all four
//! forms; they come out as plain files with zeros in their holes. [`Writer`] emits ustar headers with
//! PAX records only where a value does not fit, so that equal entries give equal bytes.
//!
//! An entry's size is computed once, and the same number says how many bytes are read as content and
//! where the next header begins: an archive whose PAX and ustar sizes disagree cannot smuggle entries
//! in (CVE-2025-62518). Memory is bounded by [`Limits`], never by what the archive claims.
//!
//! Left out on purpose: multi-volume archives, incremental dumps and sub-second times when writing.

mod header;
mod pax;
mod read;
mod sparse;
mod write;

pub use header::HeaderError;
pub use pax::PaxError;
pub use read::{Archive, Content, Limits, TarError};
pub use sparse::SparseError;
pub use write::Writer;

#[cfg(test)]
mod tests;
