//! What clients may take: requests, sessions, sizes. Each refusal names its limit.

use std::sync::Arc;
use std::time::Duration;

use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_oci::{Digest, MediaType};
use http::Method;

use super::support::{Answer, Served};
use crate::{Limits, Mirrors, OpenAccess, RateLimit, Registry};

async fn start(limits: Limits) -> Served {
    Served::start_with(Arc::new(OpenAccess), limits).await
}

/// Checks that a client was told to come back, and which limit it met.
#[track_caller]
fn too_many(answer: &Answer, limit: &str) {
    answer.refuses(429, "TOOMANYREQUESTS");
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(after >= 1);
    let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(limit), "{message}");
}

#[tokio::test]
async fn more_requests_than_allowed() {
    let rate = RateLimit { per_second: 1, burst: 20, spares_loopback: false };
    let served = start(Limits { rate, ..Limits::default() }).await;
    let mut refused = None;
    // Had each taken a second, none would be refused: with many at once, some are.
    for _ in 0..1000 {
        let answer = served.get("/v2/").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    too_many(&refused.expect("some are refused"), "requests_per_second allows (1)");
    // A body that comes with it is no reason to cut the connection.
    let answer = served.put("/v2/a/manifests/1", vec![0; 100_000]).await;
    too_many(&answer, "requests_per_second");
}

#[tokio::test]
async fn more_uploads_than_allowed() {
    let limits = Limits {
        uploads_per_repository_max: 3,
        uploads_max: 5,
        upload_expiry: Duration::from_secs(3600),
        ..Limits::default()
    };
    let served = start(limits).await;
    let mut locations = Vec::new();
    for _ in 0..3 {
        locations.push(served.begin("a").await);
    }
    let begin = |name: &str| format!("/v2/{name}/blobs/uploads/");
    too_many(&served.post(&begin("a")).await, "uploads_per_repository_max allows (3)");
    served.begin("b").await;
    served.begin("b").await;
    too_many(&served.post(&begin("c")).await, "uploads_max allows (5)");
    // A mount that is not possible is a session, too; one that is possible is none.
    let blob = served.push_blob("a", b"blob").await;
    let mount = format!("{}?mount={blob}&from=a", begin("c"));
    assert_eq!(served.post(&mount).await.status, 201);
    let other = Digest::sha256(b"other");
    too_many(&served.post(&format!("{}?mount={other}", begin("c"))).await, "uploads_max");
    // Each way to end one makes room for another.
    assert_eq!(served.delete(&locations[0]).await.status, 204);
    let finish = format!("{}&digest={other}", served.begin("a").await);
    assert_eq!(served.put(&finish, "other").await.status, 201);
    let wrong = format!("{}&digest={other}", served.begin("a").await);
    served.put(&wrong, "wrong").await.refuses(400, "DIGEST_INVALID");
    served.begin("c").await;
    too_many(&served.post(&begin("c")).await, "uploads_max");
}

#[tokio::test]
async fn sessions_are_counted_again_after_a_restart() {
    let served = Served::start().await;
    for name in ["a", "a/b", "c"] {
        served.begin(name).await;
    }
    let limits = Limits { uploads_max: 4, ..Limits::default() };
    let served = served.restart_with(limits).await;
    served.begin("d").await;
    too_many(&served.post("/v2/d/blobs/uploads/").await, "uploads_max");
}

#[tokio::test]
async fn a_session_that_nobody_goes_on_with_expires() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let limits = Limits {
        upload_expiry: Duration::ZERO,
        uploads_per_repository_max: 1,
        ..Limits::default()
    };
    let registry = Registry::new(root, Mirrors::default(), Arc::new(OpenAccess), limits);
    let served = Served::routing(directory, crate::router(Arc::clone(&registry))).await;
    let location = served.begin("a").await;
    // To have been written before now is to have expired.
    let location = served.patch(&location, "some").await.location();
    let tending = tokio::spawn(registry.end_stale_uploads());
    while served.get(&location).await.status == 204 {
        tokio::task::yield_now().await;
    }
    served.patch(&location, "more").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    // One that is in the way of another ends at once.
    served.begin("b").await;
    served.begin("b").await;
    tending.abort();
}

#[tokio::test]
async fn a_manifest_larger_than_configured() {
    let served = start(Limits { manifest_bytes_max: 1000, ..Limits::default() }).await;
    let answer = served.put_manifest("a", "1", &MediaType::OCI_MANIFEST, &[b' '; 1001]).await;
    answer.refuses(413, "SIZE_INVALID");
    assert_eq!(answer.json()["errors"][0]["detail"]["most"], 1000);
    // As it is announced, or as it comes.
    let pieces = (0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let headers = [("content-type", MediaType::OCI_MANIFEST.as_str().to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = served.send(Method::PUT, "/v2/a/manifests/1", &headers, body).await;
    answer.refuses(413, "SIZE_INVALID");
    let tags: Vec<String> = (0..51).map(|n| format!("tag=t{n}")).collect();
    let path = format!("/v2/a/manifests/{}?{}", Digest::sha256(b"{}"), tags.join("&"));
    let answer = served.put(&path, "{}").await;
    answer.refuses(414, "UNSUPPORTED");
}
