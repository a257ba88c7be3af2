//! Listening sockets, and accepting from them whatever happens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::{debug, warn};

/// How many connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 4096;
/// The first and the longest wait after an error that concerns more than one connection.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Listens on `address`, also where connections of a former server linger (`SO_REUSEADDR`).
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listening socket from which accepting always succeeds in the end.
pub(crate) struct Listener {
    socket: TcpListener,
    backoff: Duration,
}

impl Listener {
    pub(crate) fn new(socket: TcpListener) -> Listener {
        Listener { socket, backoff: BACKOFF_MIN }
    }

    /// Returns the next connection.
    ///
    /// An error of one connection (its client went away) is passed over. One of the process (no
    /// descriptors left) is waited out: it passes when other connections end, and spinning on
    /// it would slow them down.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => {
                    self.backoff = BACKOFF_MIN;
                    return accepted;
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => {
                    warn!(%error, wait_ms = self.backoff.as_millis(), "cannot accept connections");
                    tokio::time::sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
}

/// Says whether the error is of the connection that was to be accepted.
///
/// > "Linux accept() passes already-pending network errors on the new socket as an error code
/// > from accept()." (accept(2), "Error handling")
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_not_one_connections_fault() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        for own in [rustix::io::Errno::CONNABORTED, rustix::io::Errno::CONNRESET] {
            assert!(concerns_one_connection(&error(own)), "{own}");
        }
        for shared in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM]
        {
            assert!(!concerns_one_connection(&error(shared)), "{shared}");
        }
    }
}
