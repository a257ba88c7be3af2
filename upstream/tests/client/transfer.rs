//! Transfers from registries: what the client does for them. `tests/transfer` has the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boatyard_content::memory::MemoryStore;
use boatyard_content::{Lease, Piece};
use boatyard_oci::{Digest, ImageName};
use boatyard_upstream::transfer::{Failure, Limits, Reader};
use boatyard_upstream::{Client, ClientError, ClientOptions, SystemClock, Transfers, Wanted};
use futures_util::future::join_all;
use http::StatusCode;

use crate::support::{Response, Server, TestClock, blob, chain, client, options};

fn bytes() -> Vec<u8> {
    (0..1_000_000u32).map(|n| (n * 7) as u8).collect()
}

fn transfers() -> Transfers {
    Transfers::new(Arc::new(MemoryStore::new()), Limits::default(), Arc::new(SystemClock))
}

async fn open(
    transfers: &Transfers,
    client: &Client,
    server: &Server,
    digest: &Digest,
) -> Result<Reader, Failure> {
    let image: ImageName = format!("{}/app:1", server.host()).parse().unwrap();
    let sources = client.blob_sources(&image, digest).unwrap();
    transfers.open(&Wanted::blob(digest), sources, &Lease::unheld()).await
}

async fn read(mut reader: Reader) -> Result<Vec<u8>, Failure> {
    let mut got = Vec::new();
    while let Some(piece) = reader.next().await? {
        match piece {
            Piece::Bytes(bytes) => got.extend_from_slice(&bytes),
            Piece::Rest(blob, range) => {
                let bytes = blob.into_bytes(1 << 20).unwrap();
                got.extend_from_slice(&bytes[range.start as usize..range.end as usize]);
            }
        }
    }
    Ok(got)
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_readers_of_a_registry_that_redirects_and_breaks() {
    let (bytes, digest) = (bytes(), Digest::sha256(&bytes()));
    let body = bytes.clone();
    let storage = Server::start(move |request| match request.header("range") {
        None => Response::new(200).body(&body[..300_000]).announced(body.len()),
        Some(_) => blob(request, &body),
    });
    let target = format!("http://{}/storage?signature=x", storage.host());
    let server = Server::start(move |request| match request.path() {
        "/v2/" => Response::new(200),
        _ => Response::new(307).header("Location", &target),
    });
    let (transfers, client) = (transfers(), client(options()));
    let got = join_all((0..32).map(|_| async {
        read(open(&transfers, &client, &server, &digest).await.unwrap()).await.unwrap()
    }));
    assert!(got.await.iter().all(|got| *got == bytes));
    let ranges: Vec<_> =
        storage.log().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=300000-999999".to_owned())]);
    assert_eq!(server.count(&format!("GET /v2/app/blobs/{digest}")), 2);
}

#[tokio::test]
async fn a_busy_registry_is_obeyed_within_bounds() {
    let digest = Digest::sha256(b"0123456789");
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path() {
        "/v2/" => Response::new(200),
        _ => match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Response::new(429).header("Retry-After", 7),
            1 => Response::new(503),
            _ => Response::new(200).body("0123456789"),
        },
    });
    let clock = TestClock::new();
    let client = client(ClientOptions { clock: clock.clone(), ..options() });
    let reader = open(&transfers(), &client, &server, &digest).await.unwrap();
    assert_eq!(reader.size(), Some(10));
    assert_eq!(read(reader).await.unwrap(), b"0123456789");
    assert_eq!(clock.slept()[0], Duration::from_secs(7));
}

#[tokio::test]
async fn refusals_name_the_upstream_and_keep_their_reason() {
    let digest = Digest::sha256(b"0123456789");
    for (status, requests) in [(404, 1), (403, 1), (500, 5), (429, 1)] {
        let server = Server::start(move |request| match request.path() {
            "/v2/" => Response::new(200),
            _ => Response::new(status).header("Retry-After", if status == 429 { 9999 } else { 1 }),
        });
        let client = client(options());
        let failure = open(&transfers(), &client, &server, &digest).await.err().unwrap();
        let reason = failure.reason::<ClientError>().unwrap();
        assert_eq!(reason.status(), Some(StatusCode::from_u16(status).unwrap()));
        assert!(failure.to_string().contains(&server.host()), "{}", chain(&failure));
        assert_eq!(server.count(&format!("GET /v2/app/blobs/{digest}")), requests, "{status}");
    }
}
