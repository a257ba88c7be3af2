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
use std::sync::atomic::{AtomicBool, Ordering};
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
    whom: Arc<Whom>,
}

/// Whom the relay asks.
#[derive(Debug)]
struct Whom {
    servers: fn() -> Servers,
    /// Whether a question found the host without a server.
    missed: AtomicBool,
}

impl Whom {
    /// Returns the answer that nobody could answer.
    fn failure(&self, question: &[u8]) -> Vec<u8> {
        if !(self.servers)().named {
            self.missed.store(true, Ordering::Relaxed);
        }
        failure(question)
    }
}

/// The relay's part in one network; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    tasks: [JoinHandle<()>; 2],
}

impl Relay {
    /// Starts the thread that relays.
    pub(super) fn start() -> io::Result<Relay> {
        Relay::asking(servers)
    }

    fn asking(servers: fn() -> Servers) -> io::Result<Relay> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dns-relay")
            .enable_all()
            .build()?;
        let whom = Arc::new(Whom { servers, missed: AtomicBool::new(false) });
        Ok(Relay { runtime: Some(runtime), whom })
    }

    /// Tells whether a question could not be answered because the host names no server.
    pub(super) fn has_missed_servers(&self) -> bool {
        self.whom.missed.load(Ordering::Relaxed)
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
        let udp = handle.spawn(answer_udp(udp, Arc::clone(&self.whom)));
        let tcp = handle.spawn(answer_tcp(tcp, Arc::clone(&self.whom)));
        Ok(Serving { tasks: [udp, tcp] })
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

async fn answer_udp(socket: UdpSocket, whom: Arc<Whom>) {
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
        let (socket, whom) = (Arc::clone(&socket), Arc::clone(&whom));
        asked.spawn(async move {
            let answer = ask_udp((whom.servers)(), &question).await;
            let answer = answer.unwrap_or_else(|| whom.failure(&question));
            let _ = socket.send_to(&answer, asker).await;
            drop(permit);
        });
    }
}

/// Asks one server after the other until one answers; the last refusal is an answer too.
async fn ask_udp(servers: Servers, question: &[u8]) -> Option<Vec<u8>> {
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

async fn answer_tcp(listener: TcpListener, whom: Arc<Whom>) {
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
        let whom = Arc::clone(&whom);
        connections.spawn(async move {
            let _ = converse(step, &whom).await;
            drop(permit);
        });
    }
}

/// Passes the messages of a connection on and back until one side ends it.
async fn converse(mut step: TcpStream, whom: &Whom) -> io::Result<()> {
    let mut server: Option<TcpStream> = None;
    while let Some(question) = read_message(&mut step).await? {
        if !is_question(&question) {
            return Ok(());
        }
        let answer = match ask_tcp(&mut server, whom, &question).await {
            Some(answer) => answer,
            None => whom.failure(&question),
        };
        write_message(&mut step, &answer).await?;
    }
    Ok(())
}

