//! Mounting blobs, and what a caller must not learn from it.

use std::sync::Arc;

use crate::{Access, Action, Caller, Limits, Verdict};
use boatyard_oci::{Digest, RepositoryName};

use super::support::Served;

#[tokio::test]
async fn from_a_repository_or_from_any() {
    let served = Served::start().await;
    let digest = served.push_blob("source", b"layer").await;
    for (target, query) in [("t1", "&from=source"), ("t2", "")] {
        let answer =
            served.post(&format!("/v2/{target}/blobs/uploads/?mount={digest}{query}")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.location(), format!("/v2/{target}/blobs/{digest}"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(served.get(&answer.location()).await.body, "layer");
    }
    // Deleting it in one leaves it in the others.
    served.delete(&format!("/v2/t1/blobs/{digest}")).await;
    assert_eq!(served.head(&format!("/v2/source/blobs/{digest}")).await.status, 200);
}

#[tokio::test]
async fn a_blob_is_found_again_after_a_restart() {
    let served = Served::start().await;
    served.push_image("source", "1", "layer").await;
    let served = served.restart().await;
    let digest = Digest::sha256(b"layer");
    let answer = served.post(&format!("/v2/target/blobs/uploads/?mount={digest}")).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn what_cannot_be_mounted_is_pushed() {
    let served = Served::start().await;
    let digest = served.push_blob("source", b"layer").await;
    let other = Digest::sha256(b"other");
    for query in [
        format!("mount={other}&from=source"),
        format!("mount={other}"),
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=..%2F.."),
        format!("mount={digest}&from=Bad"),
        "mount=nonsense&from=source".to_owned(),
        "mount=".to_owned(),
    ] {
        let answer = served.post(&format!("/v2/target/blobs/uploads/?{query}")).await;
        assert_eq!(answer.status, 202, "{query}");
        let path = format!("{}&digest={other}", answer.location());
        assert_eq!(served.put(&path, "other").await.status, 201, "{query}");
        served.delete(&format!("/v2/target/blobs/{other}")).await;
    }
}

/// Nobody reads what is below `secret/`, and nobody deletes.
#[derive(Debug)]
struct Rules;

impl Access for Rules {
    fn decide(&self, _: &Caller, action: Action, name: Option<&RepositoryName>) -> Verdict {
        let secret = name.is_some_and(|name| name.as_str().starts_with("secret/"));
        match action {
            Action::Pull | Action::List if secret => Verdict::Denied,
            Action::Delete => Verdict::Unauthenticated { challenge: "Basic realm=\"x\"".into() },
            _ => Verdict::Allowed,
        }
    }
}

#[tokio::test]
async fn a_blob_in_a_repository_that_one_may_not_read_looks_absent() {
    let served = Served::start_with(Arc::new(Rules), Limits::default()).await;
    let digest = served.push_blob("secret/a", b"hidden").await;
    let absent = Digest::sha256(b"absent");
    for query in ["", "&from=secret/a"] {
        for digest in [&digest, &absent] {
            let path = format!("/v2/mine/blobs/uploads/?mount={digest}{query}");
            assert_eq!(served.post(&path).await.status, 202, "{path}");
        }
    }
    for name in ["secret/a", "secret/none", "none"] {
        let answer = served.get(&format!("/v2/{name}/blobs/{digest}")).await;
        answer.refuses(404, "NAME_UNKNOWN");
    }
    let delete = served.delete(&format!("/v2/mine/blobs/{digest}")).await;
    delete.refuses(401, "UNAUTHORIZED");
    assert_eq!(delete.header("www-authenticate"), Some("Basic realm=\"x\""));
    // The catalog shows only what one may read.
    served.push_image("open", "1", "x").await;
    served.push_image("secret/b", "1", "x").await;
    assert_eq!(
        served.get("/v2/_catalog").await.json()["repositories"],
        serde_json::json!(["open"])
    );
}
