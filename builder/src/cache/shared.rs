//! The cache of many machines: what steps made, as it travels between them.
//!
//! ```text
//! image manifest, artifactType application/vnd.boatyard.cache.v1+json
//!   config   application/vnd.boatyard.cache.ledger.v1+zstd     a [`Ledger`]: records, small
//!   layers   the blobs of the records' layers, as images have them, and
//!            application/vnd.boatyard.cache.{files,pack}.v1+zstd of cache mounts ([`mount`])
//! ```
//!
//! Any registry takes such a manifest, and keeps what it refers to. An import reads the ledger and
//! nothing else ([`Imports`]): a blob is fetched when somebody needs its bytes. An export adds what a
//! build solved ([`Solved`]) to what the place has ([`Ledger::merge`]), so that two machines add up, and
//! leaves out what nobody used for long ([`Ledger::prune`]).
//!
//! Whoever may write there decides what steps are taken to have made: records are believed, as those of
//! this machine are. What is checked is that bytes are what the ledger says: digest and size of each
//! blob, the diff ID and the content ID of each layer. Only then does something become part of this
//! machine's own cache.

pub mod imports;
pub mod ledger;
pub mod mount;
pub mod solved;

pub use imports::{Depot, ImportError, Imports, Source};
pub use ledger::{Ledger, LedgerError, SharedBlob, SharedLayer, SharedRecord};
pub use mount::SharedMount;
pub use solved::{Mode, Solved};

/// The type of the artifact.
pub const ARTIFACT: &str = "application/vnd.boatyard.cache.v1+json";
/// The media type of the records.
pub const LEDGER: &str = "application/vnd.boatyard.cache.ledger.v1+zstd";
/// The media type of the list of a cache mount's files.
pub const FILES: &str = "application/vnd.boatyard.cache.files.v1+zstd";
/// The media type of the contents of a cache mount's files.
pub const PACK: &str = "application/vnd.boatyard.cache.pack.v1+zstd";
/// The property of an image's configuration that holds the records of its own steps.
pub const INLINE: &str = "boatyard.cache.v1";
