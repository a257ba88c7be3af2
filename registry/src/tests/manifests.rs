//! Pushing, pulling and deleting manifests.

use std::sync::Arc;

use boatyard_oci::{Algorithm, Digest, Manifest, MediaType};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::support::{Served, descriptor, digest_of, image};
use crate::{Limits, OpenAccess};

const OCI: MediaType = MediaType::OCI_MANIFEST;

#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte() {
    let served = Served::start().await;
    let manifest = served.image("a/b", "layer").await;
    let digest = digest_of(&manifest, &OCI);
    let pushed = served.put_manifest("a/b", "1.0", &OCI, &manifest).await;
    assert_eq!(pushed.status, 201);
    assert_eq!(pushed.location(), format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(pushed.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(pushed.header("oci-subject"), None);
    // Twice: from the disk and from memory.
    for reference in ["1.0", &digest.to_string(), "1.0"] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let answer = served.get(&path).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &manifest));
        for answer in [answer, served.head(&path).await] {
            assert_eq!(answer.header("content-type"), Some(OCI.as_str()));
            assert_eq!(answer.header("content-length"), Some(manifest.len().to_string().as_str()));
            assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
            assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
        }
        let etag = format!("\"{digest}\"");
        let known = served.send(Method::GET, &path, &[("if-none-match", &etag)], "").await;
        assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    }
    let served = served.restart().await;
    assert_eq!(served.get("/v2/a/b/manifests/1.0").await.body, manifest);
}

#[tokio::test]
async fn a_tag_moves_and_another_process_sees_it() {
    let served = Served::start().await;
    let one = served.push_image("a", "latest", "one").await;
    assert_eq!(served.get("/v2/a/manifests/latest").await.body, one);
    let two = served.push_image("a", "latest", "two").await;
    assert_eq!(served.get("/v2/a/manifests/latest").await.body, two);
    // Behind the server's back, as `boatyard` beside it would.
    let tag = served.directory.path().join("root/hosted/a/_tags/latest");
    fs_err::write(tag, format!("{}\n", Digest::sha256(&one))).unwrap();
    assert_eq!(served.get("/v2/a/manifests/latest").await.body, one);
}

#[tokio::test]
async fn pushed_by_digest_with_tags() {
    let served = Served::start().await;
    let manifest = served.image("a", "layer").await;
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, &manifest);
        let reference = format!("{digest}?tag={algorithm}&tag=1.2&tag=1");
        let answer = served.put_manifest("a", &reference, &OCI, &manifest).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let tags: Vec<_> = answer.headers.get_all("oci-tag").iter().collect();
        assert_eq!(tags, [algorithm.name(), "1.2", "1"]);
        let tagged = served.get(&format!("/v2/a/manifests/{algorithm}")).await;
        assert_eq!(tagged.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(served.get(&format!("/v2/a/manifests/{digest}")).await.body, manifest);
    }
    let many: String = (0..51).map(|n| format!("&tag=t{n}")).collect();
    let reference = format!("{}?{many}", Digest::sha256(&manifest));
    served.put_manifest("a", &reference, &OCI, &manifest).await.refuses(414, "UNSUPPORTED");
    let reference = format!("{}?tag=-bad", Digest::sha256(&manifest));
    served.put_manifest("a", &reference, &OCI, &manifest).await.refuses(400, "NAME_INVALID");
}

#[tokio::test]
async fn docker_manifests_are_kept_as_they_are() {
    let served = Served::start().await;
    let docker = MediaType::DOCKER_MANIFEST;
    served.image("a", "layer").await;
    let text = String::from_utf8(image("layer", json!({ "mediaType": docker })).to_vec()).unwrap();
    let answer = served.put_manifest("a", "docker", &docker, text.as_bytes()).await;
    assert_eq!(answer.status, 201);
    let pulled = served.get("/v2/a/manifests/docker").await;
    assert_eq!(
        (pulled.header("content-type"), &pulled.body[..]),
        (Some(docker.as_str()), text.as_bytes())
    );
    // A parameter of the Content-Type is not stored; without one the bytes say what they are.
    let typed = [("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")];
    let manifest = image("layer", json!({}));
    let path = "/v2/a/manifests/oci";
    assert_eq!(served.send(Method::PUT, path, &typed, manifest.clone()).await.status, 201);
    assert_eq!(served.get(path).await.header("content-type"), Some(OCI.as_str()));
    assert_eq!(served.send(Method::PUT, path, &[], manifest).await.status, 201);
}

