//! Tables of contents: what a layer holds, known without its bytes.
//!
//! ```text
//! ROOT/contents/<algorithm>/<hex of the diff ID>    one layer's table: a cache, made again where damaged
//! ```
//!
//! A [`Table`] is recorded wherever a layer's entries pass by: while it is unpacked, while a step's
//! upper directory is diffed, while COPY makes one, or by a scan of its blob. A [`View`] is a stack of
//! them, read as one tree. So COPY finds its destination, `--chown` its user, and `COPY --from` its
//! sources, though no layer is unpacked.

pub mod efficiency;
pub(crate) mod growing;
pub mod recorder;
pub(crate) mod resolve;
pub mod table;
pub mod tables;
pub mod view;

pub use recorder::Recorder;
pub use table::{Row, Table, TableError};
pub use tables::{Tables, TablesError};
pub use view::{View, ViewError};

#[cfg(test)]
mod tests;
