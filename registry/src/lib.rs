//! The OCI Distribution server: push and pull of images over HTTP, on the shared store.
//!
//! [`router`] is the whole of it: a request enters there, and the modules of `http` are named for
//! what it may ask for. Blobs and repositories are `content`'s, sockets are `front`'s; what is
//! here is the protocol between them.

#![forbid(unsafe_code)]

pub mod immutable;
pub mod limits;
pub mod mirror;
pub mod pattern;
pub mod policies;
pub mod quota;
pub mod retention;
pub mod uses;
pub mod webhooks;

use boatyard_content::cache;

mod chain;
mod http;
mod rate;
mod registry;
mod sessions;

pub use boatyard_access::{Access, Action, Caller, Identity, OpenAccess, Verdict};
pub use http::{guarded_router, router};
pub use immutable::{Immutable, ImmutableRule};
pub use limits::Limits;
pub use mirror::{Mirror, MirrorOptions, Mirrors};
pub use pattern::{TagPattern, TagPatternError};
pub use policies::Policies;
pub use quota::{QuotaRule, Quotas};
pub use rate::RateLimit;
pub use registry::Registry;
pub use retention::RetentionRule;
pub use uses::Uses;
pub use webhooks::{Webhook, Webhooks};

#[cfg(test)]
mod tests;
