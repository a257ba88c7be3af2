//! The suite's blob APIs, for one digest algorithm: each way to push a blob, each way to go wrong.

use boatyard_oci::{Algorithm, Digest};
use http::Method;

use super::super::support::Answer;
use super::data::bytes;
use super::{OTHER, REPOSITORY, Suite};

/// A blob of three chunks, the last of which is shorter.
const THREE_CHUNKS: usize = 3 * 1024 - 5;
const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// Runs the part of the suite that is about blobs alone.
pub(super) async fn run(suite: &mut Suite, algorithm: Algorithm) {
    let part = |name: &str| format!("{algorithm} blobs/{name}");
    let blob = |len| Blob::new(algorithm, bytes(len));
    suite.begin(part("get-missing"));
    let missing = suite.served.get(&blob(512).path(REPOSITORY)).await;
    assert_eq!(missing.status, 404, "{missing:?}");
    suite.pass();

    for name in ["post only", "post+put", "chunked single", "stream"] {
        suite.begin(part(name));
        let blob = blob(512);
        match name {
            "post only" => post_only(suite, REPOSITORY, &blob).await,
            "post+put" => post_and_put(suite, REPOSITORY, &blob).await,
            "stream" => stream(suite, &blob).await,
            _ => chunked(suite, &blob, Chunks::default()).await,
        }
        pulled_and_deleted(suite, &blob).await;
    }
    for (name, from) in [("mount", Some(OTHER)), ("mount anonymous", None)] {
        suite.begin(part(name));
        let blob = blob(512);
        post_and_put(suite, OTHER, &blob).await;
        mount(suite, &blob, from).await;
        pulled_and_deleted(suite, &blob).await;
        delete(suite, OTHER, &blob).await;
    }
    suite.begin(part("mount missing"));
    let missing = blob(512);
    mount_missing(suite, &missing).await;
    pulled_and_deleted(suite, &missing).await;
    suite.begin(part("post cancel"));
    cancel(suite).await;
    delete(suite, REPOSITORY, &blob(512)).await;
    for (name, chunks) in [
        ("chunked multi", Chunks { last_in_put: false, out_of_order: false }),
        ("chunked multi and put chunk", Chunks { last_in_put: true, out_of_order: false }),
        ("chunked out-of-order", Chunks { last_in_put: false, out_of_order: true }),
        ("chunked out-of-order and put chunk", Chunks { last_in_put: true, out_of_order: true }),
    ] {
        suite.begin(part(name));
        let blob = blob(THREE_CHUNKS);
        chunked(suite, &blob, chunks).await;
        pulled_and_deleted(suite, &blob).await;
    }
    suite.begin(part("range requests"));
    ranges(suite, &blob(2048)).await;
    for (name, content) in [("empty", ""), ("emptyJSON", "{}")] {
        suite.begin(part(name));
        let blob = Blob::new(algorithm, content.as_bytes().to_vec());
        post_and_put(suite, REPOSITORY, &blob).await;
        pulled_and_deleted(suite, &blob).await;
    }
    for name in ["post only", "post+put", "chunked", "chunked and put chunk", "stream"] {
        suite.begin(part(&format!("bad digest {name}")));
        let mut blob = blob(THREE_CHUNKS);
        blob.bytes.extend_from_slice(b"oh no");
        bad_digest(suite, name, &blob).await;
        suite.pass();
    }
}

/// Bytes under the digest that they have, or should have.
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    pub(super) fn new(algorithm: Algorithm, bytes: Vec<u8>) -> Blob {
        Blob { digest: Digest::of(algorithm, &bytes), bytes }
    }

    pub(super) fn path(&self, repository: &str) -> String {
        format!("/v2/{repository}/blobs/{}", self.digest)
    }

    fn closing(&self, location: &str) -> String {
        format!("{location}&digest={}", self.digest)
    }
}

/// Checks the answer to a push: the digest, and that its Location is where the blob can be pulled.
async fn created(suite: &mut Suite, blob: &Blob, answer: &Answer) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), Some(&*blob.digest.to_string()));
    let pulled = suite.served.get(&answer.location()).await;
    assert_eq!(pulled.status, 200, "{pulled:?}");
    assert_eq!(pulled.body, blob.bytes);
    suite.pass();
}

