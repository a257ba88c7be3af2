//! Every connection that comes in: listeners, TLS, limits, bodies that are files, a clean stop.
//!
//! A service of Boatyard is an [`axum::Router`]; this crate carries bytes between it and sockets.
//! It owns the accept loop rather than borrowing `axum::serve`, for three things that need the
//! connection itself: limits on what a client may make it wait for ([`Limits`]), a stop that lets
//! requests finish ([`Server::serve`]), and files that leave through `sendfile` without being
//! copied ([`body`]).
//!
//! ```text
//! listener ──accept──> connection ──(TLS handshake)──> hyper h1 | h2 ──> Router
//!                          │ pulse: what the client keeps waiting
//!                          └ socket: TcpStream, with sendfile for mapped files
//! ```

#![forbid(unsafe_code)]

pub mod body;
pub mod health;
pub mod limits;
pub mod listener;
pub mod observe;
pub mod server;
pub mod tls;
pub mod wire;

mod client;
mod connection;
mod incoming;
mod mapped;
mod patience;
mod pulse;
mod refusal;
mod routes;
mod socket;

pub use client::client_of;
pub use connection::Peer;
pub use health::Health;
pub use limits::Limits;
pub use observe::{Exchange, Labels, Observer, RequestId};
pub use routes::Routes;
pub use server::{Server, ServerError, ServerOptions, Stop, StopReport};
pub use tls::{ClientAuthority, ClientCertificate, Tls, TlsError, TlsFiles};

#[cfg(test)]
mod tests;
