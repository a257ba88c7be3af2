//! What other registries got wrong, by the number under which it became known: each stays right here.
//!
//! Those of tokens are tested where these are made (`access`), those of rules in `rights`, those of
//! upstreams' realms and redirects in `upstream`.

use std::sync::Arc;

use boatyard_oci::{Digest, MediaType, RepositoryName};
use http::Method;
use serde_json::json;

use super::support::{Served, descriptor, image};
use crate::{Access, Action, Caller, Limits, Verdict};

/// distribution: a list of as many entries as the client said was allocated.
#[tokio::test]
async fn cve_2023_2253_a_page_of_any_size_allocates_nothing() {
    let served = Served::start().await;
    served.push_image("a", "1", "layer").await;
    for list in ["/v2/_catalog", "/v2/a/tags/list"] {
        for n in
            ["9223372036854775807", "9223372036854775808", "18446744073709551616", "1000000000"]
        {
            let answer = served.get(&format!("{list}?n={n}")).await;
            assert_eq!((answer.status.as_u16(), answer.header("link")), (200, None), "{n}");
        }
        for n in ["-1", "-9223372036854775808", "1e9", "0x10", "n", "%31%30%30%30x"] {
            let answer = served.get(&format!("{list}?n={n}")).await;
            answer.refuses(400, "PAGINATION_NUMBER_INVALID");
        }
    }
}

/// Everybody may pull and push, and nobody delete.
#[derive(Debug)]
struct NoDeletion;

impl Access for NoDeletion {
    fn decide(&self, _: &Caller, action: Action, _: Option<&RepositoryName>) -> Verdict {
        if action == Action::Delete { Verdict::Denied } else { Verdict::Allowed }
    }
}

/// distribution: a tag could be deleted where deletion was switched off.
#[tokio::test]
async fn cve_2026_41888_each_way_to_delete_asks() {
    let served = Served::start_with(Arc::new(NoDeletion), Limits::default()).await;
    let manifest = served.push_image("a", "1", "layer").await;
    for path in [
        "/v2/a/manifests/1".to_owned(),
        format!("/v2/a/manifests/{}", Digest::sha256(&manifest)),
        format!("/v2/a/blobs/{}", Digest::sha256(b"layer")),
        "/v2/a/manifests/none".to_owned(),
    ] {
        served.delete(&path).await.refuses(403, "DENIED");
    }
    assert_eq!(served.get("/v2/a/manifests/1").await.body, manifest);
    // Who may push may take back what was not finished.
    let location = served.begin("a").await;
    assert_eq!(served.delete(&location).await.status, 204);
}

/// distribution: a blob that was deleted in one repository came back when another one had it.
#[tokio::test]
async fn cve_2026_35172_a_deleted_blob_stays_deleted() {
    let served = Served::start().await;
    // Large enough to be kept mapped, and small.
    for bytes in [vec![1; 100_000], vec![2; 10]] {
        let digest = served.push_blob("a", &bytes).await;
        let (ours, theirs) = (format!("/v2/a/blobs/{digest}"), format!("/v2/b/blobs/{digest}"));
        assert_eq!(served.get(&ours).await.body, bytes);
        assert_eq!(served.delete(&ours).await.status, 202);
        served.push_blob("b", &bytes).await;
        for _ in 0..2 {
            assert_eq!(served.get(&theirs).await.body, bytes);
            assert_eq!(served.head(&theirs).await.status, 200);
            served.get(&ours).await.refuses(404, "BLOB_UNKNOWN");
            assert_eq!(served.head(&ours).await.status, 404);
        }
        // Nor can it be had from there by a mount or a manifest.
        let mount = format!("/v2/c/blobs/uploads/?mount={digest}&from=a");
        assert_eq!(served.post(&mount).await.status, 202);
    }
}

