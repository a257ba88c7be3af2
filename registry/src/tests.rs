//! The registry over real connections: every row of the specification's table, and what clients
//! and networks do to it.

mod artifacts;
mod conformance;
mod cves;
mod hostile;
mod limits;
mod lists;
mod manifests;
mod mirror;
mod mounts;
mod policies;
mod property;
mod pull;
mod push;
mod rights;
mod sessions;
pub(crate) mod support;
