//! Bodies of requests.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boatyard_upstream::transport::exchange::PayloadStream;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::parse::chunk_size;

/// The most bytes of a body that comes in chunks: upstreams are told a length.
const CHUNKED_MAX: usize = 1024 * 1024;
/// How much is read at once.
const READ: usize = 64 * 1024;
/// How much is read of a body that nobody wants, so that the connection goes on.
pub(super) const UNWANTED_MAX: u64 = 256 * 1024;
/// The longest line of a chunk's size, or of a trailer.
const LINE_MAX: usize = 4096;

/// How feeding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// All of it was taken.
    Whole,
    /// Whoever it was for wants no more of it, and what is left is too much to be read for nothing.
    Unread,
}

/// What feeds a body.
pub(super) type Feed = mpsc::Sender<io::Result<Bytes>>;

/// Returns a body that is fed while it is sent.
pub(super) fn channel() -> (Feed, PayloadStream) {
    let (sender, receiver) = mpsc::channel(2);
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    (sender, Box::pin(pieces))
}

/// Feeds a body from a connection; `unread` is how much of it is still to come. Where nobody wants
/// the rest, it is read for nothing if it is short.
pub(super) async fn feed(
    stream: &TcpStream,
    buffer: &mut BytesMut,
    unread: &AtomicU64,
    feed: Feed,
    stall: Duration,
) -> io::Result<BodyEnd> {
    let take = |buffer: &mut BytesMut, left: u64| {
        let piece = buffer.split_to(buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        unread.store(left - piece.len() as u64, Ordering::SeqCst);
        piece
    };
    let left = || Some(unread.load(Ordering::SeqCst)).filter(|left| *left > 0);
    while let Some(left) = left() {
        if buffer.is_empty() {
            tokio::select! {
                read = more(stream, buffer, stall) => {
                    if let Err(error) = read {
                        let told = io::Error::new(error.kind(), "the client sent no more");
                        let _ = feed.send(Err(told)).await;
                        return Err(error);
                    }
                }
                () = feed.closed() => break,
            }
        }
        let piece = take(buffer, left);
        if feed.send(Ok(piece.freeze())).await.is_err() {
            break;
        }
    }
    // Who answers before it has all wants no more of it.
    drop(feed);
    if left().is_some_and(|left| left > UNWANTED_MAX) {
        return Ok(BodyEnd::Unread);
    }
    while let Some(left) = left() {
        if buffer.is_empty() {
            more(stream, buffer, stall).await?;
        }
        take(buffer, left);
    }
    Ok(BodyEnd::Whole)
}

/// Reads a body that comes in chunks; `None` where it is broken or too long.
pub(super) async fn chunks(
    stream: &TcpStream,
    buffer: &mut BytesMut,
    stall: Duration,
) -> io::Result<Option<Bytes>> {
    let mut whole = BytesMut::new();
    loop {
        let Some(line) = line(stream, buffer, stall).await? else { return Ok(None) };
        let Some(size) = chunk_size(&line) else { return Ok(None) };
        if size == 0 {
            break;
        }
        if size > (CHUNKED_MAX - whole.len()) as u64 {
            return Ok(None);
        }
        let size = size as usize;
        while buffer.len() < size + 2 {
            more(stream, buffer, stall).await?;
        }
        whole.extend_from_slice(&buffer[..size]);
        if &buffer[size..size + 2] != b"\r\n" {
            return Ok(None);
        }
        buffer.advance(size + 2);
    }
    // Trailers are read and left out.
    for _ in 0..64 {
        match line(stream, buffer, stall).await? {
            Some(line) if line.is_empty() => return Ok(Some(whole.freeze())),
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Reads a line that ends in CR LF; `None` where it is too long, or ends otherwise.
async fn line(
    stream: &TcpStream,
    buffer: &mut BytesMut,
    stall: Duration,
) -> io::Result<Option<BytesMut>> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let mut line = buffer.split_to(end + 1);
            if !line.ends_with(b"\r\n") || line.len() > LINE_MAX {
                return Ok(None);
            }
            line.truncate(end - 1);
            return Ok((!line.contains(&b'\r')).then_some(line));
        }
        if buffer.len() > LINE_MAX {
            return Ok(None);
        }
        more(stream, buffer, stall).await?;
    }
}

async fn more(stream: &TcpStream, buffer: &mut BytesMut, stall: Duration) -> io::Result<()> {
    loop {
        let readable = tokio::time::timeout(stall, stream.readable()).await;
        readable.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        buffer.reserve(READ);
        match stream.try_read_buf(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