#[tokio::test]
async fn what_is_not_a_valid_manifest() {
    let served = Served::start().await;
    let good = served.image("a", "layer").await;
    let both = image("layer", json!({ "manifests": [] }));
    let other_type = image("layer", json!({ "mediaType": MediaType::OCI_INDEX }));
    let first = image("layer", json!({ "schemaVersion": 1 }));
    for bad in [&b"{"[..], b"", b"[]", b"null", &both, &other_type, &first] {
        served.put_manifest("a", "x", &OCI, bad).await.refuses(400, "MANIFEST_INVALID");
    }
    let schema1 = MediaType::new("application/vnd.docker.distribution.manifest.v1+prettyjws");
    let untyped = Bytes::from_static(br#"{"schemaVersion":2}"#);
    served.put_manifest("a", "x", &schema1, &untyped).await.refuses(415, "MANIFEST_INVALID");
    let other = Digest::sha256(b"other").to_string();
    served.put_manifest("a", &other, &OCI, &good).await.refuses(400, "DIGEST_INVALID");
    for bad in ["sha256:baddigeststring", "sha256:", "a:b"] {
        served.put_manifest("a", bad, &OCI, &good).await.refuses(400, "DIGEST_INVALID");
        served.get(&format!("/v2/a/manifests/{bad}")).await.refuses(400, "DIGEST_INVALID");
    }
    served.put_manifest("a", "-x", &OCI, &good).await.refuses(400, "NAME_INVALID");
    let huge = vec![b' '; Manifest::SIZE_MAX + 1];
    served.put_manifest("a", "x", &OCI, &huge).await.refuses(413, "SIZE_INVALID");
    served.get("/v2/a/manifests/x").await.refuses(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_in_its_repository() {
    let served = Served::start().await;
    let manifest = served.image("other", "layer").await;
    let answer = served.put_manifest("a", "1", &OCI, &manifest).await;
    answer.refuses(400, "MANIFEST_BLOB_UNKNOWN");
    let missing = answer.json()["errors"][0]["detail"]["digests"].clone();
    let mut expected = [Digest::sha256(b"{}").to_string(), Digest::sha256(b"layer").to_string()];
    expected.sort();
    assert_eq!(missing, json!(expected));
    // Layers that must not be distributed are never pushed.
    served.push_blob("a", b"{}").await;
    let foreign = MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar");
    let manifest = image("layer", json!({ "layers": [descriptor(&foreign, b"elsewhere")] }));
    assert_eq!(served.put_manifest("a", "1", &OCI, &manifest).await.status, 201);
}

#[tokio::test]
async fn a_sparse_manifest_is_taken_where_it_may_be() {
    let limits = Limits { sparse_manifests: true, ..Limits::default() };
    let served = Served::start_with(Arc::new(OpenAccess), limits).await;
    let manifest = served.image("other", "layer").await;
    assert_eq!(served.put_manifest("a", "1", &OCI, &manifest).await.status, 201);
    assert_eq!(&served.get("/v2/a/manifests/1").await.body[..], &manifest[..]);
    let blob = format!("/v2/a/blobs/{}", Digest::sha256(b"layer"));
    served.get(&blob).await.refuses(404, "BLOB_UNKNOWN");
    // What is not there comes later.
    served.push_blob("a", b"layer").await;
    assert_eq!(served.get(&blob).await.status, 200);
}

#[tokio::test]
async fn an_index_needs_its_manifests() {
    let served = Served::start().await;
    let child = served.push_image("a", "child", "layer").await;
    let index = |bytes: &[u8]| {
        let children = [descriptor(&OCI, bytes)];
        json!({ "schemaVersion": 2, "manifests": children }).to_string()
    };
    let kind = MediaType::OCI_INDEX;
    let whole = index(&child);
    assert_eq!(served.put_manifest("a", "all", &kind, whole.as_bytes()).await.status, 201);
    let pulled = served.get("/v2/a/manifests/all").await;
    assert_eq!(
        (pulled.header("content-type"), &pulled.body[..]),
        (Some(kind.as_str()), whole.as_bytes())
    );
    let answer = served.put_manifest("a", "x", &kind, index(b"missing").as_bytes()).await;
    answer.refuses(400, "MANIFEST_BLOB_UNKNOWN");
    // A build cache lists blobs.
    served.push_blob("a", b"cached layer").await;
    let cache = index(b"cached layer");
    assert_eq!(served.put_manifest("a", "cache", &kind, cache.as_bytes()).await.status, 201);
}

#[tokio::test]
async fn a_tag_is_deleted_alone_and_a_manifest_with_its_tags() {
    let served = Served::start().await;
    let manifest = served.push_image("a", "1", "layer").await;
    served.push_image("a", "2", "layer").await;
    let digest = digest_of(&manifest, &OCI);
    assert_eq!(served.delete("/v2/a/manifests/1").await.status, 202);
    served.get("/v2/a/manifests/1").await.refuses(404, "MANIFEST_UNKNOWN");
    served.delete("/v2/a/manifests/1").await.refuses(404, "MANIFEST_UNKNOWN");
    assert_eq!(served.get("/v2/a/manifests/2").await.body, manifest);
    assert_eq!(served.delete(&format!("/v2/a/manifests/{digest}")).await.status, 202);
    for reference in ["2", &digest.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        served.get(&path).await.refuses(404, "MANIFEST_UNKNOWN");
        assert_eq!(served.head(&path).await.status, 404);
    }
    served.get("/v2/nowhere/manifests/1").await.refuses(404, "NAME_UNKNOWN");
}
