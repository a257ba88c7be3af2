//! The client of other registries: OCI Distribution from the client's side.
//!
//! [`Client`] has the single requests; [`pull`] and [`push`] move whole images between a registry
//! and a store, many blobs at once, each resumed where its connection broke.

pub mod blob;
pub mod catalog;
pub mod client;
pub mod error;
pub mod login;
pub mod mount;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reach;
pub mod referrers;
pub mod resolve;
pub mod tags;

mod endpoint;
mod select;
mod upload;

pub use blob::BlobStream;
pub use client::{Client, ClientOptions, PlainHttp, SetupError};
pub use error::{ClientError, Deed};
pub use login::Login;
pub use progress::{NoProgress, Outcome, TransferProgress};
pub use pull::{Platforms, PullError, Pulled, pull, pull_blobs, pull_manifests};
pub use push::{PushError, Pushed, push, push_blobs};
