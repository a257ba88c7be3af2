//! Requests that no client of good will makes.

use std::time::Duration;

use boatyard_content::Root;
use boatyard_content::gc::GcOptions;
use boatyard_content::local::RootOptions;
use boatyard_oci::{Digest, MediaType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Served, descriptor};

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
    get_with(served, "GET", path).await
}

/// Sends a request without a body, its path as it is.
async fn get_with(served: &Served, method: &str, path: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    raw(served, request.as_bytes()).await
}

/// Ways to write "the directory above", and other things that are no part of a name.
const NO_NAMES: [&str; 44] = [
    "..",
    ".",
    "%2e%2e",
    "%2E%2E",
    ".%2e",
    "%2e.",
    "%252e%252e",
    "%25252e%25252e",
    "..%2f..",
    "..%2F..",
    "%2e%2e%2f",
    "%2e%2e/%2e%2e",
    "..%5c..",
    "..\\..",
    "%5c..%5c",
    "..%252f..",
    "..%c0%af..",
    "%c0%ae%c0%ae",
    "..%ef%bc%8f..",
    "%ef%bc%8e%ef%bc%8e",
    "..%e2%88%95..",
    "..;",
    "..;/",
    "..%00",
    "%00",
    "a%00",
    "%00/..",
    "..%0a",
    "..%0d%0a",
    "..%09",
    "..%20",
    "%20",
    "..%3f",
    "..%23",
    "....",
    "..../",
    "....//",
    "/",
    "//",
    "%2f",
    "%2fetc%2fpasswd",
    "~",
    "%7e",
    "_manifests",
];

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let served = Served::start().await;
    served.push_image("a", "1", "layer").await;
    let digest = Digest::sha256(b"layer");
    let mut paths: Vec<String> = [
        "/v2/../v2/a/tags/list",
        "/v2//a/tags/list",
        "/v2/a//tags/list",
        "/v2/a/_manifests/manifests/1",
        "/v2/_uploads/tags/list",
        "/v2/a%c3%a9/tags/list",
        "/v2/a%zz/tags/list",
        "/v2/a%/tags/list",
        "/v2/%61%2f/tags/list",
        "/%2e%2e/v2/a/tags/list",
        "/../v2/../a/tags/list",
        "/v2/a/blobs/uploads/..%2f..%2f_tags",
        "/v2/a/blobs/sha256:..%2f..%2fversion",
        "/v2/a/blobs/sha256:%2e%2e",
        "/v2/a/blobs/..:..",
    ]
    .map(str::to_owned)
    .into();
    paths.push(format!("/v2/{}/tags/list", "a".repeat(256)));
    paths.push(format!("/v2/{}/tags/list", "a/".repeat(3000)));
    for part in NO_NAMES {
        paths.extend([
            format!("/v2/{part}/tags/list"),
            format!("/v2/a/{part}/tags/list"),
            format!("/v2/{part}/a/manifests/1"),
            format!("/v2/a/{part}/a/blobs/{digest}"),
            format!("/v2/a/manifests/{part}"),
            format!("/v2/a/blobs/{part}"),
            format!("/v2/a/blobs/{part}{digest}"),
            format!("/v2/a/referrers/{part}"),
            format!("/v2/a/blobs/uploads/{part}"),
            format!("/v2/a/blobs/uploads/{part}/.."),
            format!("/{part}/v2/a/tags/list"),
        ]);
    }
    for path in paths {
        // A path that a server may understand as another endpoint is one with a status of its own.
        let answer = get(&served, &path).await;
        let status = answer.get(9..12).unwrap_or_default().to_owned();
        assert!(status.starts_with('4'), "{path}: {answer}");
        assert!(!answer.contains("root:"), "{path}: {answer}");
    }
    assert_eq!(served.get("/v2/a/manifests/1").await.status, 200);
}

