//! What goes on where a transfer cannot: the disk is full, and clients have part of an object.
//!
//! Each of them is sent the rest straight from the upstream. With a strong validator it is asked for
//! as a part; otherwise all of it is asked for once more, and what the client has already is
//! compared with it, so that what he gets is one version from its first to its last byte, or his
//! connection is cut. Nothing of it is kept, nor held against a promise.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use boatyard_content::Growing;
use boatyard_upstream::http::part;
use boatyard_upstream::transfer::{Reader, Validator};
use boatyard_upstream::transport::{Incoming, Payload};
use bytes::Bytes;
use http::header::{IF_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};

use super::Engine;
use crate::headers;
use crate::request::Request;

/// Where the rest of an answer is asked for.
pub(crate) struct Bypass {
    engine: Engine,
    request: Request,
}

/// The rest of an answer, on its way.
pub(crate) struct Rest {
    incoming: Incoming,
    /// The place of the next byte that comes.
    at: u64,
    /// What the client is still to get.
    left: Range<u64>,
    /// What he got of what comes before that.
    handed: Option<Arc<Growing>>,
}

impl Engine {
    pub(super) fn bypass(&self, request: &Request) -> Bypass {
        Bypass { engine: self.clone(), request: request.clone() }
    }
}

impl Bypass {
    /// Asks for what a reader has not read, the transfer behind it having failed.
    ///
    /// # Errors
    /// Where nobody has the rest of the same bytes.
    pub(crate) async fn rest(&self, reader: &Reader) -> io::Result<Rest> {
        let (engine, request, left) = (&self.engine, &self.request, reader.left());
        tracing::warn!(target = %request.target, from = left.start, "the disk is full: passing it on");
        let validator = Validator::of(&reader.head().headers);
        let mut headers = engine.dressed(request, headers::shared(&request.headers));
        if let Some(validator) = validator.as_ref().filter(|_| left.start > 0) {
            let last = left.end.checked_sub(1).filter(|_| left.end < u64::MAX);
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            headers.insert(RANGE, header(&format!("bytes={}-{last}", left.start)));
            headers.insert(IF_RANGE, validator.header().clone());
        }
        let mut last = io::Error::other("there is nobody to ask");
        for url in engine.urls(request) {
            let sent = engine.send(&Method::GET, url, headers.clone(), Payload::Empty).await;
            match sent {
                Ok(incoming) => match fits(&incoming, reader, validator.as_ref()) {
                    Some(at) => {
                        return Ok(Rest { incoming, at, left, handed: reader.handed() });
                    }
                    None => last = io::Error::other("the rest that came is of something else"),
                },
                Err(error) => last = io::Error::other(error),
            }
        }
        Err(last)
    }
}

/// Returns where an answer begins, if it may be the rest of what a reader read.
fn fits(incoming: &Incoming, reader: &Reader, validator: Option<&Validator>) -> Option<u64> {
    let (at, size) = match incoming.status {
        StatusCode::OK => (0, incoming.content_length()),
        StatusCode::PARTIAL_CONTENT => part(&incoming.headers)?,
        _ => return None,
    };
    let theirs = Validator::of(&incoming.headers);
    // A part without a validator is of what `If-Range` asked for.
    let part = at > 0 && theirs.is_none();
    let same = validator.is_none_or(|ours| part || theirs.as_ref() == Some(ours));
    let as_long = reader.size().is_none() || size.is_none() || reader.size() == size;
    // A part that begins elsewhere was not asked for.
    let placed = at == 0 || at == reader.left().start;
    (same && as_long && placed && incoming.is_framed()).then_some(at)
}

impl Rest {
    /// Returns the next bytes, `None` at the end.
    ///
    /// # Errors
    /// Where the upstream breaks off, or sends something else than before.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.at < self.left.end {
            let Some(mut bytes) = self.incoming.chunk().await.map_err(io::Error::other)? else {
                return Ok(None);
            };
            let before = self.left.start.saturating_sub(self.at).min(bytes.len() as u64);
            let before = bytes.split_to(before as usize);
            self.compare(&before).await?;
            self.at += before.len() as u64;
            let wanted = (self.left.end - self.at).min(bytes.len() as u64);
            bytes.truncate(wanted as usize);
            self.at += wanted;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Compares bytes that come again with those that were handed out.
    async fn compare(&self, again: &Bytes) -> io::Result<()> {
        let Some(handed) = self.handed.clone().filter(|_| !again.is_empty()) else {
            return Ok(());
        };
        let (at, again) = (self.at, again.clone());
        let same = tokio::task::spawn_blocking(move || {
            let before = handed.read_at(at, again.len())?;
            Ok::<_, boatyard_content::StoreError>(before == again)
        });
        if same.await.map_err(io::Error::other)?.map_err(io::Error::other)? {
            return Ok(());
        }
        Err(io::Error::other("the upstream has other bytes now"))
    }
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits are plain text")
}
