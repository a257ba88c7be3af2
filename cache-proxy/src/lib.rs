//! The HTTP caching proxy and its package ecosystems.
//!
//! Empty: nothing is proxied yet.

#![forbid(unsafe_code)]