#[tokio::test]
async fn parameters_that_name_nothing() {
    let served = Served::start().await;
    let digest = served.push_blob("a", b"blob").await;
    for part in NO_NAMES {
        // What cannot be mounted is an upload, whose answer says nothing of why.
        for query in [format!("mount={digest}&from={part}"), format!("mount={part}&from=a")] {
            let answer = get_with(&served, "POST", &format!("/v2/b/blobs/uploads/?{query}")).await;
            let status = answer.get(9..12).unwrap_or_default();
            assert!(status == "202" || status == "400", "{query}: {answer}");
        }
        for (method, path) in [
            ("POST", format!("/v2/b/blobs/uploads/?digest={part}")),
            ("POST", format!("/v2/b/blobs/uploads/?digest-algorithm={part}")),
            ("GET", format!("/v2/a/tags/list?n={part}")),
            ("GET", format!("/v2/_catalog?n={part}")),
            ("GET", format!("/v2/a/tags/list?ns={part}")),
            ("PUT", format!("/v2/a/manifests/{digest}?tag={part}")),
        ] {
            let answer = get_with(&served, method, &path).await;
            // A fragment is cut off before it is sent, and an empty parameter may be as none.
            assert!(!answer.starts_with("HTTP/1.1 5"), "{method} {path}: {answer}");
            assert!(!answer.starts_with("HTTP/1.1 201"), "{method} {path}: {answer}");
        }
        for path in [format!("/v2/a/tags/list?last={part}"), format!("/v2/_catalog?last={part}")] {
            let answer = get(&served, &path).await;
            let status = answer.get(9..12).unwrap_or_default();
            assert!(status == "200" || status == "400", "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn digests_that_are_none() {
    let served = Served::start().await;
    let good = served.push_blob("a", b"blob").await;
    let hex = good.hex();
    let digests = [
        String::new(),
        ":".to_owned(),
        "sha256".to_owned(),
        "sha256:".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("SHA256:{hex}"),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha512:{hex}"),
        format!("md5:{hex}"),
        format!("sha256+b64:{hex}"),
        format!("sha256:{hex}:{hex}"),
        format!("sha256%00:{hex}"),
        format!("sha256:{hex}%0a"),
        format!("%20sha256:{hex}"),
        format!("sha256:{}", "g".repeat(64)),
        format!("sha256:{}", "0".repeat(10_000)),
        "sha256:..%2f..".to_owned(),
    ];
    for digest in digests {
        for (method, path) in [
            ("GET", format!("/v2/a/blobs/{digest}")),
            ("HEAD", format!("/v2/a/blobs/{digest}")),
            ("DELETE", format!("/v2/a/blobs/{digest}")),
            ("GET", format!("/v2/a/manifests/{digest}")),
            ("GET", format!("/v2/a/referrers/{digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
        ] {
            let answer = get_with(&served, method, &path).await;
            let status = answer.get(9..12).unwrap_or_default();
            assert!(["400", "404", "405"].contains(&status), "{method} {path}: {answer}");
        }
    }
    assert_eq!(served.get(&format!("/v2/a/blobs/{good}")).await.status, 200);
}

#[tokio::test]
async fn ranges_that_are_none() {
    let served = Served::start().await;
    let digest = served.push_blob("a", &[7; 1000]).await;
    let many = format!("bytes={}", (0..2000).map(|n| format!("{n}-,")).collect::<String>());
    for range in [
        "bytes=0-18446744073709551615",
        "bytes=18446744073709551615-",
        "bytes=18446744073709551616-18446744073709551617",
        "bytes=-18446744073709551616",
        "bytes=--1",
        "bytes=0--1",
        "bytes=-0",
        "bytes=999-0",
        "bytes=1e3-",
        "bytes= 0 - 5 ",
        "bytes",
        "=",
        "bytes=0-0,0-0",
        &many,
    ] {
        let path = format!("/v2/a/blobs/{digest}");
        let answer = served.send(http::Method::GET, &path, &[("range", range)], "").await;
        let status = answer.status.as_u16();
        assert!([200, 206, 416].contains(&status), "{range}: {status}");
        assert!(answer.body.len() <= 1000);
    }
    let location = served.begin("a").await;
    for range in [
        "0-18446744073709551615",
        "0-18446744073709551614",
        "18446744073709551615-18446744073709551615",
        "18446744073709551616-1",
        "1-0",
        "-1-4",
        "0-9223372036854775807",
        "0-",
        "",
    ] {
        let headers = [("content-range", range)];
        let answer = served.send(http::Method::PATCH, &location, &headers, "bytes").await;
        assert!([400, 416].contains(&answer.status.as_u16()), "{range}: {answer:?}");
    }
    // Nothing of that was kept.
    assert_eq!(served.get(&location).await.header("range"), Some("0-0"));
}

#[tokio::test]
async fn lengths_that_lie() {
    let served = Served::start().await;
    let location = served.begin("a").await;
    let digest = Digest::sha256(b"bytes");
    let huge = u64::MAX;
    for (method, path) in [
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
        ("PUT", format!("{location}&digest={digest}")),
        ("PUT", "/v2/a/manifests/1".to_owned()),
    ] {
        for lie in [
            format!("content-length: {huge}"),
            format!("content-length: {huge}0"),
            "content-length: 100".to_owned(),
            "content-length: -5".to_owned(),
            "content-length: 5\r\ncontent-length: 50".to_owned(),
            "content-length: 3\r\ntransfer-encoding: chunked".to_owned(),
            "transfer-encoding: gzip".to_owned(),
            "transfer-encoding: chunked, identity".to_owned(),
        ] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lie}\r\n\r\nbytes"
            );
            let mut connection = TcpStream::connect(served.address).await.unwrap();
            let _ = connection.write_all(request.as_bytes()).await;
            let _ = connection.shutdown().await;
            let mut answer = Vec::new();
            let _ = connection.read_to_end(&mut answer).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{path} {lie}: {text}");
        }
    }
    assert_eq!(served.head(&format!("/v2/a/blobs/{digest}")).await.status, 404);
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_long() {
    let served = Served::start().await;
    let bombs = [
        (0..5000).map(|n| format!("x-{n}: y\r\n")).collect::<String>(),
        format!("x: {}\r\n", "y".repeat(200_000)),
        format!("{}: y\r\n", "x".repeat(100_000)),
        format!("accept: {}\r\n", "a/b,".repeat(40_000)),
        format!("authorization: Bearer {}\r\n", "a.".repeat(60_000)),
    ];
    for bomb in bombs {
        let request = format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{bomb}\r\n");
        let answer = raw(&served, request.as_bytes()).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{}", &answer[..answer.len().min(200)]);
    }
    let answer = get(&served, &format!("/v2/_catalog?last={}", "a".repeat(200_000))).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(served.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn methods_that_an_endpoint_lacks() {
    let served = Served::start().await;
    served.push_image("a", "1", "layer").await;
    let digest = Digest::sha256(b"layer");
    for path in [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/a/tags/list".to_owned(),
        "/v2/a/manifests/1".to_owned(),
        format!("/v2/a/blobs/{digest}"),
        "/v2/a/blobs/uploads/".to_owned(),
        "/v2/a/blobs/uploads/x".to_owned(),
        format!("/v2/a/referrers/{digest}"),
    ] {
        for method in ["TRACE", "CONNECT", "OPTIONS", "PROPFIND", "get", "X".repeat(300).as_str()] {
            let answer = get_with(&served, method, &path).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{method} {path}: {answer}"
            );
        }
    }
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
async fn json_that_is_no_manifest() {
    let served = Served::start().await;
    let digest = served.push_blob("a", b"{}").await;
    let blob = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":2}}"#);
    let index = |entries: &str| format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
    let with = |more: &str| format!(r#"{{"schemaVersion":2,"manifests":[],{more}}}"#);
    for text in [
        "[".repeat(1_000_000),
        format!(r#"{{"schemaVersion":2,"x":{}"#, "{\"x\":".repeat(200_000)),
        index(&vec!["{}"; 100_000].join(",")),
        index("null"),
        index("1"),
        index("\"\""),
        index(&blob.replace(":2}", ":-1}")),
        index(&blob.replace(":2}", ":1e400}")),
        index(&blob.replace(":2}", ":18446744073709551616}")),
        index(&blob.replace(":2}", ":\"2\"}")),
        index(&blob.replace(&digest.to_string(), "../../version")),
        index(&blob.replace("a/b", "a/b\",\"mediaType\":\"c/d")),
        with(r#""manifests":[]"#),
        with(r#""schemaVersion":2"#),
        with(r#""layers":[]"#),
        with(r#""subject":[]"#),
        with(r#""subject":{"digest":"x"}"#),
        with(r#""annotations":{"a":1}"#),
        with(r#""annotations":[]"#),
        with(r#""mediaType":1"#),
        with(r#""mediaType":"application/vnd.oci.image.manifest.v1+json""#),
        r#"{"schemaVersion":"2","manifests":[]}"#.to_owned(),
        r#"{"schemaVersion":2.5,"manifests":[]}"#.to_owned(),
        r#"{"schemaVersion":2,"manifests":{}}"#.to_owned(),
        "{\"schemaVersion\":2,\"manifests\":[]}{}".to_owned(),
        "\u{feff}{\"schemaVersion\":2,\"manifests\":[]}".to_owned(),
        "NaN".to_owned(),
    ] {
        let answer = served.put_manifest("a", "1", &MediaType::OCI_INDEX, text.as_bytes()).await;
        assert!(answer.status == 400, "{}: {answer:?}", &text[..text.len().min(200)]);
        answer.refuses(400, "MANIFEST_INVALID");
    }
    let not_text =
        [&b"{\"schemaVersion\":2,\"manifests\":[],\"x\":\"\xff\xfe\"}"[..], b"\0", b"\xff"];
    for bytes in not_text {
        let answer = served.put_manifest("a", "1", &MediaType::OCI_INDEX, bytes).await;
        answer.refuses(400, "MANIFEST_INVALID");
    }
    served.get("/v2/a/manifests/1").await.refuses(404, "MANIFEST_UNKNOWN");
    // What we do not read may be as it likes, and comes back so.
    let deep = with(&format!(r#""x":{}{}"#, "[".repeat(10_000), "]".repeat(10_000)));
    let answer = served.put_manifest("a", "1", &MediaType::OCI_INDEX, deep.as_bytes()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(served.get("/v2/a/manifests/1").await.body, deep);
}

#[tokio::test]
async fn content_types_that_are_none() {
    let served = Served::start().await;
    let manifest = served.image("a", "layer").await;
    let long = format!("application/{}", "x".repeat(20_000));
    for kind in ["", "/", "text/html", "application/json", "a\tb", "*/*", &long] {
        let headers = [("content-type", kind)];
        let answer =
            served.send(http::Method::PUT, "/v2/a/manifests/1", &headers, manifest.clone()).await;
        assert_eq!(answer.status.as_u16() / 100, 4, "{kind}: {answer:?}");
    }
    served.get("/v2/a/manifests/1").await.refuses(404, "MANIFEST_UNKNOWN");
}

/// Zot 120c2005: what walks indexes must not walk each way through them. Ours are 2^60 ways.
#[tokio::test]
async fn indexes_that_list_one_another_many_times() {
    let served = Served::start().await;
    let mut child = served.push_image("a", "leaf", "layer").await;
    let mut kind = MediaType::OCI_MANIFEST;
    for depth in 0..60 {
        let twice = [descriptor(&kind, &child), descriptor(&kind, &child)];
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": twice, "x": depth });
        child = index.to_string().into();
        kind = MediaType::OCI_INDEX;
        assert_eq!(served.put_manifest("a", "top", &kind, &child).await.status, 201);
    }
    assert_eq!(served.get("/v2/a/manifests/top").await.body, child);
    let top = Digest::sha256(&child);
    assert_eq!(served.delete(&format!("/v2/a/manifests/{top}")).await.status, 202);
    let root = served.directory.path().join("root");
    let root = Root::open(&root, RootOptions::default()).unwrap();
    boatyard_content::gc::collect(&root, &GcOptions::default()).unwrap();
    assert_eq!(served.get("/v2/a/manifests/leaf").await.status, 200);
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
