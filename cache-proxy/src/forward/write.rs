//! The writing side of a connection.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use boatyard_content::{Blob, Piece};
use boatyard_front::wire::Wire;
use http::HeaderMap;
use http::header::DATE;
use tokio::net::TcpStream;

use super::Inner;
use super::body::UNWANTED_MAX;
use super::queue::{Asked, Due, Queue};
use crate::answer::{Answer, Body, Coming};
use crate::statistics::Served;

/// Writes all answers in order; `false` where the connection is of no use any more.
pub(super) async fn answers(
    inner: &Inner,
    stream: &TcpStream,
    client: SocketAddr,
    queue: &Queue,
) -> bool {
    let wire = Wire::new(stream, inner.options().limits.stall_timeout);
    // What an answer takes is in a box of its own, and gone while the connection is idle.
    while let Some(due) = queue.next().await {
        if !Box::pin(next(inner, stream, &wire, client, queue, due)).await {
            return false;
        }
        queue.written();
    }
    true
}

/// Waits for an answer and writes it; `false` where the connection is of no use any more.
async fn next(
    inner: &Inner,
    stream: &TcpStream,
    wire: &Wire<'_>,
    client: SocketAddr,
    queue: &Queue,
    Due { answer, mut asked, expects }: Due,
) -> bool {
    if expects {
        if go_on(stream, inner.options().limits.stall_timeout).await.is_err() {
            return false;
        }
        queue.told_to_go_on();
    }
    let Some(answer) = answer.get().await else { return false };
    // What nobody will read of its body stands before the next request.
    asked.closes |= queue.unread().load(Ordering::SeqCst) > UNWANTED_MAX;
    finish(stream, &one(inner, wire, client, answer, &asked).await, &asked)
}

/// Writes an answer that nothing is before; `false` where the connection is of no use any more.
pub(super) async fn now(
    inner: &Inner,
    stream: &TcpStream,
    client: SocketAddr,
    answer: Answer,
    asked: &Asked,
) -> bool {
    let wire = Wire::new(stream, inner.options().limits.stall_timeout);
    finish(stream, &one(inner, &wire, client, answer, asked).await, asked)
}

fn finish(stream: &TcpStream, written: &io::Result<bool>, asked: &Asked) -> bool {
    match written {
        Ok(goes_on) => *goes_on && !asked.closes,
        Err(_) => {
            // A reset cannot be mistaken for the end of a body, wherever it comes.
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            false
        }
    }
}

/// Writes one answer, and counts and logs it; `false` where the connection cannot be gone on with.
async fn one(
    inner: &Inner,
    wire: &Wire<'_>,
    client: SocketAddr,
    answer: Answer,
    asked: &Asked,
) -> io::Result<bool> {
    let (status, outcome, ecosystem) = (answer.status, answer.outcome, answer.ecosystem);
    let mut sent = 0;
    let result = send(wire, answer, asked, &mut sent).await;
    let upstream = asked.upstream.as_str();
    let served = Served { client: client.ip(), ecosystem, upstream, outcome, bytes: sent };
    inner.engine.statistics().served(&served);
    if inner.options().log_access {
        let cut = if result.is_err() { " CUT" } else { "" };
        let took = asked.since.elapsed().as_millis();
        tracing::info!(
            "{} \"{}\" {} {sent} {} {took} ms{cut}",
            client.ip(),
            asked.line(),
            status.as_u16(),
            outcome.as_str(),
        );
    }
    if let Err(error) = &result {
        tracing::debug!(%client, line = asked.line(), %error, "an answer is cut");
    }
    result
}

/// Writes an answer; `false` where only the connection's end shows where it ends.
async fn send(wire: &Wire<'_>, answer: Answer, asked: &Asked, sent: &mut u64) -> io::Result<bool> {
    let len = answer.body.len();
    let bodiless = asked.is_head() || matches!(answer.status.as_u16(), 100..=199 | 204 | 304);
    let chunked = len.is_none() && asked.is_11 && !bodiless;
    let framed = bodiless || len.is_some() || chunked;
    let head = head(&answer, len, chunked, asked.closes || !framed, asked.is_11);
    if bodiless {
        wire.write(head.as_bytes(), b"", false).await?;
        return Ok(true);
    }
    match answer.body {
        Body::Bytes(bytes) => {
            wire.write(head.as_bytes(), &bytes, false).await?;
            *sent += bytes.len() as u64;
        }
        Body::Blob(file, range) => {
            wire.write(head.as_bytes(), b"", range.start < range.end).await?;
            *sent += range.end - range.start;
            wire.send_file(&file, range).await?;
        }
        Body::Parts(file, parts, end) => {
            wire.write(head.as_bytes(), b"", true).await?;
            for (text, range) in parts {
                wire.write(&text, b"", true).await?;
                *sent += text.len() as u64 + (range.end - range.start);
                wire.send_file(&file, range).await?;
            }
            wire.write(&end, b"", false).await?;
        }
        Body::Arriving(coming, _) => {
            // The head goes at once: who waits for a large object sees that it comes.
            wire.write(head.as_bytes(), b"", false).await?;
            arriving(wire, *coming, chunked, sent).await?;
            end(wire, chunked, len, *sent).await?;
        }
        Body::Passing(mut incoming, _) => {
            let mut head = Some(head);
            while let Some(bytes) = incoming.chunk().await.map_err(io::Error::other)? {
                let first = head.take().unwrap_or_default();
                wire.write(first.as_bytes(), b"", true).await?;
                *sent += write_piece(wire, Piece::Bytes(bytes), chunked).await?;
            }
            if let Some(head) = head {
                wire.write(head.as_bytes(), b"", false).await?;
            }
            if !incoming.is_framed() {
                // Nobody can tell whether that was all: we do not say so either.
                return Ok(false);
            }
            end(wire, chunked, len, *sent).await?;
        }
        Body::Spoken(_) => wire.write(head.as_bytes(), b"", false).await?,
    }
    Ok(framed)
}

