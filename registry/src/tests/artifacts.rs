//! Artifacts in the exact form in which the field's clients push them, and what they ask for next.

use boatyard_oci::{Digest, MediaType};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::support::{Served, descriptor};

const OCI: MediaType = MediaType::OCI_MANIFEST;

/// Pushes blobs as go-containerregistry does: HEAD, POST, PATCH with all of it, PUT.
async fn push_as_ggcr(served: &Served, name: &str, bytes: &[u8]) {
    let digest = Digest::sha256(bytes);
    if served.head(&format!("/v2/{name}/blobs/{digest}")).await.status == 200 {
        return;
    }
    let location = served.begin(name).await;
    let octets = [("content-type", "application/octet-stream")];
    let patched = served.send(Method::PATCH, &location, &octets, bytes.to_vec()).await;
    assert_eq!(patched.status, 202);
    let path = format!("{}&digest={digest}", patched.location());
    assert_eq!(served.put(&path, "").await.status, 201);
}

/// Pushes blobs as oras does: HEAD, POST, PUT with all of it.
async fn push_as_oras(served: &Served, name: &str, bytes: &[u8]) {
    let digest = Digest::sha256(bytes);
    if served.head(&format!("/v2/{name}/blobs/{digest}")).await.status == 200 {
        return;
    }
    let path = format!("{}&digest={digest}", served.begin(name).await);
    let octets = [("content-type", "application/octet-stream")];
    assert_eq!(served.send(Method::PUT, &path, &octets, bytes.to_vec()).await.status, 201);
}

async fn put(served: &Served, name: &str, reference: &str, manifest: &Value) -> Bytes {
    let bytes = Bytes::from(manifest.to_string());
    let kind = MediaType::new(manifest["mediaType"].as_str().unwrap());
    let answer = served.put_manifest(name, reference, &kind, &bytes).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let pulled = served.get(&format!("/v2/{name}/manifests/{reference}")).await;
    assert_eq!((&pulled.body, pulled.header("content-type")), (&bytes, Some(kind.as_str())));
    bytes
}

#[tokio::test]
async fn a_chart_of_helm() {
    let served = Served::start().await;
    let (config, chart, proof) = (
        &br#"{"name":"app","version":"0.1.0+1","apiVersion":"v2"}"#[..],
        &b"\x1f\x8b a chart"[..],
        &b"a provenance"[..],
    );
    for blob in [chart, config, proof] {
        push_as_oras(&served, "charts/app", blob).await;
    }
    let of = |kind: &str, bytes: &[u8]| descriptor(&MediaType::new(kind), bytes);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": of("application/vnd.cncf.helm.config.v1+json", config),
        "layers": [
            of("application/vnd.cncf.helm.chart.content.v1.tar+gzip", chart),
            of("application/vnd.cncf.helm.chart.provenance.v1.prov", proof),
        ],
        "annotations": { "org.opencontainers.image.version": "0.1.0+1" },
    });
    // Helm writes `_` for the `+` of a version.
    put(&served, "charts/app", "0.1.0_1", &manifest).await;
    let tags = served.get("/v2/charts/app/tags/list").await.json();
    assert_eq!(tags["tags"], json!(["0.1.0_1"]));
}

#[tokio::test]
async fn a_signature_of_cosign() {
    let served = Served::start().await;
    let image = served.push_image("app", "1", "layer").await;
    let subject = Digest::sha256(&image);
    let tag = format!("sha256-{}.sig", subject.hex());
    // It looks for signatures that are there already.
    served.get(&format!("/v2/app/manifests/{tag}")).await.refuses(404, "MANIFEST_UNKNOWN");
    let payload = json!({ "critical": { "image": { "docker-manifest-digest": subject } } });
    let payload = payload.to_string();
    let config = br#"{"architecture":"","created":"0001-01-01T00:00:00Z","rootfs":{}}"#;
    push_as_ggcr(&served, "app", payload.as_bytes()).await;
    push_as_ggcr(&served, "app", config).await;
    let signed = MediaType::new("application/vnd.dev.cosign.simplesigning.v1+json");
    let mut layer = descriptor(&signed, payload.as_bytes());
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": "MEUCIQ==" });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor(&MediaType::OCI_CONFIG, config),
        "layers": [layer],
    });
    put(&served, "app", &tag, &manifest).await;

    // The same as a referrer, pushed by its digest.
    let mut referrer = manifest;
    let kind = "application/vnd.dev.cosign.artifact.sig.v1+json";
    referrer["config"]["mediaType"] = kind.into();
    referrer["subject"] = descriptor(&OCI, &image);
    let digest = Digest::sha256(referrer.to_string().as_bytes()).to_string();
    put(&served, "app", &digest, &referrer).await;
    for query in ["", "?artifactType=application/vnd.dev.cosign.artifact.sig.v1%2Bjson"] {
        let listed = served.get(&format!("/v2/app/referrers/{subject}{query}")).await.json();
        let listed = listed["manifests"].as_array().unwrap().clone();
        assert_eq!((listed.len(), &listed[0]["digest"]), (1, &json!(digest)), "{query}");
        assert_eq!(listed[0]["artifactType"], kind);
    }
}

/// A client that does not know the referrers API keeps an index under a tag, and changes it.
#[tokio::test]
async fn the_fallback_tag_of_referrers() {
    let served = Served::start().await;
    let image = served.push_image("app", "1", "layer").await;
    let subject = Digest::sha256(&image);
    let tag = format!("sha256-{}", subject.hex());
    served.get(&format!("/v2/app/manifests/{tag}")).await.refuses(404, "MANIFEST_UNKNOWN");
    push_as_oras(&served, "app", b"{}").await;
    let mut listed = Vec::new();
    for n in 0..2 {
        push_as_oras(&served, "app", format!("sbom {n}").as_bytes()).await;
        let layer = descriptor(&MediaType::new("text/spdx"), format!("sbom {n}").as_bytes());
        let artifact = json!({
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": "application/spdx+json",
            "config": { "mediaType": MediaType::OCI_EMPTY, "digest": Digest::sha256(b"{}"),
                        "size": 2, "data": "e30=" },
            "layers": [layer],
            "subject": descriptor(&OCI, &image),
            "annotations": { "org.opencontainers.image.created": "2026-01-01T00:00:00Z" },
        });
        let digest = Digest::sha256(artifact.to_string().as_bytes()).to_string();
        let bytes = put(&served, "app", &digest, &artifact).await;
        let mut entry = descriptor(&OCI, &bytes);
        entry["artifactType"] = "application/spdx+json".into();
        listed.push(entry);
        let index =
            json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": listed });
        let before = served.get(&format!("/v2/app/manifests/{tag}")).await;
        put(&served, "app", &tag, &index).await;
        // It deletes the index that it has replaced.
        if let Some(old) = before.header("docker-content-digest") {
            assert_eq!(served.delete(&format!("/v2/app/manifests/{old}")).await.status, 202);
        }
    }
    let index = served.get(&format!("/v2/app/manifests/{tag}")).await.json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    // Who does know the API finds both, and neither the tag nor its index.
    let found = served.get(&format!("/v2/app/referrers/{subject}")).await.json();
    assert_eq!(found["manifests"].as_array().unwrap().len(), 2);
}
