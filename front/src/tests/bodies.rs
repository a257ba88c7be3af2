//! Files as bodies, over every kind of connection.

use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use boatyard_content::local::RootOptions;
use boatyard_content::store::Store as _;
use boatyard_content::{Expected, IngestKey, Lease, Piece, Root};
use boatyard_oci::Digest;
use bytes::Bytes;
use http::Version;

use super::support::{Served, tls};
use crate::{Limits, Tls, body};

const LEN: usize = 5_000_003;

/// A blob in a store of its own, served by ranges: `/100-200`.
struct Fixture {
    served: Served,
    bytes: Vec<u8>,
    scheme: &'static str,
    root: Arc<Root>,
    digest: Digest,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn start(tls: Option<Tls>) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let bytes: Vec<u8> = (0..LEN as u32 / 4 + 1).flat_map(u32::to_le_bytes).take(LEN).collect();
        let store = root.store();
        let mut ingest = store.ingest(&IngestKey::random(), &Lease::unheld()).await.unwrap();
        ingest.append(Bytes::from(bytes.clone())).await.unwrap();
        let digest = ingest.commit(Expected::any()).await.unwrap().info().digest.clone();
        let (keep, wanted) = (Arc::clone(&root), digest.clone());
        let answer = move |Path(range): Path<String>| async move {
            let (root, digest) = (keep, wanted);
            let blob = root.store().open(&digest).await.unwrap().unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let range = start.parse().unwrap()..end.parse().unwrap();
            Response::new(body::of_blob(&blob, range).unwrap())
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let router = Router::new().route("/{range}", get(answer));
        let served = Served::start(router, Limits::default(), tls);
        Fixture { served, bytes, scheme, root, digest, _directory: directory }
    }

    async fn check(&self, client: &reqwest::Client, range: Range<usize>, version: Version) {
        let Fixture { served, scheme, .. } = self;
        let url = format!("{scheme}://{}/{}-{}", served.address, range.start, range.end);
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.version(), version);
        assert_eq!(response.content_length(), Some(range.len() as u64));
        assert!(response.bytes().await.unwrap() == self.bytes[range.clone()], "{range:?}");
    }

    async fn check_all(&self, client: &reqwest::Client, version: Version) {
        for range in [
            0..LEN,
            0..0,
            1..2,
            1..65_537,
            3..65_540,
            4095..1_052_673,
            LEN - 70_000..LEN,
            1_048_576..3_145_728,
        ] {
            self.check(client, range, version).await;
        }
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true)
}

#[tokio::test]
async fn by_sendfile() {
    let fixture = Fixture::start(None).await;
    let sent = crate::socket::SENT_BY_KERNEL.load(std::sync::atomic::Ordering::Relaxed);
    fixture.check_all(&client().build().unwrap(), Version::HTTP_11).await;
    let now = crate::socket::SENT_BY_KERNEL.load(std::sync::atomic::Ordering::Relaxed);
    assert!(now - sent > LEN as u64, "large files are not copied");
}

#[tokio::test]
async fn over_tls() {
    let fixture = Fixture::start(Some(tls())).await;
    fixture.check_all(&client().http1_only().build().unwrap(), Version::HTTP_11).await;
}

#[tokio::test]
async fn over_http2() {
    let fixture = Fixture::start(Some(tls())).await;
    fixture.check_all(&client().build().unwrap(), Version::HTTP_2).await;
}

#[tokio::test]
async fn to_many_at_once() {
    let fixture = Fixture::start(None).await;
    let client = client().build().unwrap();
    let downloads =
        (0..20).map(|n| fixture.check(&client, n * 1000..LEN - n * 999, Version::HTTP_11));
    futures_util::future::join_all(downloads).await;
}

/// Serves pieces under the length that they should have: `/<announced length, or ->`, with as many
/// pieces of a growing file as there are bytes in `prefix`, and the rest of the blob, or an error.
async fn arriving(prefix: usize, fails: bool, tls: Option<Tls>) -> (Served, Vec<u8>, &'static str) {
    let fixture = Arc::new(Fixture::start(None).await);
    let bytes = fixture.bytes.clone();
    let answer = move |Path(len): Path<String>| async move {
        let blob = fixture.root.store().open(&fixture.digest).await.unwrap().unwrap();
        let mut pieces = Vec::new();
        for piece in fixture.bytes[..prefix].chunks(100_000) {
            pieces.push(Ok(Piece::Bytes(Bytes::copy_from_slice(piece))));
        }
        pieces.push(match fails {
            true => Err(std::io::Error::other("the digest is wrong")),
            false => Ok(Piece::Rest(blob, prefix as u64..LEN as u64)),
        });
        let pieces = futures_util::stream::iter(pieces);
        Response::new(body::of_pieces(pieces, len.parse().ok()))
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let router = Router::new().route("/{len}", get(answer));
    (Served::start(router, Limits::default(), tls), bytes, scheme)
}

#[tokio::test]
async fn pieces_and_then_the_rest_of_a_blob() {
    for (tls, version) in [(None, Version::HTTP_11), (Some(tls()), Version::HTTP_2)] {
        let plain = tls.is_none();
        let (served, bytes, scheme) = arriving(1_234_567, false, tls).await;
        let sent = crate::socket::SENT_BY_KERNEL.load(std::sync::atomic::Ordering::Relaxed);
        for len in [LEN.to_string(), "-".to_owned()] {
            let url = format!("{scheme}://{}/{len}", served.address);
            let response = client().build().unwrap().get(url).send().await.unwrap();
            assert_eq!(response.version(), version);
            assert_eq!(response.content_length(), len.parse().ok());
            assert!(response.bytes().await.unwrap() == bytes);
        }
        let now = crate::socket::SENT_BY_KERNEL.load(std::sync::atomic::Ordering::Relaxed);
        assert!(!plain || now - sent > 3_000_000, "the rest is not copied");
    }
}

#[tokio::test]
async fn pieces_that_fail_or_are_not_as_many_as_promised_cut_the_connection() {
    for encrypted in [false, true] {
        let (served, _, scheme) = arriving(LEN - 1, true, encrypted.then(tls)).await;
        for len in [LEN.to_string(), "-".to_owned()] {
            let url = format!("{scheme}://{}/{len}", served.address);
            let response = client().build().unwrap().get(url).send().await.unwrap();
            assert!(response.bytes().await.is_err(), "{scheme} {len}");
        }
        let (served, _, scheme) = arriving(1000, false, encrypted.then(tls)).await;
        for len in [LEN - 1, LEN + 1] {
            let url = format!("{scheme}://{}/{len}", served.address);
            let response = client().build().unwrap().get(url).send().await.unwrap();
            assert!(response.bytes().await.is_err(), "{scheme} {len}");
        }
    }
}

#[test]
fn a_range_beyond_the_blob_is_an_error() {
    let blob = boatyard_content::Blob::Memory(Bytes::from_static(b"abc"));
    assert!(body::of_blob(&blob, 0..4).is_err());
    let backwards = Range { start: 2, end: 1 };
    assert!(body::of_blob(&blob, backwards).is_err());
    assert!(body::of_blob(&blob, 3..3).is_ok());
}
