//! The one content-addressed store: blobs, and the repositories that name them.
//!
//! Builder, registry and cache proxy share it. [`store`] has the trait and its contract;
//! [`local`] is the store on plain files, which several processes use at once; [`memory`] serves
//! tests; [`testing`] has the suite that every store passes. A blob is visible only after its
//! digest was computed and, where one was promised, agreed; only [`gc`] deletes one.

#![deny(unsafe_code)]

pub mod cache;
pub mod encodings;
pub mod entries;
pub mod fsck;
pub mod gc;
pub mod generations;
pub mod holders;
pub mod ingest;
pub mod lease;
pub mod local;
pub mod memory;
pub mod packages;
pub mod repository;
pub mod store;
pub mod testing;
pub mod usage;

pub use ingest::{Expected, Growing, Growth, Ingest, IngestKey, Landed, Piece};
pub use lease::Lease;
pub use local::Root;
pub use store::{Blob, BlobFile, BlobInfo, Store, StoreError};
