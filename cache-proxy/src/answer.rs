//! An answer, before it is written to a connection.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use boatyard_content::BlobFile;
use boatyard_upstream::transfer::Reader;
use boatyard_upstream::transport::Incoming;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, VIA,
    WARNING,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::engine::Bypass;
use crate::headers::strip_hop_by_hop;
use crate::reply::Reply;
use crate::selection::{Selection, select};
use crate::statistics::Outcome;

/// The header that says how an answer came about.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// What separates the parts of an answer with several ranges. None of it depends on the client.
const BOUNDARY: &str = "boatyard-part-2f9c1b7d4e";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers, but for those of the connection and the body's length.
    pub headers: HeaderMap,
    /// The body; an answer to HEAD has the one that it stands for.
    pub body: Body,
    /// How it came about.
    pub outcome: Outcome,
    /// The ecosystem that knew the target.
    pub ecosystem: Option<&'static str>,
    /// The words after the status, where they are not the usual ones.
    pub reason: Option<&'static str>,
}

/// The body of an answer.
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a blob.
    Blob(Arc<BlobFile>, Range<u64>),
    /// Several ranges of a blob, each with the text before it, and the text at the end.
    Parts(Arc<BlobFile>, Vec<(Bytes, Range<u64>)>, Bytes),
    /// An object that is arriving, so many bytes of it, where that is known.
    Arriving(Box<Coming>, Option<u64>),
    /// What an upstream is sending; its length where it said that.
    Passing(Box<Incoming>, Option<u64>),
    /// No body is sent, but one of this length is spoken of: an answer to HEAD that was passed on.
    Spoken(Option<u64>),
}

/// An object that is arriving.
pub struct Coming {
    /// What reads it.
    pub(crate) reader: Reader,
    /// What is set before the last of its bytes are sent.
    pub(crate) given: Arc<AtomicBool>,
    /// What goes on where it cannot be kept.
    pub(crate) bypass: Bypass,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body").field(&self.len()).finish()
    }
}

impl Body {
    /// Returns the number of bytes, where it is known.
    pub fn len(&self) -> Option<u64> {
        match self {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Blob(_, range) => Some(range.end - range.start),
            Body::Parts(_, parts, end) => {
                let of = |(head, range): &(Bytes, Range<u64>)| {
                    head.len() as u64 + (range.end - range.start)
                };
                Some(parts.iter().map(of).sum::<u64>() + end.len() as u64)
            }
            Body::Arriving(_, len) | Body::Passing(_, len) | Body::Spoken(len) => *len,
        }
    }

    /// Says whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

/// The bytes that an answer is made from.
pub(crate) enum Bytesource {
    Memory(Bytes),
    File(Arc<BlobFile>),
    Coming(Box<Coming>),
}

/// What is said of an answer besides its bytes.
pub(crate) struct Said<'a> {
    pub(crate) request: &'a HeaderMap,
    pub(crate) resource: &'a HeaderMap,
    pub(crate) outcome: Outcome,
    pub(crate) age: Option<Duration>,
    pub(crate) via: &'a HeaderValue,
}

impl Answer {
    /// Returns an answer of our own: one line, plain text, so that nothing in it can be a script.
    pub fn own(status: StatusCode, message: &str) -> Answer {
        let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        let body = Body::Bytes(format!("{line}\n").into());
        Answer { status, headers, body, outcome: Outcome::Own, ecosystem: None, reason: None }
    }

    /// Returns the answer that something is elsewhere for good.
    pub(crate) fn moved(to: &str) -> Answer {
        let mut answer = Answer::own(StatusCode::MOVED_PERMANENTLY, &format!("it is at {to}"));
        match HeaderValue::from_str(to) {
            Ok(to) => drop(answer.headers.insert(LOCATION, to)),
            Err(_) => return Answer::own(StatusCode::BAD_REQUEST, "the address is none"),
        }
        answer
    }

    /// Returns what an ecosystem answers, as it is.
    pub(crate) fn replied(reply: Reply) -> Answer {
        let Reply { status, headers, body } = reply;
        let body = Body::Bytes(body);
        Answer { status, headers, body, outcome: Outcome::Own, ecosystem: None, reason: None }
    }

