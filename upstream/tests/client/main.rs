//! The client against scripted registries on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod pull;
mod push;
mod read;
mod redirect;
mod support;
mod tls;
mod transfer;
