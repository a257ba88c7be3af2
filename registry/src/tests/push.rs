//! Pushing blobs, request by request.

use boatyard_oci::{Algorithm, Digest};
use http::Method;

use super::support::Served;

async fn has(served: &Served, name: &str, digest: &Digest, bytes: &[u8]) {
    let answer = served.get(&format!("/v2/{name}/blobs/{digest}")).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, bytes));
}

#[tokio::test]
async fn one_post() {
    let served = Served::start().await;
    for bytes in [&b"whole"[..], b"", b"{}"] {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let answer = served.send(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.location(), format!("/v2/a/blobs/{digest}"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        has(&served, "a", &digest, bytes).await;
    }
}

#[tokio::test]
async fn one_post_with_a_digest_that_does_not_fit() {
    let served = Served::start().await;
    let other = Digest::sha256(b"other");
    for digest in [other.to_string().as_str(), "sha256:abc", "md5:0", "", "x%00y"] {
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let answer = served.send(Method::POST, &path, &[], "whole").await;
        answer.refuses(400, "DIGEST_INVALID");
    }
    assert_eq!(served.head(&format!("/v2/a/blobs/{other}")).await.status, 404);
}

#[tokio::test]
async fn post_then_put() {
    let served = Served::start().await;
    let begun = served.post("/v2/a/blobs/uploads/").await;
    assert_eq!(begun.status, 202);
    assert_eq!(begun.header("range"), Some("0-0"));
    let session = begun.header("docker-upload-uuid").unwrap();
    assert!(begun.location().starts_with(&format!("/v2/a/blobs/uploads/{session}?")));
    let digest = Digest::sha256(b"whole");
    let answer = served.put(&format!("{}&digest={digest}", begun.location()), "whole").await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.location(), format!("/v2/a/blobs/{digest}"));
    has(&served, "a", &digest, b"whole").await;
    // The session has ended.
    served.get(&begun.location()).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn sha512_announced_or_not() {
    let served = Served::start().await;
    let digest = Digest::of(Algorithm::Sha512, b"chunk by chunk");
    for query in ["", "?digest-algorithm=sha512"] {
        let begun = served.post(&format!("/v2/a/blobs/uploads/{query}")).await;
        let patched = served.patch(&begun.location(), "chunk by ").await;
        let answer = served.put(&format!("{}&digest={digest}", patched.location()), "chunk").await;
        assert_eq!(answer.status, 201, "{answer:?}");
        has(&served, "a", &digest, b"chunk by chunk").await;
        assert_eq!(served.delete(&format!("/v2/a/blobs/{digest}")).await.status, 202);
    }
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(served.send(Method::POST, &path, &[], "chunk by chunk").await.status, 201);
    let unknown = served.post("/v2/a/blobs/uploads/?digest-algorithm=md5").await;
    unknown.refuses(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn chunks() {
    let served = Served::start().await;
    let mut location = served.begin("a").await;
    for (range, bytes, so_far) in [("0-3", "0123", "0-3"), ("4-6", "456", "0-6")] {
        let headers = [("content-range", range)];
        let answer = served.send(Method::PATCH, &location, &headers, bytes).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.header("range"), Some(so_far));
        location = answer.location();
    }
    let digest = Digest::sha256(b"0123456789");
    let path = format!("{location}&digest={digest}");
    let answer = served.send(Method::PUT, &path, &[("content-range", "7-9")], "789").await;
    assert_eq!(answer.status, 201);
    has(&served, "a", &digest, b"0123456789").await;
}

#[tokio::test]
async fn a_stream() {
    let served = Served::start().await;
    let parts: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 50_000]).collect();
    let digest = Digest::sha256(&parts.concat());
    let stream = futures_util::stream::iter(parts.clone().into_iter().map(Ok::<_, std::io::Error>));
    let location = served.begin("a").await;
    let answer = served.patch(&location, reqwest::Body::wrap_stream(stream)).await;
    assert_eq!((answer.status.as_u16(), answer.header("range")), (202, Some("0-2499999")));
    let answer = served.put(&format!("{}&digest={digest}", answer.location()), "").await;
    assert_eq!(answer.status, 201);
    has(&served, "a", &digest, &parts.concat()).await;
}

#[tokio::test]
async fn a_digest_that_is_missing_or_wrong() {
    let served = Served::start().await;
    let location = served.begin("a").await;
    let location = served.patch(&location, "bytes").await.location();
    served.put(&location, "").await.refuses(400, "DIGEST_INVALID");
    served.put(&format!("{location}&digest=nonsense"), "").await.refuses(400, "DIGEST_INVALID");
    assert_eq!(served.get(&location).await.status, 204, "the session is still there");
    let other = Digest::sha256(b"other");
    served.put(&format!("{location}&digest={other}"), "").await.refuses(400, "DIGEST_INVALID");
    served.get(&location).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(served.head(&format!("/v2/a/blobs/{other}")).await.status, 404);
}

#[tokio::test]
async fn the_same_blob_twice_is_one_blob() {
    let served = Served::start().await;
    let pushes = (0..8).map(|_| served.push_blob("a", b"the same"));
    let digests = futures_util::future::join_all(pushes).await;
    has(&served, "a", &digests[0], b"the same").await;
}
