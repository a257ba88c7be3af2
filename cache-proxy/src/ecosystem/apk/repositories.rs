//! The repositories that clients use, and the answers to what they ask of them.

use std::collections::HashSet;
use std::io::BufReader;
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_content::cache::Cache;
use boatyard_oci::Digest;
use http::{Method, StatusCode};
use jiff::Timestamp;

use super::index::{APKINDEX, Indexes};
use super::segments::{self, SegmentsError};
use crate::class::Class;
use crate::ecosystem::{
    Ask, Classified, Ecosystem, Explained, Fetcher, Obtain, ObtainError, Resolution, Resolved,
};
use crate::entry::Entry;
use crate::generation::catalogue::Sum;
use crate::generation::sets::decode;
use crate::generation::{Asking, Found, Options, Sets};
use crate::request::Request;
use crate::statistics::Outcome;

/// How many packages are remembered that were found to be right.
const CHECKED_MAX: usize = 20_000;

/// Alpine's repositories of whatever hosts.
#[derive(Debug)]
pub struct Apk {
    sets: Sets,
    /// The control segments of blobs that are whole packages.
    checked: Cache<Digest, [u8; 20]>,
}

impl Apk {
    /// Returns the ecosystem on a root, with the indexes that are held there. Blocking.
    pub fn new(root: Arc<Root>, options: Options) -> Apk {
        let sets = Sets::new(root, Arc::new(Indexes), options);
        Apk { sets, checked: Cache::new(CHECKED_MAX) }
    }

    /// Returns what an index that is held says of a package.
    async fn package(&self, request: &Request) -> Option<Found> {
        let beside = |directory: &str| {
            let name = request.target.path().strip_prefix(directory).and_then(decode);
            name.into_iter().filter(|name| !name.contains('/')).collect()
        };
        self.sets.package(request, beside).await
    }

    /// Brings a package that an index lists, and checks it.
    async fn bring(&self, request: &Request, fetcher: &dyn Fetcher, found: &Found) -> Resolution {
        let mut why = String::new();
        for is_last in [false, true] {
            let (method, class) = (Method::GET, Class::immutable());
            let request = Request { method, ..request.clone() };
            let obtain = Obtain { request, class, ask: Ask::IfAbsent };
            let begun = fetcher.now();
            let entry = match fetcher.obtain(&obtain).await {
                Ok(obtained) => obtained.entry,
                Err(error) => return refused(&error, found),
            };
            match self.check(&entry, found).await {
                Ok(()) => {
                    let headers = entry.policy.headers.clone();
                    let is_new = entry.policy.received >= begun;
                    let outcome = if is_new { Outcome::Miss } else { Outcome::Hit };
                    return Resolution::Blob(Resolved {
                        blob: entry.blob.clone(),
                        headers,
                        stale: None,
                        outcome,
                    });
                }
                Err(error) => why = error,
            }
            // Replaced under its name, or damaged on the way: all of it is fetched anew, once.
            tracing::warn!(package = %entry.target, why, "it is not what its index lists");
            let (root, key) = (Arc::clone(self.sets.root()), entry.target.key());
            let removed = tokio::task::spawn_blocking(move || root.entries().remove(&key)).await;
            if is_last || !matches!(removed, Ok(Ok(()))) {
                break;
            }
        }
        let message = format!("{}: {why}, says {}", request.target, found.by);
        Resolution::Refused { status: StatusCode::BAD_GATEWAY, message }
    }

    async fn check(&self, entry: &Entry, found: &Found) -> Result<(), String> {
        let Sum::Control(control) = found.listed.sum else { return Ok(()) };
        if entry.size != found.listed.size {
            return Err(format!("it has {} bytes instead of {}", entry.size, found.listed.size));
        }
        if self.checked.get(&entry.blob) == Some(control) {
            return Ok(());
        }
        let (root, blob) = (Arc::clone(self.sets.root()), entry.blob.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let file = root.store().open_blocking(&blob).map_err(|error| error.to_string())?;
            let file = file.ok_or_else(|| "it is gone".to_owned())?.into_file();
            segments::check(BufReader::with_capacity(64 << 10, file), &control).map_err(|error| {
                match error {
                    SegmentsError::Read(source) => format!("it cannot be read: {source}"),
                    error => error.to_string(),
                }
            })
        });
        checked.await.map_err(|error| error.to_string())??;
        self.checked.put(entry.blob.clone(), control, 1);
        Ok(())
    }
}

/// Says to a client that what its index lists cannot be had.
fn refused(error: &ObtainError, found: &Found) -> Resolution {
    let (status, what) = match error {
        ObtainError::Answered { status, .. } if status.is_client_error() => {
            (*status, format!("; {} lists it: it is not published yet, or not any more", found.by))
        }
        ObtainError::Forbidden { .. } => (StatusCode::FORBIDDEN, String::new()),
        _ => (StatusCode::BAD_GATEWAY, String::new()),
    };
    Resolution::Refused { status, message: format!("{error}{what}") }
}

#[async_trait]
impl Ecosystem for Apk {
    fn name(&self) -> &'static str {
        "apk"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        let path = request.target.path();
        let mine = request.reads_for_all()
            && (path.ends_with(".apk") || path.ends_with("/APKINDEX.tar.gz"));
        mine.then_some(Classified::Resolve)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let asking = Asking { request, fetcher };
        if let Some(directory) = request.target.path().strip_suffix(APKINDEX)
            && let Ok(address) = request.target.at(directory)
            && let Some(set) = self.sets.at(&address).await
        {
            let resolution = set.root(asking, APKINDEX).await;
            self.sets.forget(&set);
            return resolution.unwrap_or(Resolution::Class(Class::index()));
        }
        match self.package(request).await {
            Some(found) => self.bring(request, fetcher, &found).await,
            // Nobody vouches for it, whatever its name looks like.
            None => Resolution::Class(Class::index()),
        }
    }

    async fn explain(&self, request: &Request, now: Timestamp) -> Explained {
        let mut notes = self.sets.describe(&request.target, now).await;
        let class = match self.package(request).await {
            Some(found) => {
                notes.push(format!(
                    "{} gives its size and the digest of its control segment",
                    found.by
                ));
                Some(Class::immutable())
            }
            None => request.target.path().ends_with(".apk").then(Class::index),
        };
        Explained { class, notes }
    }

    fn needed(&self) -> HashSet<Digest> {
        self.sets.needed()
    }
}
