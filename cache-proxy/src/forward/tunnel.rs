//! Tunnels: bytes to and fro, to allowed hosts and ports; through the parent proxy where there is one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boatyard_front::wire::Wire;
use boatyard_upstream::guard;
use http::StatusCode;
use tokio::net::TcpStream;

use super::{Inner, write};
use crate::answer::Answer;

/// How long a connection to the other end may take.
const CONNECT: Duration = Duration::from_secs(15);
const BUFFER: usize = 16 * 1024;

/// Connects, says so, and carries bytes until both ends are done, or nothing moves.
pub(super) async fn run(
    inner: &Inner,
    stream: &TcpStream,
    client: SocketAddr,
    (host, port): (&str, u16),
    rest: &[u8],
) {
    let options = inner.options();
    let stall = options.limits.stall_timeout;
    let refuse = async |status: StatusCode, message: String| {
        tracing::info!(%client, host, port, message, "no tunnel");
        write::refusal(stream, stall, &Answer::own(status, &message)).await;
    };
    if !options.tunnel_ports.contains(&port) {
        let message =
            format!("tunnels to port {port} are not allowed (see connect_ports of [proxy])");
        return refuse(StatusCode::FORBIDDEN, message).await;
    }
    if !is_allowed(&options.tunnel_hosts, host) {
        let message = format!("tunnels to {host} are not allowed (see connect_hosts of [proxy])");
        return refuse(StatusCode::FORBIDDEN, message).await;
    }
    let other = match inner.engine.settings().transport.tunnel(host, port, CONNECT).await {
        Ok(other) => other,
        Err(error) => {
            let status = match guard::denied(&error) {
                Some(_) => StatusCode::FORBIDDEN,
                None => StatusCode::BAD_GATEWAY,
            };
            return refuse(status, format!("{host}:{port}: {error}")).await;
        }
    };
    let _ = other.set_nodelay(true);
    let head = b"HTTP/1.1 200 Connection established\r\n\r\n";
    let (here, there) = (Wire::new(stream, stall), Wire::new(&other, stall));
    if here.write(head, b"", false).await.is_err() || there.write(rest, b"", false).await.is_err() {
        return;
    }
    let moved = AtomicU64::new(rest.len() as u64);
    let both = async { tokio::join!(carry(stream, &other, &moved), carry(&other, stream, &moved)) };
    tokio::select! {
        _ = both => {}
        () = stands_still(&moved, options.tunnel_idle) => {}
    }
    let bytes = moved.load(Ordering::Relaxed);
    if options.log_access {
        tracing::info!("{} \"CONNECT {host}:{port}\" 200 {bytes} TUNNEL", client.ip());
    }
}

/// Carries bytes one way until they end; then the other end is told so.
async fn carry(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) {
    let wire = Wire::new(to, Duration::from_secs(3600));
    let mut buffer = vec![0; BUFFER];
    loop {
        if from.readable().await.is_err() {
            break;
        }
        match from.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                moved.fetch_add(read as u64, Ordering::Relaxed);
                if wire.write(&buffer[..read], b"", false).await.is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let _ = rustix::net::shutdown(to, rustix::net::Shutdown::Write);
}

async fn stands_still(moved: &AtomicU64, idle: Duration) {
    let mut seen = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// Says whether a host is one of these, or below one of them. None: any is.
fn is_allowed(hosts: &[String], host: &str) -> bool {
    let below = |allowed: &String| {
        host == allowed
            || host.strip_suffix(allowed.as_str()).is_some_and(|rest| rest.ends_with('.'))
    };
    hosts.is_empty() || hosts.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_what_is_below_them() {
        let hosts = ["deb.example".to_owned()];
        assert!(is_allowed(&hosts, "deb.example") && is_allowed(&hosts, "a.deb.example"));
        assert!(!is_allowed(&hosts, "evildeb.example") && !is_allowed(&hosts, "deb.example.evil"));
        assert!(is_allowed(&[], "any.example"));
    }
}
