//! Listing the manifests that say something about another one.

use std::ops::ControlFlow;

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
        let mut page = Filling::new(&call);
        let mut failed = None;
        let repository = call.registry.repository(&name);
        repository.each_referrer(&subject, page.after.clone().as_ref(), |descriptor| {
            page.take(&descriptor).unwrap_or_else(|error| {
                failed = Some(error);
                ControlFlow::Break(())
            })
        })?;
        match failed {
            Some(error) => Err(error),
            None => respond(&call, page),
        }
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
    let mut page = Filling::new(&call);
    for descriptor in &descriptors {
        if page.take(descriptor)?.is_break() {
            break;
        }
    }
    respond(&call, page)
}

/// A page of a list, while it is filled.
struct Filling {
    /// The type that was asked for.
    filter: Option<MediaType>,
    /// The last one of the page before.
    after: Option<Digest>,
    bytes_max: usize,
    bytes: usize,
    taken: Vec<Box<RawValue>>,
    last: Option<Digest>,
    /// There is one that the page has no room for.
    is_full: bool,
}

impl Filling {
    fn new(call: &Call) -> Filling {
        // A media type has no space: one that is here was a `+` that the client did not escape.
        let wanted = call.query.first("artifactType").map(|wanted| wanted.replace(' ', "+"));
        Filling {
            filter: wanted.map(|wanted| MediaType::new(&wanted)),
            after: call.query.first("last").and_then(|last| last.parse().ok()),
            bytes_max: call.registry.limits.referrers_bytes_max,
            bytes: 0,
            taken: Vec::new(),
            last: None,
            is_full: false,
        }
    }

    /// Takes a descriptor if it belongs there and there is room for it.
    fn take(&mut self, descriptor: &Descriptor) -> Result<ControlFlow<()>, ApiError> {
        let is_behind = self.after.as_ref().is_none_or(|after| descriptor.digest > *after);
        let is_wanted = self.filter.is_none() || descriptor.artifact_type == self.filter;
        if !is_behind || !is_wanted {
            return Ok(ControlFlow::Continue(()));
        }
        let text = serde_json::value::to_raw_value(descriptor).map_err(ApiError::internal)?;
        self.bytes += text.get().len() + 1;
        // One that is larger than a page is a page of its own.
        if self.bytes > self.bytes_max && !self.taken.is_empty() {
            self.is_full = true;
            return Ok(ControlFlow::Break(()));
        }
        self.taken.push(text);
        self.last = Some(descriptor.digest.clone());
        Ok(ControlFlow::Continue(()))
    }
}

fn respond(call: &Call, page: Filling) -> Result<Response, ApiError> {
    let Filling { taken: manifests, filter, last, is_full, .. } = page;
    let list = List { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests };
    let text = serde_json::to_string(&list).map_err(ApiError::internal)?;
    let mut response = answer::json(text);
    let index = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    set(&mut response, header::CONTENT_TYPE, index);
    if filter.is_some() {
        set(&mut response, FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = last.filter(|_| is_full) {
        let kept = ["artifactType", "ns"].map(|name| (name, call.query.first(name)));
        if let Some(next) = link(&next_page(&call.path, &last, &kept)) {
            set(&mut response, header::LINK, next);
        }
    }
    Ok(response)
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
        let fill = |bytes_max| {
            let mut page = Filling {
                filter: None,
                after: None,
                bytes_max,
                bytes: 0,
                taken: Vec::new(),
                last: None,
                is_full: false,
            };
            let _ = descriptors.iter().try_for_each(|one| page.take(one).unwrap());
            (page.taken.len(), page.last, page.is_full)
        };
        assert_eq!(fill(2 * one), (2, Some(descriptors[1].digest.clone()), true));
        assert_eq!(fill(1), (1, Some(descriptors[0].digest.clone()), true));
        assert_eq!(fill(1 << 20), (5, Some(descriptors[4].digest.clone()), false));
    }

    #[test]
    fn a_filter_is_escaped_in_the_link() {
        let digest = Digest::sha256(b"x");
        let kept = [("artifactType", Some("a/b+c>")), ("ns", None)];
        let target = next_page("/v2/a/referrers/x", &digest, &kept);
        assert!(target.ends_with("&artifactType=a/b%2Bc%3E"), "{target}");
    }
}
