//! The HTTP caching proxy and its package ecosystems.
//!
//! One engine, and thin knowledge per [`Ecosystem`] of which URLs never change, what vouches for
//! what, and which indexes must agree. What was fetched is an [`Entry`]: a file that names its URL,
//! its headers and the blob of the shared store that has its bytes.

#![forbid(unsafe_code)]

pub mod answer;
pub mod catalogue;
pub mod class;
pub mod ecosystem;
pub mod engine;
pub mod entry;
pub mod forward;
pub mod generation;
pub mod headers;
pub mod hosted;
pub mod import;
pub mod policy;
pub mod reply;
pub mod request;
pub mod selection;
pub mod statistics;
pub mod target;
pub mod upstreams;

pub use class::{Class, Immutable, Mutable, Promise};
pub use ecosystem::{
    Ask, Classified, Ecosystem, Explained, Fetcher, Obtain, ObtainError, Obtained, Resolution,
    Resolved,
};
pub use engine::{Engine, EngineOptions};
pub use entry::Entry;
pub use hosted::{Admitted, Hosted, Refused, Seen, Upload};
pub use policy::{NamePatterns, Policy, Withdrawn};
pub use reply::Reply;
pub use request::Request;
pub use target::{Target, TargetError};
pub use upstreams::{Upstream, Upstreams, UpstreamsError};
