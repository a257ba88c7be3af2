//! Pulling and deleting blobs.

use boatyard_oci::Digest;
use http::Method;

use super::support::Served;

/// Bytes of which no two ranges are alike.
fn numbered(len: usize) -> Vec<u8> {
    (0..len as u32 / 4 + 1).flat_map(u32::to_le_bytes).take(len).collect()
}

#[tokio::test]
async fn a_blob_comes_back_whole_with_its_headers() {
    let served = Served::start().await;
    // Read at once; mapped in one frame; in several.
    for len in [0, 1, 1000, 65_536, 65_537, 1_048_577, 5_000_000] {
        let bytes = numbered(len);
        let digest = served.push_blob("a/b", &bytes).await;
        let path = format!("/v2/a/b/blobs/{digest}");
        let answer = served.get(&path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == bytes, "{len} bytes");
        for answer in [answer, served.head(&path).await] {
            assert_eq!(answer.header("content-length"), Some(len.to_string().as_str()));
            assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
            assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        }
    }
}

#[tokio::test]
async fn ranges_of_a_blob() {
    let served = Served::start().await;
    let bytes = numbered(3_000_000);
    let digest = served.push_blob("a", &bytes).await;
    let path = format!("/v2/a/blobs/{digest}");
    for (range, first, last) in [
        ("500-1499", 500, 1499),
        ("0-0", 0, 0),
        ("100000-2999999", 100_000, 2_999_999),
        ("1-", 1, 2_999_999),
        ("-500", 2_999_500, 2_999_999),
        ("2999000-9999999", 2_999_000, 2_999_999),
    ] {
        let range = format!("bytes={range}");
        let answer = served.send(Method::GET, &path, &[("range", &range)], "").await;
        assert_eq!(answer.status, 206, "{range}");
        let place = format!("bytes {first}-{last}/3000000");
        assert_eq!(answer.header("content-range"), Some(place.as_str()));
        assert!(answer.body == bytes[first..=last], "{range}");
    }
    for range in ["bytes=500-0", "bytes=3000000-", "bytes=5000000-6000000"] {
        let answer = served.send(Method::GET, &path, &[("range", range)], "").await;
        answer.refuses(416, "SIZE_INVALID");
        assert_eq!(answer.header("content-range"), Some("bytes */3000000"), "{range}");
    }
    let several = served.send(Method::GET, &path, &[("range", "bytes=0-1,5-6")], "").await;
    assert_eq!((several.status.as_u16(), several.body.len()), (200, 3_000_000));
    let other = [("range", "bytes=0-1"), ("if-range", "\"sha256:other\"")];
    assert_eq!(served.send(Method::GET, &path, &other, "").await.status, 200);
    let tag = format!("\"{digest}\"");
    let same = [("range", "bytes=0-1"), ("if-range", tag.as_str())];
    assert_eq!(served.send(Method::GET, &path, &same, "").await.status, 206);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let served = Served::start().await;
    let digest = served.push_blob("a", b"x").await;
    let path = format!("/v2/a/blobs/{digest}");
    let tag = format!("\"{digest}\"");
    for method in [Method::GET, Method::HEAD] {
        let answer = served.send(method, &path, &[("if-none-match", &tag)], "").await;
        assert_eq!(answer.status, 304);
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
        assert!(answer.body.is_empty());
    }
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_its_name() {
    let served = Served::start().await;
    let digest = served.push_blob("here", b"x").await;
    let other = Digest::sha256(b"other");
    served.get(&format!("/v2/here/blobs/{other}")).await.refuses(404, "BLOB_UNKNOWN");
    assert_eq!(served.head(&format!("/v2/here/blobs/{other}")).await.status, 404);
    // It is in the store, but was never pushed there.
    served.get(&format!("/v2/there/blobs/{digest}")).await.refuses(404, "NAME_UNKNOWN");
    for bad in ["sha256:abc", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "latest"] {
        served.get(&format!("/v2/here/blobs/{bad}")).await.refuses(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn deletion_concerns_one_repository() {
    let served = Served::start().await;
    let digest = served.push_blob("a", b"shared").await;
    served.push_blob("b", b"shared").await;
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(served.delete(&path).await.status, 202);
    assert_eq!(served.head(&path).await.status, 404);
    served.delete(&path).await.refuses(404, "BLOB_UNKNOWN");
    assert_eq!(served.get(&format!("/v2/b/blobs/{digest}")).await.body, "shared");
    // Touching it in b must not bring it back in a.
    served.get(&path).await.refuses(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_that_a_manifest_needs_is_not_deleted() {
    let served = Served::start().await;
    served.push_image("a", "1", "layer").await;
    let layer = Digest::sha256(b"layer");
    served.delete(&format!("/v2/a/blobs/{layer}")).await.refuses(405, "UNSUPPORTED");
    assert_eq!(served.head(&format!("/v2/a/blobs/{layer}")).await.status, 200);
}

#[tokio::test]
async fn a_blob_that_is_kept_open_is_looked_up_each_time() {
    let served = Served::start().await;
    let bytes = numbered(1_000_000);
    let digest = served.push_blob("a", &bytes).await;
    served.push_blob("b", &bytes).await;
    let (a, b) = (format!("/v2/a/blobs/{digest}"), format!("/v2/b/blobs/{digest}"));
    for path in [&a, &a, &b] {
        assert!(served.get(path).await.body == bytes);
    }
    served.get(&format!("/v2/c/blobs/{digest}")).await.refuses(404, "NAME_UNKNOWN");
    assert_eq!(served.delete(&a).await.status, 202);
    served.get(&a).await.refuses(404, "BLOB_UNKNOWN");
    assert!(served.get(&b).await.body == bytes);
    // As fsck does with a damaged one.
    let hex = digest.hex();
    let file = served.directory.path().join(format!("root/blobs/sha256/{}/{hex}", &hex[..2]));
    let aside = served.directory.path().join("aside");
    fs_err::rename(&file, &aside).unwrap();
    served.get(&b).await.refuses(404, "BLOB_UNKNOWN");
    // Another file under the same name is the one that is sent from then on.
    fs_err::copy(&aside, &file).unwrap();
    for _ in 0..2 {
        assert!(served.get(&b).await.body == bytes);
    }
}

#[tokio::test]
async fn an_empty_blob_is_sent_whatever_range_is_asked_for() {
    let served = Served::start().await;
    let digest = served.push_blob("a", b"").await;
    for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
        let path = format!("/v2/a/blobs/{digest}");
        let answer = served.send(Method::GET, &path, &[("range", range)], "").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{range}");
        assert_eq!(answer.header("content-length"), Some("0"));
    }
}
