//! One connection: what comes in is read and begun, what is ready goes out in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use boatyard_front::Stop;
use boatyard_upstream::transport::Payload;
use bytes::{Buf as _, BytesMut};
use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, Method, StatusCode};
use tokio::net::TcpStream;

use super::body::{self, BodyEnd};
use super::parse::{self, Head, Length};
use super::queue::{Asked, Due, Pending, Queue};
use super::route::{Route, route};
use super::{Inner, help, refusal, tunnel, write};
use crate::answer::Answer;
use crate::headers::strip_hop_by_hop;
use crate::hosted::Admitted;
use crate::request::Request;

/// How much of heads is read at once.
const READ: usize = 16 * 1024;

/// How the reading of a connection ended.
enum End {
    /// Nothing more is read; what is due is still answered.
    Closed,
    /// A tunnel begins.
    Tunnel { host: String, port: u16, rest: BytesMut },
}

/// Serves a connection until it ends.
pub(super) async fn run(
    inner: &Arc<Inner>,
    stream: &TcpStream,
    client: SocketAddr,
    stop: &mut Stop,
) {
    let queue = Queue::default();
    let incoming = Incoming { inner, stream, client, queue: &queue, buffer: BytesMut::new() };
    let mut reading = Box::pin(incoming.read(stop));
    let mut writing = std::pin::pin!(write::answers(inner, stream, client, &queue));
    let end = tokio::select! {
        end = reading.as_mut() => end,
        // Its client is gone, or its last answer says that it closes.
        _ = writing.as_mut() => return,
    };
    drop(reading);
    queue.close();
    let written = writing.await;
    if let (End::Tunnel { host, port, rest }, true) = (end, written) {
        // What few connections need is not a part of all of them.
        Box::pin(tunnel::run(inner, stream, client, (&host, port), &rest)).await;
    }
}

/// The reading side.
struct Incoming<'a> {
    inner: &'a Arc<Inner>,
    stream: &'a TcpStream,
    client: SocketAddr,
    queue: &'a Queue,
    buffer: BytesMut,
}

