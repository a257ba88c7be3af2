//! Upload sessions when things go wrong: order, repeats, restarts, lost connections.

use std::time::Duration;

use boatyard_oci::Digest;
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::Served;

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_the_session_goes_on() {
    let served = Served::start().await;
    let begun = served.begin("a").await;
    let first = served.send(Method::PATCH, &begun, &[("content-range", "0-3")], "0123").await;
    let location = first.location();
    let digest = Digest::sha256(b"0123456789");
    for (method, path) in
        [(Method::PATCH, location.clone()), (Method::PUT, format!("{location}&digest={digest}"))]
    {
        for range in ["6-8", "0-2", "5-4", "4-", "bytes 4-6", "4-6/10", "-1-2"] {
            let headers = [("content-range", range)];
            let answer = served.send(method.clone(), &path, &headers, "456").await;
            answer.refuses(416, "BLOB_UPLOAD_INVALID");
            assert_eq!(answer.header("range"), Some("0-3"), "{range}");
            answer.location();
        }
    }
    // Clients ask with the digest still in the query.
    let status = served.get(&format!("{location}&digest={digest}")).await;
    assert_eq!((status.status.as_u16(), status.header("range")), (204, Some("0-3")));
    let last = format!("{}&digest={digest}", status.location());
    assert_eq!(served.put(&last, "456789").await.status, 201);
}

#[tokio::test]
async fn a_chunk_whose_lengths_disagree() {
    let served = Served::start().await;
    let location = served.begin("a").await;
    let headers = [("content-range", "0-9")];
    let answer = served.send(Method::PATCH, &location, &headers, "only7by").await;
    answer.refuses(400, "SIZE_INVALID");
    assert_eq!(served.get(&location).await.header("range"), Some("0-0"));
}

#[tokio::test]
async fn a_replayed_patch_appends_nothing() {
    let served = Served::start().await;
    let begun = served.begin("a").await;
    // Without a Content-Range only the Location can tell.
    let first = served.patch(&begun, "once").await;
    let again = served.patch(&begun, "once").await;
    again.refuses(416, "BLOB_UPLOAD_INVALID");
    assert_eq!((again.header("range"), again.location()), (Some("0-3"), first.location()));
    let digest = Digest::sha256(b"once");
    let answer = served.put(&format!("{}&digest={digest}", again.location()), "").await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_session_survives_a_restart() {
    let served = Served::start().await;
    let location = served.begin("a").await;
    let location = served.patch(&location, "before ").await.location();
    let served = served.restart().await;
    let status = served.get(&location).await;
    assert_eq!((status.status.as_u16(), status.header("range")), (204, Some("0-6")));
    let digest = Digest::sha256(b"before and after");
    let answer = served.put(&format!("{}&digest={digest}", status.location()), "and after").await;
    assert_eq!(answer.status, 201);
    assert_eq!(served.get(&answer.location()).await.body, "before and after");
}

#[tokio::test]
async fn what_arrived_before_the_connection_broke_is_kept() {
    let served = Served::start().await;
    let location = served.begin("a").await;
    let bytes = vec![7; 300_000];
    let mut connection = TcpStream::connect(served.address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&bytes).await.unwrap();
    connection.shutdown().await.unwrap();
    drop(connection);
    let kept = async {
        while served.get(&location).await.header("range") != Some("0-299999") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), kept).await.expect("the bytes are kept");
    let status = served.get(&location).await;
    let digest = Digest::sha256(&[7; 300_001]);
    let answer = served.put(&format!("{}&digest={digest}", status.location()), vec![7]).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_cancelled_session_is_gone() {
    let served = Served::start().await;
    let location = served.begin("a").await;
    let location = served.patch(&location, "bytes").await.location();
    assert_eq!(served.delete(&location).await.status, 204);
    served.get(&location).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    served.patch(&location, "more").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    served.delete(&location).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    let ingests = served.directory.path().join("root/ingest");
    let left = fs_err::read_dir(ingests).map_or(0, Iterator::count);
    assert_eq!(left, 0, "its bytes are gone, too");
}

#[tokio::test]
async fn a_session_belongs_to_one_repository() {
    let served = Served::start().await;
    let location = served.begin("mine").await;
    let stolen = location.replace("/v2/mine/", "/v2/yours/");
    let digest = Digest::sha256(b"bytes");
    for (method, path) in [
        (Method::GET, stolen.clone()),
        (Method::PATCH, stolen.clone()),
        (Method::PUT, format!("{stolen}&digest={digest}")),
        (Method::DELETE, stolen),
    ] {
        served.send(method, &path, &[], "bytes").await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
    }
    for unknown in ["never-begun", "..", "%2e%2e", "A", "a%2Fb", "_uploads"] {
        let path = format!("/v2/mine/blobs/uploads/{unknown}");
        let answer = served.send(Method::PATCH, &path, &[], "").await;
        assert_eq!(answer.status.as_u16() / 100, 4, "{unknown}");
    }
    assert_eq!(served.get(&location).await.status, 204);
}
