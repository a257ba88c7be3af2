//! One connection, from the handshake to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;
use tower_service::Service as _;
use tracing::{Instrument as _, debug, debug_span, info_span};

use crate::incoming::{InFlight, RequestBody, ResponseBody};
use crate::limits::Limits;
use crate::observe::{Attendance, Observer, REQUEST_ID, RequestId};
use crate::patience::Patience;
use crate::pulse::{Overdue, Pulse};
use crate::routes::Routes;
use crate::socket::Socket;
use crate::tls::{ALPN_H2, ClientCertificate, Tls};

/// The windows of an HTTP/2 connection: what a client may send before we took it, per stream and
/// in all. Two of the field's upload frames at a round trip of 20 ms still fill 100 MB/s.
const H2_STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const H2_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// Who is at the other end; every request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address that the connection comes from.
    pub address: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// What a server's connections are told, all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Go on.
    Serving,
    /// End after what is in flight.
    Stopping,
    /// End now.
    Cut,
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) routes: Routes,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// How a connection ended, for the log.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it was closed")]
    ByProtocol,
    #[error("it failed: {0}")]
    ByError(hyper::Error),
    #[error("the client took too long ({0:?})")]
    Overdue(Overdue),
    #[error("the server stops, and nothing was in flight")]
    Quiet,
    #[error("the server stops, and its patience has ended")]
    Cut,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) {
    let span = debug_span!("connection", peer = %address);
    async {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "the connection is gone already");
            return;
        }
        let pulse = Arc::new(Pulse::new(&shared.limits));
        let socket = Socket::new(stream, Arc::clone(&pulse));
        let connection = Connection { address, shared, pulse, phase, certificate: None };
        match connection.shared.tls.clone() {
            None => connection.http1(socket, false).await,
            Some(tls) => connection.handshake(socket, &tls).await,
        }
    }
    .instrument(span)
    .await;
}

struct Connection {
    address: SocketAddr,
    shared: Arc<Shared>,
    pulse: Arc<Pulse>,
    phase: watch::Receiver<Phase>,
    certificate: Option<ClientCertificate>,
}

impl Connection {
    async fn handshake(mut self, socket: Socket, tls: &Tls) {
        let accept = tls.acceptor().accept(socket);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.shared.limits.header_timeout, accept) => accepted,
            // Nothing is in flight before there is a request.
            _ = self.phase.wait_for(|phase| *phase != Phase::Serving) => return,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, "the TLS handshake failed"),
            Err(_) => return debug!("the TLS handshake takes too long"),
        };
        self.pulse.handshake_done();
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        self.certificate = shown.map(|own| ClientCertificate(own.as_ref().into()));
        if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
            self.http2(stream).await;
        } else {
            self.http1(stream, true).await;
        }
    }

    async fn http1<I>(self, io: I, tls: bool)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.shared.limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // The pulse has both limits apart: this one runs while a connection is idle, too.
            .header_read_timeout(None)
            .max_header_size(limits.header_bytes_max);
        let connection =
            builder.serve_connection(TokioIo::new(io), self.service(tls)).with_upgrades();
        self.drive(connection, http1::UpgradeableConnection::graceful_shutdown, true).await;
    }

    async fn http2<I>(self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.shared.limits;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
        let connection = builder.serve_connection(TokioIo::new(io), self.service(true));
        self.drive(connection, http2::Connection::graceful_shutdown, false).await;
    }

    /// Returns what answers each request of this connection.
    fn service(&self, tls: bool) -> Requests {
        Requests {
            peer: Peer { address: self.address, tls },
            certificate: self.certificate.clone(),
            patience: Patience::new(self.shared.limits.stall_timeout, self.shared.limits.rate_min),
            shared: Arc::clone(&self.shared),
            pulse: Arc::clone(&self.pulse),
        }
    }

    /// Polls a connection until it ends, its client is overdue, or the server stops.
    async fn drive<C>(
        mut self,
        connection: C,
        finish: impl FnOnce(Pin<&mut C>),
        header_counts: bool,
    ) where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut finish = Some(finish);
        let mut overdue = Watch::new(&self.pulse, &self.shared.limits, header_counts);
        let ended = loop {
            tokio::select! {
                biased;
                done = connection.as_mut() => {
                    break done.map_or_else(Ended::ByError, |()| Ended::ByProtocol);
                }
                changed = self.phase.changed() => {
                    let phase = *self.phase.borrow_and_update();
                    if changed.is_err() || phase == Phase::Cut {
                        break Ended::Cut;
                    }
                    if self.pulse.is_quiet() {
                        break Ended::Quiet;
                    }
                    if let Some(finish) = finish.take() {
                        finish(connection.as_mut());
                    }
                }
                why = overdue.watch() => break Ended::Overdue(why),
            }
        };
        debug!(%ended, "connection ended");
    }
}

/// Answers the requests of a connection, each noted in its pulse until its answer has ended.
struct Requests {
    peer: Peer,
    certificate: Option<ClientCertificate>,
    shared: Arc<Shared>,
    /// With each body.
    patience: Patience,
    pulse: Arc<Pulse>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::begin(Arc::clone(&self.pulse));
        let id = RequestId::of(request.headers());
        let mut attendance = self
            .shared
            .observer
            .clone()
            .map(|observer| Attendance::begin(observer, id.clone(), self.peer, &request));
        let received = attendance.as_ref().map(Attendance::received);
        let mut request = request.map(|body| RequestBody::new(body, self.patience, received));
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(id.clone());
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let span = info_span!("request", %id);
        let answer = self.shared.routes.current().call(request).instrument(span);
        Box::pin(async move {
            let mut answer = answer.await?;
            if let Some(name) = id.header() {
                answer.headers_mut().insert(REQUEST_ID, name);
            }
            if let Some(attendance) = &mut attendance {
                attendance.answered(&mut answer);
            }
            Ok(answer.map(|body| ResponseBody::new(body, in_flight, attendance)))
        })
    }
}

/// A timer that follows the earliest deadline of a [`Pulse`].
///
/// It looks again whenever the connection was polled, and moves the timer only forward: most
/// requests leave it alone.
struct Watch<'a> {
    pulse: &'a Pulse,
    limits: &'a Limits,
    header_counts: bool,
    timer: Pin<Box<Sleep>>,
}

impl<'a> Watch<'a> {
    fn new(pulse: &'a Pulse, limits: &'a Limits, header_counts: bool) -> Watch<'a> {
        let timer = Box::pin(tokio::time::sleep(limits.idle_timeout));
        Watch { pulse, limits, header_counts, timer }
    }

    /// Waits until the client is overdue.
    async fn watch(&mut self) -> Overdue {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        let deadline = self.pulse.deadline(self.limits, self.header_counts);
        if let Some((at, _)) = deadline
            && at < self.timer.deadline().into_std()
        {
            self.timer.as_mut().reset(at.into());
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            match self.pulse.deadline(self.limits, self.header_counts) {
                Some((at, why)) if at <= Instant::now() => return Poll::Ready(why),
                Some((at, _)) => self.timer.as_mut().reset(at.into()),
                // A request is in flight. It will be idle some time; look then.
                None => {
                    self.timer.as_mut().reset((Instant::now() + self.limits.idle_timeout).into());
                }
            }
        }
    }
}
