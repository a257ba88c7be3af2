//! Tunnels: connections to other hosts that somebody else speaks on.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use super::Transport;
use crate::guard;

/// The longest head of a parent's answer.
const HEAD_MAX: usize = 16 * 1024;

impl Transport {
    /// Connects to a host, through the parent where there is one. With a guard, only to where it
    /// allows; a parent resolves names, so that then no more than the name and the port is looked at.
    ///
    /// # Errors
    /// Where there may not be a connection, or there cannot be one in time.
    pub async fn tunnel(&self, host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
        let Some(parent) = &self.parent else {
            return match &self.guard {
                Some(guard) => guard.connect(host, port, within).await,
                None => limited(within, TcpStream::connect((host, port))).await,
            };
        };
        if let Some(guard) = &self.guard {
            guard.check_place(host, port).map_err(guard::refused)?;
        }
        limited(within, through(parent, host, port)).await
    }
}

async fn limited(
    within: Duration,
    connect: impl Future<Output = io::Result<TcpStream>>,
) -> io::Result<TcpStream> {
    tokio::time::timeout(within, connect).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"))
    })
}

/// Undoes what a URL does to a name or a password.
fn plain(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        plain.extend(code.or(Some(b'%')));
        plain.extend_from_slice(code.and_then(|_| part.get(2..)).unwrap_or(part).as_bytes());
    }
    plain
}

/// Asks a parent for a tunnel.
async fn through(parent: &Url, host: &str, port: u16) -> io::Result<TcpStream> {
    if parent.scheme() != "http" {
        return Err(io::Error::other("tunnels lead only through a parent that is asked by http"));
    }
    let address = (parent.host_str().unwrap_or_default(), parent.port_or_known_default());
    let (name, at) = (address.0.trim_matches(['[', ']']), address.1.unwrap_or(80));
    let mut stream = TcpStream::connect((name, at)).await?;
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(credentials) = credentials(parent) {
        request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    // One byte at a time: what follows the head is the other end's first word.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(io::Error::other("the parent proxy's answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(stream),
        _ => Err(io::Error::other(format!("the parent proxy answered `{}`", line.escape_debug()))),
    }
}

fn credentials(parent: &Url) -> Option<String> {
    let (user, password) = (parent.username(), parent.password().unwrap_or_default());
    let pair = [plain(user), plain(password)].join(&b':');
    let shows = !user.is_empty() || !password.is_empty();
    shows.then(|| base64::engine::general_purpose::STANDARD.encode(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_shown_as_they_were_meant() {
        let of = |url: &str| credentials(&url.parse().unwrap());
        assert_eq!(of("http://proxy.example:3128"), None);
        assert_eq!(of("http://a:b@proxy.example"), Some("YTpi".to_owned()));
        assert_eq!(plain("p%40ss%25%zz%"), b"p@ss%%zz%");
    }
}
