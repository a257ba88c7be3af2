//! What a client may make the server wait for, and how much of it a client may take.

use std::time::Duration;

/// The limits of a [`Server`](crate::Server). Each wait that a client can cause has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections may be open. Further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How many connections one client may have open: an IPv4 address, or a /64 of IPv6. Further
    /// ones are refused.
    pub connections_per_client_max: usize,
    /// How long a client may take to send a request's header, from its first byte; and how long
    /// a TLS handshake may take.
    pub header_timeout: Duration,
    /// The most bytes of a request's header.
    pub header_bytes_max: usize,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a client may send no byte of a body that it promised, or take none that it asked
    /// for.
    pub stall_timeout: Duration,
    /// The least bytes in a second at which bodies move. Slower ones use up
    /// [`Limits::stall_timeout`] as if they stood still meanwhile; 0 lets any byte do.
    pub rate_min: u64,
    /// How long requests may go on once the server was told to stop.
    pub stop_timeout: Duration,
    /// How many requests an HTTP/2 connection may have open.
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 20_000,
            connections_per_client_max: 10_000,
            header_timeout: Duration::from_secs(10),
            header_bytes_max: 64 * 1024,
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(60),
            rate_min: 1024,
            stop_timeout: Duration::from_secs(30),
            streams_max: 250,
        }
    }
}
