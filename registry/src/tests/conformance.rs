//! The rows of the specification's own conformance suite, since no build of ours can run that one:
//! it is a program in Go.
//!
//! This mirrors `conformance/` of opencontainers/distribution-spec at 967efdc (2026-07-16), run
//! with `OCI_VERSION=dev` and everything else as it is by default: every API and every kind of
//! data but manifests that lack their blobs. The suite counts 986 rows of a registry that passes
//! all of them, and so does this: [`EXPECTED`] is its count for each part, so that none is lost.
//! What the suite lets pass as a row that was skipped (an answer that says "unsupported") is a
//! failure here.

mod blobs;
mod content;
mod data;
mod manifests;

use boatyard_oci::{Algorithm, Digest};

use super::support::{Answer, Served};

const REPOSITORY: &str = "conformance/repo1";
const OTHER: &str = "conformance/repo2";

/// The parts of the suite, in its order, and how many rows each has.
const EXPECTED: [(&str, usize); 68] = [
    ("ping", 1),
    ("empty", 2),
    ("sha256 blobs/get-missing", 1),
    ("sha256 blobs/post only", 5),
    ("sha256 blobs/post+put", 5),
    ("sha256 blobs/chunked single", 5),
    ("sha256 blobs/stream", 5),
    ("sha256 blobs/mount", 8),
    ("sha256 blobs/mount anonymous", 8),
    ("sha256 blobs/mount missing", 5),
    ("sha256 blobs/post cancel", 3),
    ("sha256 blobs/chunked multi", 5),
    ("sha256 blobs/chunked multi and put chunk", 5),
    ("sha256 blobs/chunked out-of-order", 5),
    ("sha256 blobs/chunked out-of-order and put chunk", 5),
    ("sha256 blobs/range requests", 9),
    ("sha256 blobs/empty", 5),
    ("sha256 blobs/emptyJSON", 5),
    ("sha256 blobs/bad digest post only", 1),
    ("sha256 blobs/bad digest post+put", 1),
    ("sha256 blobs/bad digest chunked", 1),
    ("sha256 blobs/bad digest chunked and put chunk", 1),
    ("sha256 blobs/bad digest stream", 1),
    ("sha512 blobs/get-missing", 1),
    ("sha512 blobs/post only", 5),
    ("sha512 blobs/post+put", 5),
    ("sha512 blobs/chunked single", 5),
    ("sha512 blobs/stream", 5),
    ("sha512 blobs/mount", 8),
    ("sha512 blobs/mount anonymous", 8),
    ("sha512 blobs/mount missing", 5),
    ("sha512 blobs/post cancel", 3),
    ("sha512 blobs/chunked multi", 5),
    ("sha512 blobs/chunked multi and put chunk", 5),
    ("sha512 blobs/chunked out-of-order", 5),
    ("sha512 blobs/chunked out-of-order and put chunk", 5),
    ("sha512 blobs/range requests", 9),
    ("sha512 blobs/empty", 5),
    ("sha512 blobs/emptyJSON", 5),
    ("sha512 blobs/bad digest post only", 1),
    ("sha512 blobs/bad digest post+put", 1),
    ("sha512 blobs/bad digest chunked", 1),
    ("sha512 blobs/bad digest chunked and put chunk", 1),
    ("sha512 blobs/bad digest stream", 1),
    ("image", 26),
    ("image-uncompressed", 26),
    ("large-manifest", 26),
    ("index", 51),
    ("nested-index", 91),
    ("empty-index", 11),
    ("artifact", 21),
    ("artifact-index", 36),
    ("artifact-without-layers", 16),
    ("artifacts-with-subject", 77),
    ("index-with-subject", 87),
    ("missing-subject", 22),
    ("data-field", 26),
    ("non-distributable-layers", 21),
    ("custom-fields", 51),
    ("no-layers", 16),
    ("sha512", 46),
    ("tag-param-sha256", 62),
    ("tag-param-sha512", 62),
    ("bad-digest-image", 19),
    ("missing-manifest by-digest", 1),
    ("missing-manifest by-tag", 1),
    ("invalid-digest-format", 10),
    ("total", 986),
];

/// A registry under the suite, and the rows that it has passed.
struct Suite {
    served: Served,
    parts: Vec<(String, usize)>,
}

impl Suite {
    /// Begins a part.
    fn begin(&mut self, part: impl Into<String>) {
        self.parts.push((part.into(), 0));
    }

    /// Counts a row that held; one that does not hold has panicked before.
    fn pass(&mut self) {
        self.parts.last_mut().expect("a part was begun").1 += 1;
    }
}

#[tokio::test]
async fn every_row_of_the_suite() {
    let mut suite = Suite { served: Served::start().await, parts: Vec::new() };
    ping(&mut suite).await;
    empty(&mut suite).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        blobs::run(&mut suite, algorithm).await;
    }
    for data in data::all() {
        content::run(&mut suite, &data).await;
    }
    manifests::run(&mut suite).await;
    let total = suite.parts.iter().map(|(_, rows)| rows).sum();
    suite.parts.push(("total".to_owned(), total));
    let expected = EXPECTED.map(|(part, rows)| (part.to_owned(), rows));
    assert_eq!(suite.parts, expected);
}

async fn ping(suite: &mut Suite) {
    suite.begin("ping");
    assert_eq!(suite.served.get("/v2/").await.status, 200);
    suite.pass();
}

/// A repository to which nothing was pushed has no list of tags, but has an empty one of referrers.
async fn empty(suite: &mut Suite) {
    suite.begin("empty");
    let tags = suite.served.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    assert!(tags.status == 200 || tags.status == 404, "{tags:?}");
    suite.pass();
    let subject = Digest::sha256(b"a subject that nobody has");
    assert_eq!(referrers(suite, &subject, "").await.0, Vec::<serde_json::Value>::new());
    suite.pass();
}

/// Lists the referrers of a subject, and checks the form of the list.
async fn referrers(
    suite: &Suite,
    subject: &Digest,
    query: &str,
) -> (Vec<serde_json::Value>, Answer) {
    let path = format!("/v2/{REPOSITORY}/referrers/{subject}{query}");
    let answer = suite.served.get(&path).await;
    let index = "application/vnd.oci.image.index.v1+json";
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(index));
    let list = answer.json();
    assert_eq!((&list["schemaVersion"], &list["mediaType"]), (&2.into(), &index.into()));
    (list["manifests"].as_array().expect("a list").clone(), answer)
}