impl Incoming<'_> {
    async fn read(mut self, stop: &mut Stop) -> End {
        loop {
            self.queue.room().await;
            let head = tokio::select! {
                biased;
                head = self.head() => head,
                () = stop.stopping(), if self.buffer.is_empty() => return End::Closed,
            };
            let head = match head {
                Ok(Some(head)) => head,
                Ok(None) => return End::Closed,
                Err(message) => {
                    self.reject(StatusCode::BAD_REQUEST, &message);
                    return End::Closed;
                }
            };
            match Box::pin(self.begin(head)).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(_) => return End::Closed,
            }
        }
    }

    /// Reads a head; `None` where the client sends no more. An error is a message for the client.
    async fn head(&mut self) -> Result<Option<Head>, String> {
        let options = self.inner.options();
        let limits = &options.limits;
        let mut begun: Option<Instant> = None;
        loop {
            if !self.buffer.is_empty()
                && let Some((head, len)) =
                    parse::head(&self.buffer).map_err(|error| error.to_string())?
            {
                self.buffer.advance(len);
                return Ok(Some(head));
            }
            let limit = match begun {
                _ if self.buffer.is_empty() => {
                    self.buffer = BytesMut::new();
                    limits.idle_timeout
                }
                None => {
                    begun = Some(Instant::now());
                    limits.header_timeout
                }
                Some(since) => limits.header_timeout.saturating_sub(since.elapsed()),
            };
            match self.more(limit).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // A client that waits for its answers is not idle.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if self.buffer.is_empty() && !self.queue.is_idle() {
                        continue;
                    }
                    return Ok(None);
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads some more bytes into the buffer.
    async fn more(&mut self, limit: Duration) -> io::Result<usize> {
        loop {
            let readable = tokio::time::timeout(limit, self.stream.readable()).await;
            readable.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            match read(self.stream, &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Begins to answer a request.
    async fn begin(&mut self, mut head: Head) -> io::Result<Option<End>> {
        let closes = closes(&head);
        // Who was served when this connection began need not be served any more.
        if !self.inner.options().clients.serves(self.client.ip()) {
            self.reject(StatusCode::FORBIDDEN, &refusal(self.client));
            return Ok(Some(End::Closed));
        }
        let mut asked = asked(&head, closes);
        let settings = self.inner.engine.settings();
        let found = route(&settings.upstreams, &head.method, &head.target, &head.headers);
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        match found {
            _ if reads && head.length != Length::None => {
                self.reject(StatusCode::BAD_REQUEST, "a request that reads has no body");
                return Ok(Some(End::Closed));
            }
            Err(error) => {
                let answer = Answer::own(StatusCode::BAD_REQUEST, &error.to_string());
                asked.closes |= head.length != Length::None;
                let closes = asked.closes;
                self.due(asked, Pending::Ready(Box::new(answer)));
                return Ok(closes.then_some(End::Closed));
            }
            Ok(Route::Tunnel { .. }) if head.length != Length::None => {
                self.reject(StatusCode::BAD_REQUEST, "CONNECT has no body");
                return Ok(Some(End::Closed));
            }
            Ok(Route::Tunnel { host, port }) => {
                self.queue.idle().await;
                let rest = std::mem::take(&mut self.buffer);
                return Ok(Some(End::Tunnel { host, port, rest }));
            }
            Ok(Route::Help | Route::Health) if !reads => {
                let answer = Answer::own(StatusCode::METHOD_NOT_ALLOWED, "this page is only read");
                asked.closes = true;
                self.due(asked, Pending::Ready(Box::new(answer)));
                return Ok(Some(End::Closed));
            }
            Ok(Route::Help) => {
                self.due(asked, Pending::Ready(Box::new(help::page(&head.headers))));
            }
            Ok(Route::Health) => {
                let answer = Answer::own(StatusCode::OK, "ok");
                self.due(asked, Pending::Ready(Box::new(answer)));
            }
            Ok(Route::Resource { target, upstream, base }) => {
                let mut headers = match reads {
                    true => std::mem::take(&mut head.headers),
                    false => head.headers.clone(),
                };
                strip_hop_by_hop(&mut headers);
                let (method, client) = (head.method.clone(), self.client);
                let admitted = Admitted::default();
                let request = Request { method, target, headers, upstream, base, client, admitted };
                asked.upstream = match &request.upstream {
                    Some(upstream) => upstream.name.clone(),
                    None => request.target.authority(),
                };
                if !reads {
                    return self.write_through(&head, asked, request).await;
                }
                if self.queue.is_idle()
                    && let Some(answer) = self.inner.engine.at_once(&request)
                {
                    // A hot object costs one read and one write, by the one task that is awake.
                    let goes_on =
                        write::now(self.inner, self.stream, self.client, answer, &asked).await;
                    return Ok((!goes_on).then_some(End::Closed));
                }
                let pending = self.answer(request, Payload::Empty);
                self.due(asked, pending);
            }
        }
        Ok(closes.then_some(End::Closed))
    }

    /// Has a request answered: here where nothing is before it, else beside what is.
    fn answer(&self, request: Request, payload: Payload) -> Pending {
        let engine = self.inner.engine.clone();
        let answer = async move { engine.answer(request, payload).await };
        if self.queue.is_idle() && self.buffer.is_empty() {
            Pending::Here(Box::pin(answer))
        } else {
            Pending::Elsewhere(tokio::spawn(answer))
        }
    }

    /// Passes a request with a body on, alone: what writes is not to overtake what reads.
    async fn write_through(
        &mut self,
        head: &Head,
        asked: Asked,
        request: Request,
    ) -> io::Result<Option<End>> {
        self.queue.idle().await;
        let closes = asked.closes;
        let stall = self.inner.options().limits.stall_timeout;
        let expects = head.headers.contains_key(EXPECT) && head.length != Length::None;
        match head.length {
            Length::None => {
                // POST and PUT without a body say so (RFC 9110, section 8.6).
                let payload = match head.method {
                    Method::POST | Method::PUT => Payload::Bytes(bytes::Bytes::new()),
                    _ => Payload::Empty,
                };
                let pending = self.answer(request, payload);
                self.due(asked, pending);
            }
            Length::Known(length) => {
                let (feed, stream) = body::channel();
                let unread = self.queue.unread();
                unread.store(length, Ordering::SeqCst);
                let pending = self.answer(request, Payload::Stream { length, stream });
                self.put(asked, expects, pending);
                if expects {
                    self.queue.continued().await;
                }
                let fed = body::feed(self.stream, &mut self.buffer, unread, feed, stall).await?;
                if fed == BodyEnd::Unread {
                    // Its answer says that it is the last one.
                    return Ok(Some(End::Closed));
                }
            }
            Length::Chunked => {
                if expects {
                    write::go_on(self.stream, stall).await?;
                }
                match body::chunks(self.stream, &mut self.buffer, stall).await? {
                    Some(bytes) => {
                        let pending = self.answer(request, Payload::Bytes(bytes));
                        self.due(asked, pending);
                    }
                    None => {
                        let message = "the body is broken, or too long to be sent without a length";
                        self.reject(StatusCode::LENGTH_REQUIRED, message);
                        return Ok(Some(End::Closed));
                    }
                }
            }
        }
        Ok(closes.then_some(End::Closed))
    }

    fn due(&self, asked: Asked, answer: Pending) {
        self.put(asked, false, answer);
    }

    fn put(&self, asked: Asked, expects: bool, answer: Pending) {
        self.queue.put(Due { answer, asked, expects });
    }

    /// Answers what is no request, as the last thing on this connection.
    fn reject(&self, status: StatusCode, message: &str) {
        let asked = Asked {
            method: Method::GET,
            target: String::new(),
            upstream: String::new(),
            is_11: true,
            closes: true,
            since: Instant::now(),
        };
        let answer = Pending::Ready(Box::new(Answer::own(status, message)));
        self.queue.put(Due { answer, asked, expects: false });
    }
}

/// Reads what has come behind what is in a buffer, which grows by no more than that: a large buffer
/// for each request leaves holes in the heap, which idle connections then keep apart.
fn read(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut bytes = [0; READ];
    let read = stream.try_read(&mut bytes)?;
    buffer.extend_from_slice(&bytes[..read]);
    Ok(read)
}

/// Returns what matters for the answer to a request.
fn asked(head: &Head, closes: bool) -> Asked {
    Asked {
        method: head.method.clone(),
        target: head.target.clone(),
        upstream: String::new(),
        is_11: head.is_11,
        closes,
        since: Instant::now(),
    }
}

/// Says whether the connection closes after a request.
fn closes(head: &Head) -> bool {
    let says = |word: &str| says(&head.headers, word);
    says("close") || (!head.is_11 && !says("keep-alive"))
}

fn says(headers: &HeaderMap, word: &str) -> bool {
    let proxy = http::HeaderName::from_static("proxy-connection");
    let values = headers.get_all(CONNECTION).iter().chain(headers.get_all(proxy).iter());
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(word))
}
