//! A source whose answers a closure decides, a root of the test's own, and ways to read.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use boatyard_content::local::RootOptions;
use boatyard_content::{Lease, Piece, Root, Store};
use boatyard_oci::Digest;
use boatyard_upstream::transfer::{
    Arrival, Failure, Limits, Missing, Reader, Source, SourceError, Transfers, Wanted,
};
use boatyard_upstream::{RetryPolicy, SystemClock};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::HeaderMap;
use tokio::sync::mpsc;

/// The size of a piece that a source sends.
pub(crate) const CHUNK: usize = 64 * 1024;

pub(crate) type Answer = Result<Arrival, SourceError>;
type Play = dyn Fn(usize, &Missing) -> Answer + Send + Sync;

/// A source that answers as its script says and remembers what it was asked.
pub(crate) struct Script {
    name: String,
    log: Mutex<Vec<Missing>>,
    answer: Box<Play>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Script {
    /// Returns a source whose answer to the request of a number, counted from 0, is `answer`.
    pub(crate) fn new(
        name: &str,
        answer: impl Fn(usize, &Missing) -> Answer + Send + Sync + 'static,
    ) -> Arc<Script> {
        let (name, log) = (name.to_owned(), Mutex::default());
        Arc::new(Script { name, log, answer: Box::new(answer) })
    }

    /// Returns a source that has `bytes` and serves ranges of them.
    pub(crate) fn of(name: &str, bytes: &Bytes) -> Arc<Script> {
        let bytes = bytes.clone();
        Script::new(name, move |_, missing| Ok(part(&bytes, missing.offset)))
    }

    /// Returns the places from which on it was asked.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.log().iter().map(|missing| missing.offset).collect()
    }

    pub(crate) fn log(&self) -> Vec<Missing> {
        self.log.lock().unwrap().clone()
    }
}

#[async_trait]
impl Source for Script {
    fn upstream(&self) -> &str {
        &self.name
    }

    async fn fetch(&self, missing: &Missing) -> Answer {
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push(missing.clone());
            log.len() - 1
        };
        (self.answer)(number, missing)
    }
}

/// The answer that has `bytes` from `offset` on.
pub(crate) fn part(bytes: &Bytes, offset: u64) -> Arrival {
    let size = Some(bytes.len() as u64);
    let body = pieces(&bytes.slice(offset as usize..)).boxed();
    Arrival { offset, size, headers: HeaderMap::new(), body }
}

pub(crate) fn pieces(bytes: &Bytes) -> BoxStream<'static, Result<Bytes, SourceError>> {
    let pieces: Vec<_> = bytes.chunks(CHUNK).map(|piece| Ok(bytes.slice_ref(piece))).collect();
    stream::iter(pieces).boxed()
}

/// The same answer, whose connection breaks after so many bytes of it.
pub(crate) fn cut(mut arrival: Arrival, after: usize) -> Arrival {
    let mut left = after;
    let body = arrival.body.map(move |piece| {
        let mut piece = piece?;
        if left == 0 {
            return Err(interrupted());
        }
        piece.truncate(left);
        left -= piece.len();
        Ok(piece)
    });
    arrival.body = body.boxed();
    arrival
}

/// The same answer, which stands still after its last byte.
pub(crate) fn stalled(mut arrival: Arrival, after: usize) -> Arrival {
    let mut left = after;
    let body = arrival.body.map(move |piece| {
        let mut piece = piece?;
        piece.truncate(left);
        left -= piece.len();
        Ok(piece)
    });
    let body = body.take_while(|piece| {
        let more = !piece.as_ref().is_ok_and(Bytes::is_empty);
        async move { more }
    });
    arrival.body = body.chain(stream::pending()).boxed();
    arrival
}

pub(crate) fn with_headers(mut arrival: Arrival, headers: &[(&'static str, &str)]) -> Arrival {
    for (name, value) in headers {
        arrival.headers.append(*name, value.parse().unwrap());
    }
    arrival
}

pub(crate) fn interrupted() -> SourceError {
    SourceError::Interrupted("the connection broke".into())
}

pub(crate) fn refused() -> SourceError {
    SourceError::Refused("there is no such thing".into())
}

/// A body that the test feeds; the connection breaks when it is dropped before its end.
pub(crate) fn feed() -> (mpsc::Sender<Bytes>, BoxStream<'static, Result<Bytes, SourceError>>) {
    let (sender, receiver) = mpsc::channel(1);
    let body = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
        let piece = receiver.recv().await.ok_or_else(interrupted);
        Some((piece, receiver))
    });
    (sender, body.boxed())
}

