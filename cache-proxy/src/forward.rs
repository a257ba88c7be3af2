//! The proxy as clients see it: a loop of its own over plain HTTP/1.1.
//!
//! ```text
//!             ┌ read: heads, up to 32 ahead ─▶ each begins to be answered at once
//! connection ─┤                                      │ in order
//!             └ write: the first answer, then the next ◀┘
//! ```
//!
//! A client that pipelines its requests, as apt does, so has all of them fetched side by side over
//! one connection. Answers are written with as few packets as can be: heads share theirs with what
//! follows, files leave by `sendfile`.

pub mod clients;
pub mod parse;

mod body;
mod connection;
mod help;
mod queue;
mod route;
mod tunnel;
mod write;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use boatyard_front::{Limits, Stop};
use http::StatusCode;
use tokio::net::TcpStream;

use crate::answer::Answer;
use crate::engine::{Engine, Settings};
use clients::Clients;

/// What a [`Proxy`] is made of.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Who is served.
    pub clients: Clients,
    /// How long clients may take.
    pub limits: Limits,
    /// The ports that tunnels may lead to.
    pub tunnel_ports: BTreeSet<u16>,
    /// The hosts that tunnels may lead to, and with them all below them; any, where none is named.
    pub tunnel_hosts: Vec<String>,
    /// How long a tunnel may stand still.
    pub tunnel_idle: Duration,
    /// How many connections one client may have.
    pub per_client_max: usize,
    /// Writes a line to the log for each answer.
    pub log_access: bool,
}

impl Default for ProxyOptions {
    fn default() -> ProxyOptions {
        ProxyOptions {
            clients: Clients::default(),
            limits: Limits::default(),
            tunnel_ports: BTreeSet::from([443]),
            tunnel_hosts: Vec::new(),
            tunnel_idle: Duration::from_secs(600),
            per_client_max: 10_000,
            log_access: true,
        }
    }
}

/// The proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    options: RwLock<Arc<ProxyOptions>>,
    open: clients::Open,
}

impl Proxy {
    /// Returns a proxy that has an engine answer.
    pub fn new(engine: Engine, options: ProxyOptions) -> Proxy {
        let open = clients::Open::new(options.per_client_max);
        let options = RwLock::new(Arc::new(options));
        Proxy { inner: Arc::new(Inner { engine, options, open }) }
    }

    /// Has requests from now on answered by other options, and an engine with other settings. How
    /// many connections a client may have stays as it was.
    pub fn configure(&self, options: ProxyOptions, settings: Settings) {
        self.inner.engine.configure(settings);
        let mut current = self.inner.options.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(options);
    }

    /// Returns the options in force.
    pub fn options(&self) -> Arc<ProxyOptions> {
        self.inner.options()
    }

    /// Serves a connection until it ends: what [`boatyard_front::Server::serve_by`] wants.
    pub async fn serve(self, stream: TcpStream, client: SocketAddr, mut stop: Stop) {
        let inner = &self.inner;
        // Most connections are idle most of the time: what begins or ends them, and what an answer
        // needs, is in boxes that come and go.
        if !inner.options().clients.serves(client.ip()) {
            let message = refusal(client);
            return Box::pin(self.refuse(&stream, StatusCode::FORBIDDEN, &message)).await;
        }
        let Some(_place) = inner.open.take(client.ip()) else {
            let message = "too many connections from this address";
            return Box::pin(self.refuse(&stream, StatusCode::TOO_MANY_REQUESTS, message)).await;
        };
        let mut cut = stop.clone();
        tokio::select! {
            () = connection::run(inner, &stream, client, &mut stop) => {}
            () = cut.cut() => {}
        }
        Box::pin(linger(&stream)).await;
    }

    async fn refuse(&self, stream: &TcpStream, status: StatusCode, message: &str) {
        let stall = self.inner.options().limits.stall_timeout;
        write::refusal(stream, stall, &Answer::own(status, message)).await;
    }
}

impl Inner {
    fn options(&self) -> Arc<ProxyOptions> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Says to a client that it is not served.
fn refusal(client: SocketAddr) -> String {
    format!("{} may not use this proxy (see allow_clients)", client.ip())
}

/// Ends a connection so that its client reads what was written last: one that is closed while it
/// has unread bytes is reset.
async fn linger(stream: &TcpStream) {
    const MOST: usize = 256 * 1024;
    if rustix::net::shutdown(stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    let drain = async {
        let mut buffer = vec![0; 4096];
        let mut left = MOST;
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // Whoever sends on and on does not get more of our time than this.
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}