/// containerd and others ("ContainerDrip"): what a manifest says of where its layers are was
/// followed, with credentials.
#[tokio::test]
async fn cve_2020_15157_urls_of_layers_are_not_followed() {
    let served = Served::start().await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/layer", listener.local_addr().unwrap());
    let foreign = MediaType::new("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let mut layer = descriptor(&foreign, b"elsewhere");
    layer["urls"] = json!([url]);
    served.push_blob("a", b"{}").await;
    let docker = MediaType::DOCKER_MANIFEST;
    let manifest = image("x", json!({ "mediaType": docker, "layers": [layer] }));
    assert_eq!(served.put_manifest("a", "1", &docker, &manifest).await.status, 201);
    assert_eq!(served.get("/v2/a/manifests/1").await.body, manifest);
    let path = format!("/v2/a/blobs/{}", Digest::sha256(b"elsewhere"));
    served.get(&path).await.refuses(404, "BLOB_UNKNOWN");
    assert_eq!(served.head(&path).await.status, 404);
    // Nobody came: what would be accepted now is our own connection.
    let ours = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!(from, ours.local_addr().unwrap());
}

/// The specification: bytes that are an image to one reader and an index to another.
#[tokio::test]
async fn cve_2021_41190_a_manifest_is_of_one_kind() {
    let served = Served::start().await;
    let manifest = served.image("a", "layer").await;
    let (oci, index) = (MediaType::OCI_MANIFEST, MediaType::OCI_INDEX);
    served.put_manifest("a", "x", &index, &manifest).await.refuses(400, "MANIFEST_INVALID");
    let config = descriptor(&MediaType::OCI_CONFIG, b"{}");
    for both in [
        json!({ "schemaVersion": 2, "config": config, "layers": [], "manifests": [] }),
        json!({ "schemaVersion": 2, "config": config, "manifests": [] }),
        json!({ "schemaVersion": 2, "layers": [], "manifests": [] }),
    ] {
        let bytes = both.to_string();
        for kind in [&oci, &index, &MediaType::DOCKER_MANIFEST, &MediaType::DOCKER_INDEX] {
            let answer = served.put_manifest("a", "x", kind, bytes.as_bytes()).await;
            answer.refuses(400, "MANIFEST_INVALID");
        }
    }
    // Bytes that do not say what they are have one type at a time, under each name.
    let untyped = json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string();
    let digest = Digest::sha256(untyped.as_bytes());
    for kind in [&oci, &MediaType::DOCKER_MANIFEST] {
        let answer = served.put_manifest("a", "untyped", kind, untyped.as_bytes()).await;
        assert_eq!(answer.status, 201);
        for reference in ["untyped", &digest.to_string()] {
            let answer = served.get(&format!("/v2/a/manifests/{reference}")).await;
            assert_eq!(answer.header("content-type"), Some(kind.as_str()), "{reference}");
        }
    }
}

/// Nobody may do anything in `secret`.
#[derive(Debug)]
struct Secret;

impl Access for Secret {
    fn decide(&self, _: &Caller, _: Action, repository: Option<&RepositoryName>) -> Verdict {
        match repository.map(RepositoryName::as_str) {
            Some("secret" | "nothing") => Verdict::Denied,
            _ => Verdict::Allowed,
        }
    }
}

/// Gitea and Forgejo: private images could be pulled by some of the endpoints. And of zot's class:
/// what is there looks like what is not.
#[tokio::test]
async fn cve_2026_27771_each_endpoint_asks_and_tells_nothing() {
    let served = Served::start().await;
    let manifest = served.push_image("secret", "1", "layer").await;
    let location = served.begin("secret").await;
    let served = served.restart_as(Arc::new(Secret)).await;
    let (blob, digest) = (Digest::sha256(b"layer"), Digest::sha256(&manifest));
    let calls = [
        (Method::GET, "tags/list".to_owned()),
        (Method::GET, "manifests/1".to_owned()),
        (Method::HEAD, "manifests/1".to_owned()),
        (Method::GET, format!("manifests/{digest}")),
        (Method::HEAD, format!("manifests/{digest}")),
        (Method::PUT, "manifests/1".to_owned()),
        (Method::PUT, format!("manifests/{digest}?tag=2")),
        (Method::DELETE, "manifests/1".to_owned()),
        (Method::GET, format!("blobs/{blob}")),
        (Method::HEAD, format!("blobs/{blob}")),
        (Method::DELETE, format!("blobs/{blob}")),
        (Method::GET, format!("referrers/{digest}")),
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?digest={blob}")),
        (Method::POST, format!("blobs/uploads/?mount={blob}&from=a")),
        (Method::GET, "blobs/uploads/x".to_owned()),
        (Method::PATCH, "blobs/uploads/x".to_owned()),
        (Method::PUT, format!("blobs/uploads/x?digest={blob}")),
        (Method::DELETE, "blobs/uploads/x".to_owned()),
    ];
    for (method, path) in calls {
        let there = served.send(method.clone(), &format!("/v2/secret/{path}"), &[], "").await;
        let not_there = served.send(method.clone(), &format!("/v2/nothing/{path}"), &[], "").await;
        let answers = [there, not_there].map(|answer| (answer.status, answer.body));
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert_ne!(answers[0].1, &b"layer"[..], "{method} {path}");
        assert!(answers[0].0.as_u16() != 201 && answers[0].0.as_u16() != 202, "{method} {path}");
    }
    let range = [("range", "bytes=0-1")];
    let path = format!("/v2/secret/blobs/{blob}");
    assert_eq!(served.send(Method::GET, &path, &range, "").await.status, 404);
    served.get(&location).await.refuses(403, "DENIED");
    // Another repository's reader learns nothing by a mount, and the catalog does not list it.
    let other = Digest::sha256(b"never pushed");
    for query in ["&from=secret", ""] {
        for digest in [&blob, &other] {
            let path = format!("/v2/mine/blobs/uploads/?mount={digest}{query}");
            assert_eq!(served.post(&path).await.status, 202, "{path}");
        }
    }
    assert_eq!(served.get("/v2/_catalog").await.json()["repositories"], json!([]));
    let session = location.replace("/v2/secret/", "/v2/mine/");
    served.get(&session).await.refuses(404, "BLOB_UPLOAD_UNKNOWN");
}