/// Returns a source that is asked once, and whose body the test feeds.
pub(crate) fn fed(name: &str, size: u64) -> (Arc<Script>, mpsc::Sender<Bytes>) {
    let (sender, body) = feed();
    let body = Mutex::new(Some(body));
    let script = Script::new(name, move |_, missing| {
        let body = body.lock().unwrap().take().ok_or_else(refused)?;
        let offset = missing.offset;
        Ok(Arrival { offset, size: Some(size), headers: HeaderMap::new(), body })
    });
    (script, sender)
}

/// Returns so many bytes that no two places look alike.
pub(crate) fn bytes(len: usize) -> Bytes {
    (0..len as u32 / 4 + 1)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B1).to_le_bytes())
        .take(len)
        .collect()
}

/// Limits of tests: none that a slow machine could reach.
pub(crate) fn limits() -> Limits {
    let retry = RetryPolicy { delay_first: Duration::from_millis(1), ..RetryPolicy::default() };
    Limits { rate_min: 0, retry, ..Limits::default() }
}

/// A root with its transfers.
pub(crate) struct World {
    pub(crate) root: Arc<Root>,
    pub(crate) lease: Lease,
    pub(crate) transfers: Transfers,
    _directory: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn new(limits: Limits) -> World {
        World::with(limits, RootOptions::default())
    }

    pub(crate) fn with(limits: Limits, options: RootOptions) -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), options).unwrap();
        World { _directory: Some(directory), ..World::on(root, limits) }
    }

    /// As another process on the same root would have it.
    pub(crate) fn on(root: Arc<Root>, limits: Limits) -> World {
        let lease = root.lease().unwrap();
        let store: Arc<dyn Store> = Arc::new(root.store());
        let transfers = Transfers::new(store, limits, Arc::new(SystemClock));
        World { root, lease, transfers, _directory: None }
    }

    pub(crate) async fn open(
        &self,
        wanted: &Wanted,
        sources: &[&Arc<Script>],
    ) -> Result<Reader, Failure> {
        let sources = sources.iter().map(|source| Arc::clone(source) as Arc<dyn Source>).collect();
        self.transfers.open(wanted, sources, &self.lease).await
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.root.store().stat_blocking(digest).unwrap().is_some()
    }

    /// Returns what lies in the root's directory of ingests.
    pub(crate) fn ingests(&self) -> usize {
        fs_err::read_dir(self.root.layout().ingests()).map_or(0, Iterator::count)
    }
}

/// Wants these bytes by their digest and size.
pub(crate) fn wanted(bytes: &Bytes) -> Wanted {
    let mut wanted = Wanted::blob(&Digest::sha256(bytes));
    wanted.expected.size = Some(bytes.len() as u64);
    wanted
}

/// Reads one piece of exactly this many bytes, or more pieces that make up as many.
pub(crate) async fn read(reader: &mut Reader, len: usize) -> Result<Bytes, Failure> {
    let mut got = Vec::new();
    while got.len() < len {
        match reader.next().await? {
            Some(Piece::Bytes(bytes)) => got.extend_from_slice(&bytes),
            Some(Piece::Rest(blob, range)) => got.extend_from_slice(&rest(blob, &range)),
            None => break,
        }
    }
    Ok(got.into())
}

/// Reads to the end; returns what came before an error, too.
pub(crate) async fn read_all(mut reader: Reader) -> (Bytes, Result<(), Failure>) {
    let mut got = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(Piece::Bytes(bytes))) => got.extend_from_slice(&bytes),
            Ok(Some(Piece::Rest(blob, range))) => got.extend_from_slice(&rest(blob, &range)),
            Ok(None) => return (got.into(), Ok(())),
            Err(failure) => return (got.into(), Err(failure)),
        }
    }
}

fn rest(blob: boatyard_content::Blob, range: &std::ops::Range<u64>) -> Bytes {
    let bytes = blob.into_bytes(usize::MAX >> 1).unwrap();
    bytes.slice(range.start as usize..range.end as usize)
}

/// Opens and reads what cannot be brought; returns what came of it before the error.
pub(crate) async fn fail(
    world: &World,
    wanted: &Wanted,
    sources: &[&Arc<Script>],
) -> (Bytes, Failure) {
    match world.open(wanted, sources).await {
        Err(failure) => (Bytes::new(), failure),
        Ok(reader) => {
            let (got, end) = read_all(reader).await;
            (got, end.unwrap_err())
        }
    }
}

/// Waits until a condition holds that nothing tells of.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
