//! Listing the manifests that say something about another one.

use axum::response::Response;
use boatyard_oci::{Descriptor, Digest, MediaType, RepositoryName};
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{self, parse_digest, set};
use super::error::ApiError;
use super::page::link;
use super::{Call, blocking};
use crate::mirror::Meant;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// An index, whose entries are JSON already: they were, to be counted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    schema_version: u64,
    media_type: MediaType,
    manifests: Vec<Box<RawValue>>,
}

/// `GET /v2/<name>/referrers/<digest>`
///
/// > "If the query results in no matches, an empty manifest list MUST be returned.... the response
/// > code MUST be `200 OK`" (distribution-spec, "Listing Referrers"): never 404, not even for a
/// > repository that does not exist.
pub(super) async fn list(
    call: Call,
    name: RepositoryName,
    subject: &str,
) -> Result<Response, ApiError> {
    let subject = parse_digest(subject)?;
    blocking(move || {
        let descriptors = call.registry.repository(&name).referrers(&subject)?;
        respond(&call, descriptors)
    })
    .await
}

/// The same of a mirror's upstream.
pub(super) async fn list_mirrored(
    call: Call,
    meant: Meant,
    subject: &str,
) -> Result<Response, ApiError> {
    let subject = parse_digest(subject)?;
    let mut descriptors = meant.mirror.referrers(&meant.repository, &subject).await?;
    // The order that a next page goes on in.
    descriptors.sort_by(|one, other| one.digest.cmp(&other.digest));
    respond(&call, descriptors)
}

/// Answers with those of the descriptors that were asked for, a page of them.
fn respond(call: &Call, descriptors: Vec<Descriptor>) -> Result<Response, ApiError> {
    // A media type has no space: one that is here was a `+` that the client did not escape.
    let filter =
        call.query.first("artifactType").map(|wanted| MediaType::new(&wanted.replace(' ', "+")));
    let after = call.query.first("last").and_then(|last| last.parse::<Digest>().ok());
    let chosen = descriptors.into_iter().filter(|descriptor| {
        after.as_ref().is_none_or(|after| descriptor.digest > *after)
            && (filter.is_none() || descriptor.artifact_type == filter)
    });
    let (manifests, more_after) = fill(chosen, call.registry.limits.referrers_bytes_max)?;
    let list = List { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests };
    let text = serde_json::to_string(&list).map_err(ApiError::internal)?;
    let mut response = answer::json(text);
    let index = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    set(&mut response, header::CONTENT_TYPE, index);
    if filter.is_some() {
        set(&mut response, FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = more_after {
        let kept = ["artifactType", "ns"].map(|name| (name, call.query.first(name)));
        if let Some(next) = link(&next_page(&call.path, &last, &kept)) {
            set(&mut response, header::LINK, next);
        }
    }
    Ok(response)
}

/// Takes descriptors until their bytes fill a page; returns the last one taken if more are left.
fn fill(
    descriptors: impl Iterator<Item = Descriptor>,
    bytes_max: usize,
) -> Result<(Vec<Box<RawValue>>, Option<Digest>), ApiError> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for descriptor in descriptors {
        let text = serde_json::value::to_raw_value(&descriptor).map_err(ApiError::internal)?;
        bytes += text.get().len() + 1;
        // One that is larger than a page is a page of its own.
        if bytes > bytes_max && !taken.is_empty() {
            return Ok((taken, last));
        }
        taken.push(text);
        last = Some(descriptor.digest);
    }
    Ok((taken, None))
}

/// Returns where the next page is: behind `last`, with the parameters that stay.
fn next_page(path: &str, last: &Digest, kept: &[(&str, Option<&str>)]) -> String {
    let mut target = format!("{path}?last={last}");
    for (name, value) in kept {
        let Some(value) = value else { continue };
        target.push_str(&format!("&{name}="));
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => {
                    target.push(char::from(byte));
                }
                _ => target.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_says_where_to_go_on() {
        let descriptors: Vec<Descriptor> =
            (0..5u8).map(|n| Descriptor::of(MediaType::OCI_MANIFEST, &[n])).collect();
        let one = serde_json::to_string(&descriptors[0]).unwrap().len() + 1;
        let (taken, last) = fill(descriptors.iter().cloned(), 2 * one).unwrap();
        assert_eq!((taken.len(), last), (2, Some(descriptors[1].digest.clone())));
        let (taken, last) = fill(descriptors.iter().cloned(), 1).unwrap();
        assert_eq!((taken.len(), last), (1, Some(descriptors[0].digest.clone())));
        let (taken, last) = fill(descriptors.into_iter(), 1 << 20).unwrap();
        assert_eq!((taken.len(), last), (5, None));
    }

    #[test]
    fn a_filter_is_escaped_in_the_link() {
        let digest = Digest::sha256(b"x");
        let kept = [("artifactType", Some("a/b+c>")), ("ns", None)];
        let target = next_page("/v2/a/referrers/x", &digest, &kept);
        assert!(target.ends_with("&artifactType=a/b%2Bc%3E"), "{target}");
    }
}
