//! Tags, catalog and referrers, in pages.

use std::sync::Arc;

use crate::{Limits, OpenAccess};
use boatyard_oci::{Digest, MediaType};
use http::Method;
use serde_json::{Value, json};

use super::support::{Answer, Served, image};

/// Returns the target of the link to the next page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    Some(target.expect("a link to the next page").to_owned())
}

/// Follows the links from `path`, and returns what each page has under `key`.
async fn pages(served: &Served, path: &str, key: &str) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(this) = path {
        let answer = served.get(&this).await;
        assert_eq!(answer.status, 200);
        path = next(&answer);
        pages.push(answer.json()[key].clone());
    }
    pages
}

#[tokio::test]
async fn tags_in_ascii_order_and_in_pages() {
    let served = Served::start().await;
    let manifest = served.image("a/b", "layer").await;
    let tags: String = ["c", "B", "a", "_", "1"].map(|tag| format!("&tag={tag}")).concat();
    let reference = format!("{}?{tags}", Digest::sha256(&manifest));
    served.put_manifest("a/b", &reference, &MediaType::OCI_MANIFEST, &manifest).await;
    let all = served.get("/v2/a/b/tags/list").await;
    assert_eq!(all.json(), json!({ "name": "a/b", "tags": ["1", "B", "_", "a", "c"] }));
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(
        pages(&served, "/v2/a/b/tags/list?n=2", "tags").await,
        [json!(["1", "B"]), json!(["_", "a"]), json!(["c"])]
    );
    // `last` alone, and one that is not there any more.
    assert_eq!(pages(&served, "/v2/a/b/tags/list?last=B", "tags").await, [json!(["_", "a", "c"])]);
    assert_eq!(pages(&served, "/v2/a/b/tags/list?n=1&last=b", "tags").await, [json!(["c"])]);
    let none = served.get("/v2/a/b/tags/list?n=0").await;
    assert_eq!((none.json()["tags"].clone(), next(&none)), (json!([]), None));
    for bad in ["n=-1", "n=x", "n="] {
        let answer = served.get(&format!("/v2/a/b/tags/list?{bad}")).await;
        answer.refuses(400, "PAGINATION_NUMBER_INVALID");
    }
    assert_eq!(served.get("/v2/a/b/tags/list?n=9223372036854775808").await.status, 200);
    served.get("/v2/none/tags/list").await.refuses(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn the_catalog_is_clamped() {
    let limits = Limits {
        catalog_page_max: 2,
        catalog_page_default: 2,
        tags_page_max: 1,
        ..Limits::default()
    };
    let served = Served::start_with(Arc::new(OpenAccess), limits).await;
    for name in ["b", "a/x", "a-b", "a"] {
        served.push_image(name, "1", "layer").await;
    }
    for path in ["/v2/_catalog", "/v2/_catalog?n=18446744073709551616"] {
        assert_eq!(
            pages(&served, path, "repositories").await,
            [json!(["a", "a-b"]), json!(["a/x", "b"])]
        );
    }
    served.push_image("a", "2", "layer").await;
    assert_eq!(pages(&served, "/v2/a/tags/list", "tags").await, [json!(["1"]), json!(["2"])]);
    served.get("/v2/_catalog?n=-1").await.refuses(400, "PAGINATION_NUMBER_INVALID");
}

#[tokio::test]
async fn referrers_of_a_manifest_that_need_not_be_there() {
    let served = Served::start().await;
    let subject = Digest::sha256(b"not pushed");
    let path = format!("/v2/a/referrers/{subject}");
    let empty = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [] });
    // Not even the repository is there.
    let answer = served.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, empty));
    assert_eq!(answer.header("content-type"), Some(MediaType::OCI_INDEX.as_str()));

    served.image("a", "layer").await;
    let about = json!({ "mediaType": MediaType::OCI_MANIFEST, "digest": subject, "size": 7 });
    let signature = image(
        "layer",
        json!({
            "subject": about, "artifactType": "application/x.sig+json", "annotations": { "k": "v" },
        }),
    );
    let plain = image("layer", json!({ "subject": about }));
    let index = json!({ "schemaVersion": 2, "manifests": [], "subject": about }).to_string();
    for (kind, manifest) in [
        (MediaType::OCI_MANIFEST, &signature[..]),
        (MediaType::OCI_MANIFEST, &plain),
        (MediaType::OCI_INDEX, index.as_bytes()),
    ] {
        let reference = Digest::sha256(manifest).to_string();
        let answer = served.put_manifest("a", &reference, &kind, manifest).await;
        assert_eq!(answer.header("oci-subject"), Some(subject.to_string().as_str()));
    }
    let all = served.get(&path).await.json();
    let of = |manifest: &[u8]| {
        let digest = Digest::sha256(manifest).to_string();
        let listed = all["manifests"].as_array().unwrap();
        listed.iter().find(|one| one["digest"] == digest).unwrap().clone()
    };
    assert_eq!(of(&signature)["artifactType"], "application/x.sig+json");
    assert_eq!(of(&signature)["annotations"], json!({ "k": "v" }));
    assert_eq!(of(&signature)["size"], signature.len());
    assert_eq!(of(&plain)["artifactType"], MediaType::OCI_CONFIG.as_str());
    assert_eq!(of(index.as_bytes()).get("artifactType"), None);

    let filtered = served.get(&format!("{path}?artifactType=application/x.sig%2Bjson")).await;
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(filtered.json()["manifests"], json!([of(&signature)]));
    assert_eq!(served.get(&path).await.header("oci-filters-applied"), None);

    served.delete(&format!("/v2/a/manifests/{}", Digest::sha256(&signature))).await;
    assert_eq!(served.get(&path).await.json()["manifests"].as_array().unwrap().len(), 2);
    served.get("/v2/a/referrers/nonsense").await.refuses(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn long_lists_of_referrers_are_split() {
    let limits = Limits { referrers_bytes_max: 500, ..Limits::default() };
    let served = Served::start_with(Arc::new(OpenAccess), limits).await;
    served.image("a", "layer").await;
    let subject = Digest::sha256(b"subject");
    let about = json!({ "mediaType": MediaType::OCI_MANIFEST, "digest": subject, "size": 7 });
    for n in 0..5 {
        let annotations = json!({ "n": n.to_string() });
        let manifest = image(
            "layer",
            json!({
                "subject": about, "artifactType": "a/b+c", "annotations": annotations,
            }),
        );
        let reference = Digest::sha256(&manifest).to_string();
        served.put_manifest("a", &reference, &MediaType::OCI_MANIFEST, &manifest).await;
    }
    let path = format!("/v2/a/referrers/{subject}?artifactType=a/b%2Bc");
    let pages = pages(&served, &path, "manifests").await;
    assert!(pages.len() > 1, "{pages:?}");
    let listed: usize = pages.iter().map(|page| page.as_array().unwrap().len()).sum();
    assert_eq!(listed, 5);
}

#[tokio::test]
async fn what_an_endpoint_does_not_do() {
    let served = Served::start().await;
    assert_eq!(served.get("/v2/").await.status, 200);
    assert_eq!(served.head("/v2").await.status, 200);
    for (method, path, allowed) in [
        (Method::POST, "/v2/", "GET, HEAD"),
        (Method::PUT, "/v2/_catalog", "GET, HEAD"),
        (Method::DELETE, "/v2/a/tags/list", "GET, HEAD"),
        (Method::POST, "/v2/a/manifests/1", "GET, HEAD, PUT, DELETE"),
        (Method::GET, "/v2/a/blobs/uploads/", "POST"),
        (Method::POST, "/v2/a/blobs/uploads/x", "GET, PATCH, PUT, DELETE"),
    ] {
        let answer = served.send(method, path, &[], "").await;
        answer.refuses(405, "UNSUPPORTED");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
}
