//! The registry over real connections: every row of the specification's table, and what clients
//! and networks do to it.

mod hostile;
mod lists;
mod manifests;
mod mirror;
mod mounts;
mod pull;
mod push;
mod rights;
mod sessions;
mod support;
