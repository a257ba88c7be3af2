//! The files of the compact index, as clients need them.
//!
//! A client that has a file asks for the bytes behind what it has, and checks the whole: bundler
//! since 2.5 by `Repr-Digest`, older ones by an `ETag` that has to be the MD5 of the whole. Not
//! every upstream says so, so that is said here, of each file once it is whole.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::Digest;
use boatyard_upstream::freshness::{self, Decision};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, DATE, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use md5::{Digest as _, Md5};

use super::address::{Address, Kind};
use super::{Gem, index};
use crate::class::{Class, Mutable};
use crate::ecosystem::{Ask, Fetcher, Obtain, Resolution, Resolved};
use crate::entry::Entry;
use crate::request::Request;
use crate::statistics::Outcome;

/// How long a client waits for a new file: bundler gives up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const DIGEST: HeaderName = HeaderName::from_static("digest");

impl Gem {
    /// Answers for `/versions` and `/names`.
    pub(super) async fn list(
        &self,
        request: &Request,
        kind: &Kind,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let before = kept(request, fetcher).await;
        let class = index::of(before.as_deref());
        self.file(request, kind, class, before, fetcher).await
    }

    /// Answers for `/info/NAME`. What is kept of it is asked for again if `/versions` says that it
    /// has changed, and not at all while that is fresh and says that it has not.
    pub(super) async fn info_of(
        &self,
        request: &Request,
        address: &Address,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let before = kept(request, fetcher).await;
        let mut class = index::of(before.as_deref());
        if let Some(before) = &before
            && let Some(sum) = self.md5(&before.blob).await
            && let Some((said, is_current)) = self.said(request, address, fetcher).await
        {
            if said == sum
                && is_current
                && let Some(answer) = self.answer(before, Outcome::Hit, None).await
            {
                return answer;
            }
            if said != sum {
                class = Class::index();
            }
        }
        self.file(request, &Kind::Info, class, before, fetcher).await
    }

    /// Returns what `/versions` says of a gem, and whether it may be believed without asking.
    async fn said(
        &self,
        request: &Request,
        address: &Address,
        fetcher: &dyn Fetcher,
    ) -> Option<([u8; 16], bool)> {
        let target = address.base.join("versions").ok()?;
        let entry = match self.newest.get(&target).await {
            Some(newest) => newest,
            None => index::bring(request, target, Ask::Never, fetcher).await.ok()?.entry,
        };
        let name = request.target.file_name();
        let sum = self.versions(&entry.blob).await?.sum(&name)?;
        let nothing = HeaderMap::new();
        let asked = freshness::Request { method: &Method::GET, headers: &nothing };
        let decision = freshness::decide(&entry.policy, asked, fetcher.now());
        let says_so =
            matches!(index::of(Some(&entry)), Class::Mutable(Mutable { always_ask: false, .. }));
        Some((sum, says_so && matches!(decision, Decision::Fresh { .. })))
    }

    async fn file(
        &self,
        request: &Request,
        kind: &Kind,
        class: Class,
        before: Option<Arc<Entry>>,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let is_versions = *kind == Kind::Versions;
        if let Some(before) = before.as_ref().filter(|_| is_versions) {
            // What is held as the newest stays, whatever comes instead of it.
            self.advance(before, fetcher.now()).await;
        }
        let wanted = Request { method: Method::GET, ..request.clone() };
        let wanted = Obtain { request: wanted, class: class.clone(), ask: Ask::IfStale };
        let (entry, is_stale) = match tokio::time::timeout(PATIENCE, fetcher.obtain(&wanted)).await
        {
            Ok(Ok(obtained)) => (obtained.entry, obtained.stale),
            Ok(Err(_)) => return Resolution::Class(class),
            // Whoever has nothing reads what comes, while it comes.
            Err(_) => match before.clone() {
                Some(before) => (before, true),
                None => return Resolution::Class(class),
            },
        };
        let outcome = match &before {
            Some(before) if before.policy.received == entry.policy.received => Outcome::Hit,
            Some(before) if before.blob == entry.blob => Outcome::Revalidated,
            _ => Outcome::Miss,
        };
        let now = fetcher.now();
        let entry = if is_versions { self.advance(&entry, now).await } else { entry };
        let entry = self.merged(request, kind, &entry).await;
        let age = is_stale.then(|| entry.policy.age(now));
        self.answer(&entry, outcome, age).await.unwrap_or(Resolution::Class(class))
    }

    async fn answer(
        &self,
        entry: &Entry,
        outcome: Outcome,
        stale: Option<Duration>,
    ) -> Option<Resolution> {
        let sum = self.md5(&entry.blob).await?;
        let headers = headers_of(&entry.policy.headers, &entry.blob, sum)?;
        Some(Resolution::Blob(Resolved { blob: entry.blob.clone(), headers, stale, outcome }))
    }

    /// Returns the MD5 of a blob.
    async fn md5(&self, blob: &Digest) -> Option<[u8; 16]> {
        if let Some(sum) = self.sums.get(blob) {
            return Some(sum);
        }
        let (store, wanted) = (self.root.store(), blob.clone());
        let sum = tokio::task::spawn_blocking(move || {
            let mut file = store.open_blocking(&wanted).ok()??.into_file();
            let (mut hash, mut buffer) = (Md5::new(), vec![0; 64 * 1024]);
            loop {
                let read = file.read(&mut buffer).ok()?;
                if read == 0 {
                    return Some(<[u8; 16]>::from(hash.finalize()));
                }
                hash.update(&buffer[..read]);
            }
        });
        let sum = sum.await.ok()??;
        self.sums.put(blob.clone(), sum, 1);
        Some(sum)
    }
}

/// Returns what is kept of a target.
async fn kept(request: &Request, fetcher: &dyn Fetcher) -> Option<Arc<Entry>> {
    let request = Request { method: Method::GET, ..request.clone() };
    let wanted = Obtain { request, class: Class::Http, ask: Ask::Never };
    Some(fetcher.obtain(&wanted).await.ok()?.entry)
}

/// Returns the headers of an answer with a whole file, or a part of it, of which the upstream said
/// these.
pub(super) fn headers_of(said: &HeaderMap, blob: &Digest, md5: [u8; 16]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for name in [CACHE_CONTROL, CONTENT_TYPE, DATE, EXPIRES, LAST_MODIFIED] {
        headers.extend(said.get(&name).map(|value| (name, value.clone())));
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.entry(CONTENT_TYPE).or_insert(kind);
    let md5 = md5.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Blobs have the names of their SHA-256.
    let sha256 = blob.hex();
    let bytes = (0..sha256.len() / 2)
        .map(|at| u8::from_str_radix(sha256.get(2 * at..2 * at + 2)?, 16).ok());
    let sha256 = STANDARD.encode(bytes.collect::<Option<Vec<u8>>>()?);
    let text = |text: String| HeaderValue::from_str(&text).ok();
    headers.insert(ETAG, text(format!("\"{md5}\""))?);
    headers.insert(REPR_DIGEST, text(format!("sha-256=:{sha256}:"))?);
    headers.insert(DIGEST, text(format!("sha-256={sha256}"))?);
    Some(headers)
}
