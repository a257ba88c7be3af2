//! The suite's errors of manifests: what is not there, and what cannot be.

use boatyard_oci::{Digest, MediaType};
use http::Method;

use super::data::{Data, bytes};
use super::{REPOSITORY, Suite, blobs, content};

/// Runs the part of the suite that is about errors.
pub(super) async fn run(suite: &mut Suite) {
    let path = |reference: &str| format!("/v2/{REPOSITORY}/manifests/{reference}");
    let missing = Digest::sha256(&bytes(1024)).to_string();
    for (name, reference) in [("by-digest", &*missing), ("by-tag", "missing-tag")] {
        suite.begin(format!("missing-manifest {name}"));
        suite.served.get(&path(reference)).await.refuses(404, "MANIFEST_UNKNOWN");
        suite.pass();
    }
    suite.begin("invalid-digest-format");
    let data = Data::small_image("invalid-digest-format");
    for blob in &data.blobs {
        blobs::post_and_put(suite, REPOSITORY, blob).await;
    }
    let invalid = path("sha256:baddigeststring");
    let headers = [("content-type", MediaType::OCI_MANIFEST.as_str().to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let manifest = data.manifests[0].bytes.clone();
    let answer = suite.served.send(Method::PUT, &invalid, &headers, manifest).await;
    answer.refuses(400, "DIGEST_INVALID");
    suite.pass();
    suite.served.get(&invalid).await.refuses(400, "DIGEST_INVALID");
    suite.pass();
    content::delete(suite, &data).await;
}
