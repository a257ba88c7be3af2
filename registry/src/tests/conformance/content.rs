//! What the suite does with each kind of data: push, list, look, pull, ask for referrers, delete.

use std::collections::BTreeSet;

use boatyard_oci::Digest;
use http::Method;
use serde_json::Value;

use super::super::support::Answer;
use super::data::{Data, Pushed};
use super::{REPOSITORY, Suite, blobs, referrers};

const ACCEPT: (&str, &str) = (
    "accept",
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json",
);

/// Runs the part of the suite that is about one kind of data.
pub(super) async fn run(suite: &mut Suite, data: &Data) {
    suite.begin(data.name);
    push(suite, data).await;
    list_tags(suite, data).await;
    for method in [Method::HEAD, Method::GET] {
        read(suite, data, &method).await;
    }
    if !data.referrers.is_empty() {
        list_referrers(suite, data).await;
    }
    delete(suite, data).await;
}

fn path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

async fn push(suite: &mut Suite, data: &Data) {
    for blob in &data.blobs {
        blobs::post_and_put(suite, REPOSITORY, blob).await;
    }
    for manifest in &data.manifests {
        push_manifest(suite, data, manifest).await;
    }
    if data.tags_by_parameter {
        return;
    }
    for (tag, digest) in &data.tags {
        let manifest = data.manifests.iter().find(|manifest| manifest.digest == *digest).unwrap();
        let answer = put(suite, &path(tag), manifest).await;
        created(suite, manifest, &answer).await;
    }
}

async fn push_manifest(suite: &mut Suite, data: &Data, manifest: &Pushed) {
    let mut target = path(&manifest.digest);
    let mut tags = BTreeSet::new();
    if data.tags_by_parameter {
        let its = data.tags.iter().filter(|(_, digest)| *digest == manifest.digest);
        tags.extend(its.map(|(tag, _)| tag.clone()));
        let parameters: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        target = format!("{target}?{}", parameters.join("&"));
    }
    let answer = put(suite, &target, manifest).await;
    if data.is_bad {
        answer.refuses(400, "DIGEST_INVALID");
        suite.pass();
        return;
    }
    let accepted = answer.headers.get_all("oci-tag").iter();
    let accepted: BTreeSet<String> = accepted
        .flat_map(|tags| tags.to_str().unwrap().split(','))
        .map(|tag| tag.trim().to_owned())
        .collect();
    assert_eq!(accepted, tags);
    created(suite, manifest, &answer).await;
}

async fn put(suite: &Suite, path: &str, manifest: &Pushed) -> Answer {
    let headers = [("content-type", manifest.media_type.as_str())];
    suite.served.send(Method::PUT, path, &headers, manifest.bytes.clone()).await
}

/// Checks the answer to a push, and that the manifest can be pulled where it says.
async fn created(suite: &mut Suite, manifest: &Pushed, answer: &Answer) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), Some(&*manifest.digest.to_string()));
    let subject = manifest.subject.as_ref().map(Digest::to_string);
    assert_eq!(answer.header("oci-subject"), subject.as_deref());
    let pulled = suite.served.send(Method::GET, &answer.location(), &[ACCEPT], "").await;
    is_whole(&pulled, manifest);
    assert_eq!(pulled.body, manifest.bytes);
    suite.pass();
}

fn is_whole(answer: &Answer, manifest: &Pushed) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(manifest.media_type.as_str()));
    assert_eq!(answer.header("content-length"), Some(&*manifest.bytes.len().to_string()));
    assert_eq!(answer.header("docker-content-digest"), Some(&*manifest.digest.to_string()));
}

async fn list_tags(suite: &mut Suite, data: &Data) {
    let listed = tags(suite, "").await;
    for (tag, _) in &data.tags {
        assert!(listed.contains(tag), "{tag} of {listed:?}");
    }
    if listed.len() >= 2 {
        assert!(listed.is_sorted());
        let (before, behind) = listed.split_at(listed.len() / 2);
        // Without `n`.
        assert_eq!(tags(suite, &format!("?last={}", before[before.len() - 1])).await, behind);
    }
    suite.pass();
}

async fn tags(suite: &Suite, query: &str) -> Vec<String> {
    let answer = suite.served.get(&format!("/v2/{REPOSITORY}/tags/list{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["name"], REPOSITORY);
    serde_json::from_value(answer.json()["tags"].clone()).unwrap()
}

/// Reads everything, by tag and by digest.
async fn read(suite: &mut Suite, data: &Data, method: &Method) {
    let by_tag = data.tags.iter().map(|(tag, digest)| (tag.clone(), digest));
    let by_digest = data.manifests.iter().map(|one| (one.digest.to_string(), &one.digest));
    for (reference, digest) in by_tag.chain(by_digest).filter(|_| !data.is_bad) {
        let manifest = data.manifests.iter().find(|manifest| manifest.digest == *digest).unwrap();
        let answer = suite.served.send(method.clone(), &path(reference), &[ACCEPT], "").await;
        is_whole(&answer, manifest);
        let expected = if *method == Method::HEAD { &[][..] } else { &manifest.bytes };
        assert_eq!(answer.body, expected);
        suite.pass();
    }
    for blob in &data.blobs {
        match *method {
            Method::HEAD => blobs::head(suite, blob).await,
            _ => blobs::pull(suite, blob).await,
        }
    }
}

/// Lists the referrers of each subject, all of them and those of each type.
async fn list_referrers(suite: &mut Suite, data: &Data) {
    let subjects: BTreeSet<&Digest> = data.referrers.iter().map(|(subject, _)| subject).collect();
    for subject in subjects {
        let goals: Vec<&Value> =
            data.referrers.iter().filter(|(of, _)| of == subject).map(|(_, goal)| goal).collect();
        let (listed, answer) = referrers(suite, subject, "").await;
        assert_eq!(answer.header("oci-filters-applied"), None);
        for goal in &goals {
            assert!(listed.contains(goal), "{goal} of {listed:?}");
        }
        for wanted in goals.iter().map(|goal| &goal["artifactType"]) {
            let escaped = wanted.as_str().unwrap_or_default().replace('+', "%2B");
            let query = format!("?artifactType={escaped}");
            let (listed, answer) = referrers(suite, subject, &query).await;
            assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
            assert!(listed.iter().all(|listed| listed["artifactType"] == *wanted), "{listed:?}");
            for goal in goals.iter().filter(|goal| goal["artifactType"] == *wanted) {
                assert!(listed.contains(goal), "{goal} of {listed:?}");
            }
        }
    }
    suite.pass();
}

/// Deletes everything, the last manifest first, and sees each time that it is gone at once.
pub(super) async fn delete(suite: &mut Suite, data: &Data) {
    let tags = data.tags.iter().map(|(tag, _)| tag.clone());
    let digests = data.manifests.iter().rev().map(|manifest| manifest.digest.to_string());
    for reference in tags.chain(digests) {
        let answer = suite.served.delete(&path(&reference)).await;
        assert!(answer.status == 202 || answer.status == 404, "{answer:?}");
        suite.pass();
        let looked = suite.served.send(Method::HEAD, &path(&reference), &[ACCEPT], "").await;
        assert_eq!(looked.status, 404);
        suite.pass();
    }
    for blob in &data.blobs {
        blobs::delete(suite, REPOSITORY, blob).await;
    }
}
