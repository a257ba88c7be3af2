//! Requests that no client of good will makes.

use std::time::Duration;

use boatyard_oci::{Digest, MediaType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::Served;

/// Sends a request as it is, and returns all that comes back until the server closes.
async fn raw(served: &Served, request: &[u8]) -> String {
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    // The server may refuse before it has read all.
    let _ = connection.write_all(request).await;
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(served: &Served, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    raw(served, request.as_bytes()).await
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let served = Served::start().await;
    served.push_image("a", "1", "layer").await;
    for path in [
        "/v2/../v2/a/tags/list",
        "/v2/a/../a/tags/list",
        "/v2/%2e%2e/tags/list",
        "/v2/%2e%2e%2f%2e%2e%2fetc/tags/list",
        "/v2/a%2f..%2fa/manifests/1",
        "/v2//a/tags/list",
        "/v2/a//tags/list",
        "/v2/a%00/tags/list",
        "/v2/a/manifests/1%00",
        "/v2/a/manifests/..",
        "/v2/a/manifests/%2e%2e%2f1",
        "/v2/a/manifests/a%2Fb",
        "/v2/a/blobs/..%2f..%2fversion",
        "/v2/a/_manifests/manifests/1",
        "/v2/_uploads/tags/list",
        "/v2/a%5cb/tags/list",
        "/v2/a%c3%a9/tags/list",
        "/v2/a%zz/tags/list",
        "/v2/a/referrers/..",
        "/v2/a/blobs/uploads/..%2f..%2f_tags",
        &format!("/v2/{}/tags/list", "a".repeat(256)),
        &format!("/v2/{}/tags/list", "a/".repeat(3000)),
    ] {
        let answer = get(&served, path).await;
        let status = answer.get(9..12).unwrap_or_default().to_owned();
        assert!(status == "400" || status == "404", "{path}: {answer}");
        assert!(answer.contains("{\"errors\":[{\"code\":\""), "{path}: {answer}");
    }
    assert_eq!(served.get("/v2/a/manifests/1").await.status, 200);
}

#[tokio::test]
async fn bytes_that_are_not_http() {
    let served = Served::start().await;
    for request in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET /v2/\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v2/a/manifests/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ] {
        let mut request = request.to_vec();
        request.extend_from_slice(b"\r\n");
        let mut connection = TcpStream::connect(served.address).await.unwrap();
        connection.write_all(&request).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(served.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_manifest_that_never_ends_is_cut_off() {
    let served = Served::start().await;
    let mut request = b"PUT /v2/a/manifests/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: application/vnd.oci.image.manifest.v1+json\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for _ in 0..64 {
        request.extend_from_slice(b"100000\r\n");
        request.extend(std::iter::repeat_n(b' ', 0x10_0000));
        request.extend_from_slice(b"\r\n");
    }
    let answer = raw(&served, &request).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(served.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn json_that_is_deep_or_wide() {
    let served = Served::start().await;
    let deep = "[".repeat(1_000_000);
    let nested = format!(r#"{{"schemaVersion":2,"x":{}"#, "{\"x\":".repeat(200_000));
    let wide = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec!["{}"; 100_000].join(","));
    for text in [deep, nested, wide] {
        let answer = served.put_manifest("a", "1", &MediaType::OCI_INDEX, text.as_bytes()).await;
        answer.refuses(400, "MANIFEST_INVALID");
    }
}

#[tokio::test]
async fn a_blob_larger_than_allowed_is_refused() {
    let limits = crate::Limits { blob_bytes_max: 1000, ..Default::default() };
    let served = Served::start_with(std::sync::Arc::new(crate::OpenAccess), limits).await;
    let bytes = vec![0; 1001];
    let digest = Digest::sha256(&bytes);
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let answer = served.send(http::Method::POST, &path, &[], bytes.clone()).await;
    answer.refuses(413, "SIZE_INVALID");
    let location = served.begin("a").await;
    served.patch(&location, bytes).await.refuses(413, "SIZE_INVALID");
}
