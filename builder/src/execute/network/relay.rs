//! The DNS relay: it takes a step's questions in the step's network and asks the host's servers.
//!
//! ```text
//! a step's network       the builder, in the host's network
//! 127.0.0.11:53 ──UDP──▶ a socket per question, with a port of its own ──▶ the host's servers
//!               ──TCP──▶ a connection per connection                       in turn
//! ```
//!
//! Questions and answers pass as they are, so whatever the two ends agree on (EDNS, DNSSEC, large
//! answers) works; an answer that was cut short sends the step to TCP by itself. The relay answers
//! by itself only that nobody answered. It knows no names of its own: what stands in the host's
//! `/etc/hosts` is not given out.
//!
//! The host's `resolv.conf` is read for each question: a machine that moves to another network
//! while it builds asks that network's servers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::resolver::{RESOLV_CONF, Servers};

/// How many questions of a step can wait for an answer; more are dropped, and asked again.
const QUESTIONS_MAX: usize = 256;
/// How many TCP connections a step can have to the relay.
const CONNECTIONS_MAX: usize = 32;
/// How long a TCP connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The length of a message's header.
const HEADER_BYTES: usize = 12;
/// The largest message: its length is sixteen bits.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// The relay of a build, for all its steps' networks.
#[derive(Debug)]
pub(super) struct Relay {
    runtime: Option<Runtime>,
}

/// The relay's part in one network; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    tasks: [JoinHandle<()>; 2],
}

impl Relay {
    /// Starts the thread that relays.
    pub(super) fn start() -> io::Result<Relay> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dns-relay")
            .enable_all()
            .build()?;
        Ok(Relay { runtime: Some(runtime) })
    }

    /// Answers what comes to two sockets that were bound in a step's network.
    pub(super) fn serve(
        &self,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> io::Result<Serving> {
        let Some(runtime) = &self.runtime else { return Err(io::ErrorKind::NotConnected.into()) };
        let _inside = runtime.enter();
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let handle: &Handle = runtime.handle();
        Ok(Serving { tasks: [handle.spawn(answer_udp(udp)), handle.spawn(answer_tcp(tcp))] })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn answer_udp(socket: UdpSocket) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut asked = tokio::task::JoinSet::new();
    loop {
        // An error is that of an answer that could not be delivered: its asker is gone.
        let Ok((length, asker)) = socket.recv_from(&mut buffer).await else { continue };
        while asked.try_join_next().is_some() {}
        let question = buffer[..length].to_vec();
        if !is_question(&question) {
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let socket = Arc::clone(&socket);
        asked.spawn(async move {
            let answer = ask_udp(&question).await.unwrap_or_else(|| failure(&question));
            let _ = socket.send_to(&answer, asker).await;
            drop(permit);
        });
    }
}

/// Asks one server after the other until one answers; the last refusal is an answer too.
async fn ask_udp(question: &[u8]) -> Option<Vec<u8>> {
    let servers = servers();
    let mut refusal = None;
    for server in servers.addresses {
        match timeout(servers.patience, ask_server(question, server)).await {
            Ok(Ok(answer)) if is_refusal(&answer) => refusal = Some(answer),
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    refusal
}

async fn ask_server(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A port of its own for each question, and nobody but the server heard on it: a stranger
    // would have to guess both the port and the question's number.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEADER_BYTES && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn answer_tcp(listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((step, _)) = listener.accept().await else {
            // Out of descriptors: they come back as connections end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        connections.spawn(async move {
            let _ = converse(step).await;
            drop(permit);
        });
    }
}

/// Passes the messages of a connection on and back until one side ends it.
async fn converse(mut step: TcpStream) -> io::Result<()> {
    let mut server: Option<TcpStream> = None;
    while let Some(question) = read_message(&mut step).await? {
        if !is_question(&question) {
            return Ok(());
        }
        let answer = match ask_tcp(&mut server, &question).await {
            Some(answer) => answer,
            None => failure(&question),
        };
        write_message(&mut step, &answer).await?;
    }
    Ok(())
}

/// Asks over the connection there is, and else over a new one.
async fn ask_tcp(connection: &mut Option<TcpStream>, question: &[u8]) -> Option<Vec<u8>> {
    if let Some(server) = connection
        && let Ok(answer) = exchange(server, question).await
    {
        return Some(answer);
    }
    let servers = servers();
    let mut refusal = None;
    for server in servers.addresses {
        let Ok(Ok(mut fresh)) = timeout(servers.patience, TcpStream::connect(server)).await else {
            continue;
        };
        match exchange(&mut fresh, question).await {
            Ok(answer) if is_refusal(&answer) => refusal = Some(answer),
            Ok(answer) => {
                *connection = Some(fresh);
                return Some(answer);
            }
            Err(_) => {}
        }
    }
    refusal
}

async fn exchange(server: &mut TcpStream, question: &[u8]) -> io::Result<Vec<u8>> {
    write_message(server, question).await?;
    read_message(server).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let read = async {
        let length = match stream.read_u16().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await?;
        Ok(Some(message))
    };
    timeout(SILENCE_MAX, read).await?
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // One write, so that it is one packet.
    let whole = [&length.to_be_bytes()[..], message].concat();
    timeout(SILENCE_MAX, stream.write_all(&whole)).await?
}

fn servers() -> Servers {
    let text = fs_err::read_to_string(RESOLV_CONF).unwrap_or_default();
    Servers::parse(&text, &|link| super::link_number(link))
}

/// Tells whether a message is a question: its header is whole, and the QR bit is not set.
fn is_question(message: &[u8]) -> bool {
    message.len() >= HEADER_BYTES && message[2] & 0x80 == 0
}

/// Tells whether the next server should be asked: SERVFAIL, NOTIMP, REFUSED.
fn is_refusal(answer: &[u8]) -> bool {
    answer.len() >= HEADER_BYTES && matches!(answer[3] & 0x0f, 2 | 4 | 5)
}

/// Returns the answer that nobody could answer: the question again, as a response, SERVFAIL.
fn failure(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | 2;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_answer_to_its_question() {
        let question = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let answer = failure(&question);
        assert!(is_question(&question) && !is_question(&answer) && is_refusal(&answer));
        assert_eq!(answer[..2], question[..2]);
        assert!(!is_question(&question[..11]));
    }
}
