//! Files as bodies, over every kind of connection.

use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use boatyard_content::local::RootOptions;
use boatyard_content::store::Store as _;
use boatyard_content::{Expected, IngestKey, Lease, Root};
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
        let answer = move |Path(range): Path<String>| async move {
            let _keep = Arc::clone(&root);
            let blob = root.store().open(&digest).await.unwrap().unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let range = start.parse().unwrap()..end.parse().unwrap();
            Response::new(body::of_blob(&blob, range).unwrap())
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let router = Router::new().route("/{range}", get(answer));
        let served = Served::start(router, Limits::default(), tls);
        Fixture { served, bytes, scheme, _directory: directory }
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

#[test]
fn a_range_beyond_the_blob_is_an_error() {
    let blob = boatyard_content::Blob::Memory(Bytes::from_static(b"abc"));
    assert!(body::of_blob(&blob, 0..4).is_err());
    let backwards = Range { start: 2, end: 1 };
    assert!(body::of_blob(&blob, backwards).is_err());
    assert!(body::of_blob(&blob, 3..3).is_ok());
}
