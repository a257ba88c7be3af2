//! The server: from addresses to a clean stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::client::Clients;
use crate::connection::{self, Phase, Shared};
use crate::health::Health;
use crate::limits::Limits;
use crate::listener::{self, Listener};
use crate::observe::Observer;
use crate::refusal::Refusals;
use crate::routes::Routes;
use crate::tls::Tls;

/// What a [`Server`] is made of.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Where to listen. Port 0 lets the system choose: see [`Server::local_addrs`].
    pub addresses: Vec<SocketAddr>,
    /// The certificate, where connections are to be encrypted.
    pub tls: Option<Arc<Tls>>,
    /// What a client may take and make us wait for.
    pub limits: Limits,
    /// What tells others whether requests are wanted.
    pub health: Health,
    /// Who is told of each request.
    pub observer: Option<Arc<dyn Observer>>,
}

/// A server that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no address to listen on.
    #[error("no address to listen on was given")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// The connections that ended by themselves after the server was told to stop, or were idle.
    pub finished: usize,
    /// The connections that were cut when [`Limits::stop_timeout`] had passed.
    pub cut: usize,
}

/// Listening sockets, ready to serve.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<tokio::net::TcpListener>,
    addresses: Vec<SocketAddr>,
    options: ServerOptions,
}

impl Server {
    /// Listens on all addresses. Connections wait in the kernel until [`Server::serve`].
    ///
    /// Needs a tokio runtime around it.
    ///
    /// # Errors
    /// Where there is no address, or one cannot be listened on.
    pub fn bind(options: ServerOptions) -> Result<Server, ServerError> {
        if options.addresses.is_empty() {
            return Err(ServerError::NoAddress);
        }
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for &address in &options.addresses {
            let bind = |source| ServerError::Bind { address, source };
            let socket = listener::bind(address).map_err(bind)?;
            addresses.push(socket.local_addr().map_err(bind)?);
            sockets.push(socket);
        }
        Ok(Server { sockets, addresses, options })
    }

    /// Returns the addresses that are listened on, in the order of the options.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves `routes` until `shutdown` is done, then stops.
    ///
    /// Stopping, in order: readiness turns false; no connection is accepted any more; those
    /// without a request end; the others may finish theirs within [`Limits::stop_timeout`]; what
    /// remains is cut.
    pub async fn serve(
        self,
        routes: impl Into<Routes>,
        shutdown: impl Future<Output = ()>,
    ) -> StopReport {
        let ServerOptions { tls, limits, observer, .. } = self.options.clone();
        let shared = Arc::new(Shared { routes: routes.into(), observer, limits, tls });
        let serve = move |stream, address, phase| {
            connection::serve(stream, address, Arc::clone(&shared), phase)
        };
        self.run(serve, shutdown).await
    }

    /// Serves connections by `handle`, which speaks for itself, until `shutdown` is done; then stops
    /// as [`Server::serve`] does. Connections are plain, and have no delay.
    pub async fn serve_by<H, F>(self, handle: H, shutdown: impl Future<Output = ()>) -> StopReport
    where
        H: Fn(TcpStream, SocketAddr, Stop) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let serve = move |stream: TcpStream, address, phase| {
            // It fails where the connection is gone, which its first read says as well.
            let _ = stream.set_nodelay(true);
            handle(stream, address, Stop { phase })
        };
        self.run(serve, shutdown).await
    }

    async fn run<H, F>(self, serve: H, shutdown: impl Future<Output = ()>) -> StopReport
    where
        H: Fn(TcpStream, SocketAddr, watch::Receiver<Phase>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Server { sockets, options, addresses } = self;
        let ServerOptions { tls, limits, health, .. } = options;
        let stop_timeout = limits.stop_timeout;
        let permits = Arc::new(Semaphore::new(limits.connections_max));
        let clients = Clients::new(limits.connections_per_client_max);
        let refusals = Arc::new(Refusals::new());
        let is_plain = tls.is_none();
        // Each connection holds a receiver for life: to know the receivers is to know them.
        let (phase, first) = watch::channel(Phase::Serving);
        let mut accepting = JoinSet::new();
        for socket in sockets {
            let accept = accept(
                Listener::new(socket),
                Admission {
                    permits: Arc::clone(&permits),
                    clients: Arc::clone(&clients),
                    refusals: Arc::clone(&refusals),
                    limits: limits.clone(),
                    is_plain,
                },
                serve.clone(),
                first.clone(),
            );
            accepting.spawn(accept);
        }
        drop(first);
        health.set_ready(true);
        info!(?addresses, "serving");

        shutdown.await;
        health.set_ready(false);
        accepting.shutdown().await;
        let open = phase.receiver_count();
        info!(connections = open, "stopping");
        phase.send_replace(Phase::Stopping);
        let cut = {
            let mut closed = pin!(phase.closed());
            match tokio::time::timeout(stop_timeout, closed.as_mut()).await {
                Ok(()) => 0,
                Err(_) => phase.receiver_count(),
            }
        };
        if cut > 0 {
            warn!(connections = cut, "cutting what did not end in time");
            phase.send_replace(Phase::Cut);
            phase.closed().await;
        }
        StopReport { finished: open.saturating_sub(cut), cut }
    }
}

/// What a connection that speaks for itself is told.
#[derive(Clone, Debug)]
pub struct Stop {
    phase: watch::Receiver<Phase>,
}

impl Stop {
    /// Waits until the server stops: what is in flight may end, nothing else may begin.
    pub async fn stopping(&mut self) {
        // A server that is gone has stopped, too.
        let _ = self.phase.wait_for(|phase| *phase != Phase::Serving).await;
    }

    /// Waits until everything is to end at once.
    pub async fn cut(&mut self) {
        let _ = self.phase.wait_for(|phase| *phase == Phase::Cut).await;
    }
}

/// Who may have a connection.
struct Admission {
    permits: Arc<Semaphore>,
    clients: Arc<Clients>,
    refusals: Arc<Refusals>,
    limits: Limits,
    /// Connections are not encrypted.
    is_plain: bool,
}

/// Accepts connections for ever, each into a task of its own, as many at once as there are permits.
async fn accept<H, F>(
    mut listener: Listener,
    admission: Admission,
    serve: H,
    phase: watch::Receiver<Phase>,
) where
    H: Fn(TcpStream, SocketAddr, watch::Receiver<Phase>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let Admission { permits, clients, refusals, limits, is_plain } = admission;
    loop {
        if permits.available_permits() == 0 {
            warn!(limit = limits.connections_max, "no more connections are accepted for now");
        }
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok(permit) = permit else { return };
        let (stream, address) = listener.accept().await;
        let Some(counted) = clients.count(address.ip()) else {
            let most = limits.connections_per_client_max;
            refusals.refuse(stream, address.ip(), most, is_plain);
            continue;
        };
        // In a box, or the task would have room for it twice: as what it captures, and as what it
        // awaits.
        let connection = Box::pin(serve(stream, address, phase.clone()));
        tokio::spawn(async move {
            connection.await;
            drop((counted, permit));
        });
    }
}