async fn post_only(suite: &mut Suite, repository: &str, blob: &Blob) {
    let path = format!("/v2/{repository}/blobs/uploads/?digest={}", blob.digest);
    let answer = suite.served.send(Method::POST, &path, &[OCTETS], blob.bytes.clone()).await;
    created(suite, blob, &answer).await;
}

pub(super) async fn post_and_put(suite: &mut Suite, repository: &str, blob: &Blob) {
    let location = suite.served.begin(repository).await;
    let path = blob.closing(&location);
    let answer = suite.served.send(Method::PUT, &path, &[OCTETS], blob.bytes.clone()).await;
    created(suite, blob, &answer).await;
}

async fn stream(suite: &mut Suite, blob: &Blob) {
    let location = streamed(suite, blob).await;
    let answer = suite.served.send(Method::PUT, &blob.closing(&location), &[OCTETS], "").await;
    created(suite, blob, &answer).await;
}

/// Sends a blob in one PATCH that does not say how long it is.
async fn streamed(suite: &Suite, blob: &Blob) -> String {
    let location = suite.served.begin(REPOSITORY).await;
    let pieces: Vec<std::io::Result<Vec<u8>>> =
        blob.bytes.chunks(100).map(|piece| Ok(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let answer = suite.served.send(Method::PATCH, &location, &[OCTETS], body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.location()
}

async fn mount(suite: &mut Suite, blob: &Blob, from: Option<&str>) {
    let from = from.map(|from| format!("&from={from}")).unwrap_or_default();
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={}{from}", blob.digest);
    let answer = suite.served.post(&path).await;
    created(suite, blob, &answer).await;
}

/// What cannot be mounted is a session, in which it can be pushed.
async fn mount_missing(suite: &mut Suite, blob: &Blob) {
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={}&from={OTHER}", blob.digest);
    let answer = suite.served.post(&path).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let path = blob.closing(&answer.location());
    let answer = suite.served.send(Method::PUT, &path, &[OCTETS], blob.bytes.clone()).await;
    created(suite, blob, &answer).await;
}

async fn cancel(suite: &mut Suite) {
    let location = suite.served.begin(REPOSITORY).await;
    assert_eq!(suite.served.delete(&location).await.status, 204);
    suite.pass();
}

/// How a blob is sent in chunks.
#[derive(Clone, Copy, Default)]
struct Chunks {
    /// The last one is in the PUT that ends the session.
    last_in_put: bool,
    /// Before each one, one is sent that does not belong there.
    out_of_order: bool,
}

async fn chunked(suite: &mut Suite, blob: &Blob, chunks: Chunks) {
    let answer = send_chunks(suite, blob, chunks).await;
    created(suite, blob, &answer).await;
}

/// Sends a blob in three chunks and returns the answer to the PUT that ends the session.
async fn send_chunks(suite: &Suite, blob: &Blob, chunks: Chunks) -> Answer {
    let len = blob.bytes.len();
    let size = (len / 3 + 1).max(1024).min(len);
    let mut location = suite.served.begin(REPOSITORY).await;
    let mut sent = 0;
    while sent < len {
        if chunks.out_of_order {
            location = refused_chunk(suite, blob, &location, sent, size, chunks.last_in_put).await;
        }
        let end = (sent + size).min(len);
        let closes = chunks.last_in_put && end == len;
        let answer = send_chunk(suite, blob, &location, sent..end, closes).await;
        if closes {
            return answer;
        }
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.header("range"), Some(&*format!("0-{}", end - 1)));
        location = answer.location();
        sent = end;
    }
    suite.served.send(Method::PUT, &blob.closing(&location), &[OCTETS], "").await
}

async fn send_chunk(
    suite: &Suite,
    blob: &Blob,
    location: &str,
    chunk: std::ops::Range<usize>,
    closes: bool,
) -> Answer {
    let (method, path) = match closes {
        true => (Method::PUT, blob.closing(location)),
        false => (Method::PATCH, location.to_owned()),
    };
    let range = format!("{}-{}", chunk.start, chunk.end - 1);
    let headers = [OCTETS, ("content-range", &*range)];
    suite.served.send(method, &path, &headers, blob.bytes[chunk].to_vec()).await
}

/// Sends a chunk that does not follow, asks where to go on, at the very URL that refused it, and
/// returns that.
async fn refused_chunk(
    suite: &Suite,
    blob: &Blob,
    location: &str,
    sent: usize,
    size: usize,
    last_in_put: bool,
) -> String {
    let len = blob.bytes.len();
    let start = if sent + size >= len { 0 } else { sent + size };
    let end = (start + size).min(len);
    let closes = last_in_put && end == len;
    let refused = send_chunk(suite, blob, location, start..end, closes).await;
    refused.refuses(416, "BLOB_UPLOAD_INVALID");
    let asked = if closes { blob.closing(location) } else { location.to_owned() };
    let status = suite.served.get(&asked).await;
    assert_eq!(status.status, 204, "{status:?}");
    let there = format!("0-{}", sent.saturating_sub(1));
    assert_eq!(status.header("range"), Some(&*there));
    status.location()
}

async fn bad_digest(suite: &Suite, name: &str, blob: &Blob) {
    let served = &suite.served;
    let answer = match name {
        "post only" => {
            let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", blob.digest);
            served.send(Method::POST, &path, &[OCTETS], blob.bytes.clone()).await
        }
        "post+put" => {
            let path = blob.closing(&served.begin(REPOSITORY).await);
            served.send(Method::PUT, &path, &[OCTETS], blob.bytes.clone()).await
        }
        "stream" => {
            let path = blob.closing(&streamed(suite, blob).await);
            served.send(Method::PUT, &path, &[OCTETS], "").await
        }
        "chunked" => send_chunks(suite, blob, Chunks::default()).await,
        _ => send_chunks(suite, blob, Chunks { last_in_put: true, out_of_order: false }).await,
    };
    answer.refuses(400, "DIGEST_INVALID");
    assert_eq!(served.head(&blob.path(REPOSITORY)).await.status, 404);
}

async fn ranges(suite: &mut Suite, blob: &Blob) {
    post_and_put(suite, REPOSITORY, blob).await;
    for (range, expected) in [
        ("500-1499", Some(500..1500)),
        ("500-", Some(500..2048)),
        ("-500", Some(1548..2048)),
        ("2000-5000", Some(2000..2048)),
        ("500-0", None),
        ("5000-10000", None),
    ] {
        let headers = [("range", &*format!("bytes={range}"))];
        let path = blob.path(REPOSITORY);
        let answer = suite.served.send(Method::GET, &path, &headers, "").await;
        match expected {
            None => {
                answer.refuses(416, "SIZE_INVALID");
                assert_eq!(answer.header("content-range"), Some("bytes */2048"));
            }
            Some(part) => {
                assert_eq!(answer.status, 206, "{range}");
                let place = format!("bytes {}-{}/2048", part.start, part.end - 1);
                assert_eq!(answer.header("content-range"), Some(&*place));
                assert_eq!(answer.header("content-length"), Some(&*part.len().to_string()));
                assert_eq!(answer.body, blob.bytes[part]);
            }
        }
        suite.pass();
    }
    delete(suite, REPOSITORY, blob).await;
}

async fn pulled_and_deleted(suite: &mut Suite, blob: &Blob) {
    head(suite, blob).await;
    pull(suite, blob).await;
    delete(suite, REPOSITORY, blob).await;
}

pub(super) async fn head(suite: &mut Suite, blob: &Blob) {
    let answer = suite.served.head(&blob.path(REPOSITORY)).await;
    assert!(answer.body.is_empty());
    is_whole(&answer, blob);
    suite.pass();
}

pub(super) async fn pull(suite: &mut Suite, blob: &Blob) {
    let answer = suite.served.get(&blob.path(REPOSITORY)).await;
    assert_eq!(answer.body, blob.bytes);
    is_whole(&answer, blob);
    suite.pass();
}

fn is_whole(answer: &Answer, blob: &Blob) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), Some(&*blob.digest.to_string()));
    assert_eq!(answer.header("content-length"), Some(&*blob.bytes.len().to_string()));
}

/// Deletes a blob, which may be gone already, and sees at once that it is gone: two rows.
pub(super) async fn delete(suite: &mut Suite, repository: &str, blob: &Blob) {
    let answer = suite.served.delete(&blob.path(repository)).await;
    assert!(answer.status == 202 || answer.status == 404, "{answer:?}");
    suite.pass();
    assert_eq!(suite.served.head(&blob.path(repository)).await.status, 404);
    suite.pass();
}