/// Writes an object while it arrives. What can no longer be kept is passed on from where it is.
async fn arriving(
    wire: &Wire<'_>,
    coming: Coming,
    chunked: bool,
    sent: &mut u64,
) -> io::Result<()> {
    let Coming { mut reader, given, bypass } = coming;
    loop {
        match reader.next().await {
            Ok(None) => return Ok(()),
            Ok(Some(piece)) => {
                if matches!(piece, Piece::Rest(..)) {
                    given.store(true, Ordering::SeqCst);
                }
                *sent += write_piece(wire, piece, chunked).await?;
            }
            Err(failure) if failure.is_no_space() => {
                let mut rest = Box::pin(bypass.rest(&reader)).await?;
                while let Some(bytes) = rest.next().await? {
                    *sent += write_piece(wire, Piece::Bytes(bytes), chunked).await?;
                }
                return Ok(());
            }
            Err(failure) => return Err(io::Error::other(failure)),
        }
    }
}

/// Writes a piece of a body; returns how many bytes of it.
async fn write_piece(wire: &Wire<'_>, piece: Piece, chunked: bool) -> io::Result<u64> {
    let len = match &piece {
        Piece::Bytes(bytes) => bytes.len() as u64,
        Piece::Rest(_, range) => range.end - range.start,
    };
    if len == 0 {
        return Ok(0);
    }
    if chunked {
        wire.write(format!("{len:x}\r\n").as_bytes(), b"", true).await?;
    }
    match piece {
        Piece::Bytes(bytes) => wire.write(&bytes, b"", chunked).await?,
        Piece::Rest(Blob::File(file), range) => {
            wire.send_file(&std::sync::Arc::new(file), range).await?;
        }
        Piece::Rest(Blob::Memory(bytes), range) => {
            wire.write(&bytes[range.start as usize..range.end as usize], b"", chunked).await?;
        }
    }
    if chunked {
        wire.write(b"\r\n", b"", false).await?;
    }
    Ok(len)
}

/// Ends a body; one that is shorter than was said is an error, and cuts the connection.
async fn end(wire: &Wire<'_>, chunked: bool, len: Option<u64>, sent: u64) -> io::Result<()> {
    if len.is_some_and(|len| len != sent) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if chunked { wire.write(b"0\r\n\r\n", b"", false).await } else { Ok(()) }
}

fn head(answer: &Answer, len: Option<u64>, chunked: bool, closes: bool, is_11: bool) -> String {
    let code = answer.status.as_u16();
    let reason = answer.reason.or(answer.status.canonical_reason()).unwrap_or("Unknown");
    let mut head = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = write!(head, "HTTP/1.1 {code} {reason}\r\n");
    headers(&mut head, &answer.headers);
    if !answer.headers.contains_key(DATE) {
        date(&mut head);
    }
    match len {
        _ if chunked => head.push_str("transfer-encoding: chunked\r\n"),
        // > "A server MUST NOT send a Content-Length header field in any response with a status code
        // > of 1xx (Informational) or 204 (No Content)." (RFC 9110, section 8.6) One in a 304 would
        // > have to be that of the 200.
        Some(len) if !matches!(code, 100..=199 | 204 | 304) => {
            let _ = write!(head, "content-length: {len}\r\n");
        }
        _ => {}
    }
    if closes {
        head.push_str("connection: close\r\n");
    } else if !is_11 {
        head.push_str("connection: keep-alive\r\n");
    }
    head.push_str("\r\n");
    head
}

fn headers(head: &mut String, headers: &HeaderMap) {
    for (name, value) in headers {
        // What is not ASCII would not survive in a text; no client of ours reads such headers.
        if let Ok(value) = value.to_str() {
            for part in [name.as_str(), ": ", value, "\r\n"] {
                head.push_str(part);
            }
        }
    }
}

/// Writes the time, which is made into a text once a second.
fn date(head: &mut String) {
    thread_local! {
        static LINE: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    LINE.with_borrow_mut(|(made, line)| {
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        if now.as_second() != *made {
            *made = now.as_second();
            *line = format!("date: {}\r\n", now.strftime("%a, %d %b %Y %H:%M:%S GMT"));
        }
        head.push_str(line);
    });
}

/// Tells a client to send the body of its request.
pub(super) async fn go_on(stream: &TcpStream, stall: Duration) -> io::Result<()> {
    Wire::new(stream, stall).write(b"HTTP/1.1 100 Continue\r\n\r\n", b"", false).await
}

/// Writes an answer of our own as the last thing on a connection.
pub(super) async fn refusal(stream: &TcpStream, stall: Duration, answer: &Answer) {
    let Body::Bytes(body) = &answer.body else { return };
    let head = head(answer, answer.body.len(), false, true, true);
    // The client may be gone already.
    let _ = Wire::new(stream, stall).write(head.as_bytes(), body, false).await;
}