/// Asks over the connection there is, and else over a new one.
async fn ask_tcp(
    connection: &mut Option<TcpStream>,
    whom: &Whom,
    question: &[u8],
) -> Option<Vec<u8>> {
    if let Some(server) = connection
        && let Ok(answer) = exchange(server, question).await
    {
        return Some(answer);
    }
    let servers = (whom.servers)();
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
    use std::io::{Read as _, Write as _};
    use std::sync::OnceLock;

    use super::*;

    /// The bit that says that an answer was cut short.
    const TRUNCATED: u8 = 2;

    #[test]
    fn a_failure_is_an_answer_to_its_question() {
        let question = question(7);
        let answer = failure(&question);
        assert!(is_question(&question) && !is_question(&answer) && is_refusal(&answer));
        assert_eq!(answer[..2], question[..2]);
        assert!(!is_question(&question[..11]));
    }

    fn question(number: u16) -> Vec<u8> {
        let [high, low] = number.to_be_bytes();
        vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    }

    /// Returns an answer of so many bytes.
    fn answer(question: &[u8], length: usize, flags: u8) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[2] |= 0x80 | flags;
        answer.resize(length, 7);
        answer
    }

    /// Returns a step's socket that is served by a relay, and where it is served over TCP.
    fn serve(relay: &Relay) -> (Serving, std::net::UdpSocket, SocketAddr) {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let step = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        step.connect(udp.local_addr().unwrap()).unwrap();
        step.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let over_tcp = tcp.local_addr().unwrap();
        (relay.serve(udp, tcp).unwrap(), step, over_tcp)
    }

    fn receive(socket: &std::net::UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let length = socket.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    fn alone(address: SocketAddr, named: bool) -> Servers {
        Servers { addresses: vec![address], patience: Duration::from_secs(60), named }
    }

    #[test]
    fn without_any_server_the_failure_is_at_once_and_is_noted() {
        // Nobody listens there, and nobody ever will: it is the port of tcpmux.
        let relay = Relay::asking(|| alone(([127, 0, 0, 1], 1).into(), false)).unwrap();
        let (_serving, step, over_tcp) = serve(&relay);
        assert!(!relay.has_missed_servers());
        step.send(&question(3)).unwrap();
        assert_eq!(receive(&step), failure(&question(3)));
        assert!(relay.has_missed_servers());

        let mut connection = std::net::TcpStream::connect(over_tcp).unwrap();
        connection.write_all(&[&[0, 12], &question(4)[..]].concat()).unwrap();
        let mut said = [0; 14];
        connection.read_exact(&mut said).unwrap();
        assert_eq!(said[2..], failure(&question(4)));
    }

    #[test]
    fn large_answers_pass_and_larger_ones_send_the_step_to_tcp() {
        static SERVER: OnceLock<SocketAddr> = OnceLock::new();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = std::net::UdpSocket::bind(address).unwrap();
        SERVER.set(address).unwrap();
        let relay = Relay::asking(|| alone(*SERVER.get().unwrap(), true)).unwrap();
        let (_serving, step, over_tcp) = serve(&relay);
        // As much as is usually said, with EDNS, to be accepted; then what is too much for that.
        for (number, length, flags) in [(1, 4096, 0), (2, 512, TRUNCATED)] {
            let question = question(number);
            step.send(&question).unwrap();
            let mut asked = [0; 512];
            let (asked_bytes, relay) = udp.recv_from(&mut asked).unwrap();
            assert_eq!(asked[..asked_bytes], question);
            let answer = answer(&question, length, flags);
            udp.send_to(&answer, relay).unwrap();
            assert_eq!(receive(&step), answer);
        }
        let mut connection = std::net::TcpStream::connect(over_tcp).unwrap();
        connection.write_all(&[&[0, 12], &question(2)[..]].concat()).unwrap();
        let (mut server, _) = tcp.accept().unwrap();
        let mut asked = [0; 14];
        server.read_exact(&mut asked).unwrap();
        assert_eq!(asked[2..], question(2));
        let whole = answer(&question(2), 60_000, 0);
        server.write_all(&[&60_000_u16.to_be_bytes(), &whole[..]].concat()).unwrap();
        let mut said = vec![0; 60_002];
        connection.read_exact(&mut said).unwrap();
        assert_eq!(said[2..], whole);
    }

    #[test]
    fn many_questions_are_in_flight_and_not_too_many() {
        static SERVER: OnceLock<SocketAddr> = OnceLock::new();
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        SERVER.set(server.local_addr().unwrap()).unwrap();
        let relay = Relay::asking(|| alone(*SERVER.get().unwrap(), true)).unwrap();
        let (_serving, step, _) = serve(&relay);
        let most = u16::try_from(QUESTIONS_MAX).unwrap();
        let ask = |number: u16| {
            step.send(&question(number)).unwrap();
            let mut asked = [0; 12];
            let (_, relay) = server.recv_from(&mut asked).unwrap();
            (asked.to_vec(), relay)
        };
        let asked: Vec<_> = (0..most).map(ask).collect();
        // More are not passed on while all of these wait.
        (most..2 * most).for_each(|number| _ = step.send(&question(number)).unwrap());
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.recv(&mut [0; 12]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for (asked, relay) in asked.iter().rev() {
            server.send_to(&answer(asked, 100, 0), relay).unwrap();
            assert_eq!(receive(&step), answer(asked, 100, 0));
        }
    }
}