    /// Returns the answer to a GET or HEAD for bytes that are kept or arriving.
    pub(crate) fn of(bytes: Bytesource, said: &Said<'_>) -> Answer {
        let size = match &bytes {
            Bytesource::Memory(bytes) => Some(bytes.len() as u64),
            Bytesource::File(file) => Some(file.size()),
            Bytesource::Coming(coming) => coming.reader.size(),
        };
        let mut headers = said.headers();
        let nothing = Body::Bytes(Bytes::new());
        let (status, body) = match (select(said.request, said.resource, size), bytes) {
            (Selection::NotModified, _) => {
                headers.remove(CONTENT_TYPE);
                (StatusCode::NOT_MODIFIED, nothing)
            }
            (Selection::PreconditionFailed, _) => (StatusCode::PRECONDITION_FAILED, nothing),
            (Selection::Unsatisfiable(size), _) => {
                headers.insert(CONTENT_RANGE, header(&format!("bytes */{size}")));
                (StatusCode::RANGE_NOT_SATISFIABLE, nothing)
            }
            (Selection::Part(range, size), bytes) => {
                let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                headers.insert(CONTENT_RANGE, header(&text));
                (StatusCode::PARTIAL_CONTENT, part(bytes, range))
            }
            (Selection::Parts(ranges, size), Bytesource::File(file)) => {
                let kind = headers.insert(
                    CONTENT_TYPE,
                    header(&format!("multipart/byteranges; boundary={BOUNDARY}")),
                );
                (StatusCode::PARTIAL_CONTENT, parts(file, ranges, size, kind.as_ref()))
            }
            (Selection::Parts(ranges, size), Bytesource::Memory(bytes)) => {
                let kind = headers.insert(
                    CONTENT_TYPE,
                    header(&format!("multipart/byteranges; boundary={BOUNDARY}")),
                );
                let mut body = Vec::new();
                for range in ranges {
                    body.extend_from_slice(&part_head(&range, size, kind.as_ref()));
                    body.extend_from_slice(&bytes[range.start as usize..range.end as usize]);
                }
                body.extend_from_slice(&parts_end());
                (StatusCode::PARTIAL_CONTENT, Body::Bytes(body.into()))
            }
            // Arriving objects are sent whole: the client must take that.
            (Selection::Parts(..) | Selection::Whole, bytes) => (StatusCode::OK, whole(bytes)),
        };
        Answer { status, headers, body, outcome: said.outcome, ecosystem: None, reason: None }
    }

    /// Returns an upstream's answer that passes through.
    pub(crate) fn passing(answer: Incoming, is_head: bool, via: &HeaderValue) -> Answer {
        // Its own headers stay with it: they say how its body ends.
        let mut headers = answer.headers.clone();
        let len = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        strip_hop_by_hop(&mut headers);
        headers.remove(CONTENT_LENGTH);
        headers.append(VIA, via.clone());
        headers.insert(X_CACHE, HeaderValue::from_static(Outcome::Pass.as_str()));
        let status = answer.status;
        let body = match status.as_u16() {
            _ if is_head => Body::Spoken(len),
            204 | 304 => Body::Bytes(Bytes::new()),
            _ => Body::Passing(Box::new(answer), len),
        };
        Answer { status, headers, body, outcome: Outcome::Pass, ecosystem: None, reason: None }
    }
}

impl Said<'_> {
    fn headers(&self) -> HeaderMap {
        let mut headers = self.resource.clone();
        strip_hop_by_hop(&mut headers);
        headers.remove(CONTENT_LENGTH);
        headers.remove(AGE);
        headers.append(VIA, self.via.clone());
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CACHE, HeaderValue::from_static(self.outcome.as_str()));
        if let Some(age) = self.age {
            headers.insert(AGE, HeaderValue::from(age.as_secs()));
        }
        if self.outcome == Outcome::Stale {
            // Obsolete in RFC 9111, and still the one way to say it that anybody shows.
            headers.append(WARNING, HeaderValue::from_static("110 - \"Response is Stale\""));
        }
        headers
    }
}

fn whole(bytes: Bytesource) -> Body {
    match bytes {
        Bytesource::Memory(bytes) => Body::Bytes(bytes),
        Bytesource::File(file) => {
            let size = file.size();
            Body::Blob(file, 0..size)
        }
        Bytesource::Coming(coming) => {
            let size = coming.reader.size();
            Body::Arriving(coming, size)
        }
    }
}

fn part(bytes: Bytesource, range: Range<u64>) -> Body {
    let len = range.end - range.start;
    match bytes {
        // Both ends lie within the bytes.
        Bytesource::Memory(bytes) => {
            Body::Bytes(bytes.slice(range.start as usize..range.end as usize))
        }
        Bytesource::File(file) => Body::Blob(file, range),
        Bytesource::Coming(coming) => {
            let coming = Coming { reader: coming.reader.within(range), ..*coming };
            Body::Arriving(Box::new(coming), Some(len))
        }
    }
}

fn parts(
    file: Arc<BlobFile>,
    ranges: Vec<Range<u64>>,
    size: u64,
    kind: Option<&HeaderValue>,
) -> Body {
    let parts = ranges.into_iter().map(|range| (part_head(&range, size, kind), range)).collect();
    Body::Parts(file, parts, parts_end())
}

fn part_head(range: &Range<u64>, size: u64, kind: Option<&HeaderValue>) -> Bytes {
    let mut head = format!("\r\n--{BOUNDARY}\r\n").into_bytes();
    if let Some(kind) = kind {
        head.extend_from_slice(b"Content-Type: ");
        head.extend_from_slice(kind.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let (first, last) = (range.start, range.end - 1);
    let place = format!("Content-Range: bytes {first}-{last}/{size}\r\n\r\n");
    head.extend_from_slice(place.as_bytes());
    head.into()
}

fn parts_end() -> Bytes {
    format!("\r\n--{BOUNDARY}--\r\n").into()
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and plain words are a header")
}
