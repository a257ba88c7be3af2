//! Indexes that are single files: how long they hold, and how one of them is had.

use std::sync::Arc;

use boatyard_content::{Root, StoreError};
use boatyard_oci::Digest;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, EXPIRES};
use http::{HeaderMap, Method};

use crate::class::{Class, Mutable};
use crate::ecosystem::{Ask, Fetcher, Obtain, ObtainError, Obtained};
use crate::entry::Entry;
use crate::request::Request;
use crate::target::Target;

/// Returns the class of an index: as fresh as its upstream says in so many words, and otherwise
/// asked for on each use. That it has not changed for long says nothing of the next minute.
pub(super) async fn class(request: &Request, fetcher: &dyn Fetcher) -> Class {
    let wanted = Obtain { request: request.clone(), class: Class::Http, ask: Ask::Never };
    let kept = fetcher.obtain(&wanted).await.ok();
    of(kept.as_ref().map(|kept| &*kept.entry))
}

/// Returns the class of an index of which this is kept.
pub(super) fn of(kept: Option<&Entry>) -> Class {
    let says = |entry: &Entry| {
        let headers = &entry.policy.headers;
        let texts = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let mut words = texts.flat_map(|text| text.split(','));
        headers.contains_key(EXPIRES)
            || words.any(|word| {
                let word = word.trim().to_ascii_lowercase();
                word.starts_with("max-age=") || word.starts_with("s-maxage=")
            })
    };
    Class::Mutable(Mutable { always_ask: !kept.is_some_and(says), ..Mutable::default() })
}

/// Returns the request for another document of the same upstream, for everybody: nothing of the
/// client is in it but his address, and what he shows to get in.
pub(super) fn beside(request: &Request, target: Target) -> Request {
    let shown = request.headers.get(AUTHORIZATION);
    let mut headers = HeaderMap::new();
    headers.extend(shown.map(|value| (AUTHORIZATION, value.clone())));
    Request { method: Method::GET, target, headers, ..request.clone() }
}

/// Returns the request for what an address of ours leads to, in place of a client's. What he shows
/// to one server is not shown to another.
pub(super) fn instead(request: &Request, target: Target) -> Box<Request> {
    let mut headers = request.headers.clone();
    if target.url().origin() != request.target.url().origin() {
        headers.remove(AUTHORIZATION);
        headers.remove(COOKIE);
    }
    Box::new(Request { headers, target, base: None, ..request.clone() })
}

/// Brings another document of the same upstream.
pub(super) async fn bring(
    request: &Request,
    target: Target,
    ask: Ask,
    fetcher: &dyn Fetcher,
) -> Result<Obtained, ObtainError> {
    let request = beside(request, target);
    let class = match ask {
        Ask::IfStale => class(&request, fetcher).await,
        _ => Class::Http,
    };
    fetcher.obtain(&Obtain { request, class, ask }).await
}

/// Reads a blob of at most so many bytes.
pub(super) async fn read(root: &Arc<Root>, blob: &Digest, most: usize) -> Option<Bytes> {
    let (store, wanted) = (root.store(), blob.clone());
    let read = tokio::task::spawn_blocking(move || {
        let Some(file) = store.open_blocking(&wanted)? else { return Ok(None) };
        boatyard_content::Blob::File(file).into_bytes(most).map(Some)
    });
    match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            let error: StoreError = error;
            tracing::warn!(%blob, %error, "an index cannot be read");
            None
        }
        Err(_) => None,
    }
}
