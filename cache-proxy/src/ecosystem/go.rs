//! Go: module proxies (GOPROXY), and the checksum database below them.
//!
//! What a module has in a version never changes, its list of versions does. The checksum database
//! says what the files of every version have to be: where a client has asked for one through us, the
//! `.mod` and `.zip` files of that upstream are held against it ([`dirhash`]) before anybody gets
//! them. Its own files are signed and hang together by hashes, which the client checks: they are
//! passed on byte for byte.

mod address;
mod dirhash;
mod zip;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_oci::Digest;
use http::{Method, StatusCode};

use self::address::{Address, File, Kind, Module};
use self::dirhash::{Hash, HashError};
use super::index;
use crate::class::Class;
use crate::ecosystem::{Ask, Classified, Ecosystem, Fetcher, Obtain, Resolution, Resolved};
use crate::entry::Entry;
use crate::request::Request;
use crate::statistics::Outcome;
use crate::target::Target;

/// The longest answer of a checksum database that is read.
const RECORD_MAX: usize = 64 * 1024;
/// How many module proxies with a checksum database are remembered.
const PROXIES_MAX: usize = 1000;

/// The module proxies.
#[derive(Debug)]
pub struct Go {
    root: Arc<Root>,
    /// The checksum database that clients of each proxy asked for last.
    databases: Mutex<HashMap<String, String>>,
}

impl Go {
    /// Returns the ecosystem of Go on a root.
    pub fn new(root: Arc<Root>) -> Go {
        Go { root, databases: Mutex::default() }
    }

    fn learn(&self, base: &Target, database: &str) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if databases.len() >= PROXIES_MAX {
            databases.clear();
        }
        databases.insert(base.as_str().to_owned(), database.to_owned());
    }

    fn database(&self, base: &Target) -> Option<String> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.get(base.as_str()).cloned()
    }

    /// Returns what the checksum database says of a file; `None` where there is none to ask, or it
    /// does not know the module.
    async fn sum(
        &self,
        request: &Request,
        base: &Target,
        module: &Module,
        fetcher: &dyn Fetcher,
    ) -> Option<(String, Hash)> {
        let database = self.database(base)?;
        let bring = |path: String| async move {
            let target = base.join(&path).ok()?;
            Some(index::bring(request, target, Ask::IfAbsent, fetcher).await.ok()?.entry)
        };
        bring(format!("sumdb/{database}/supported")).await?;
        let lookup = format!("sumdb/{database}/lookup/{}@{}", module.path, module.version);
        let record = bring(lookup).await?;
        let bytes = index::read(&self.root, &record.blob, RECORD_MAX).await?;
        let hash = dirhash::recorded(std::str::from_utf8(&bytes).ok()?, module)?;
        Some((database, hash))
    }

    /// Answers for a file of a module, once it is known to be what it has to be.
    async fn file(
        &self,
        request: &Request,
        base: &Target,
        module: &Module,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let unchecked = Resolution::Class(Class::immutable());
        let wanted = |class, ask| {
            let request = Request { method: Method::GET, ..request.clone() };
            Obtain { request, class, ask }
        };
        let kept = fetcher.obtain(&wanted(Class::immutable(), Ask::Never)).await.ok();
        if kept.as_ref().is_some_and(|kept| kept.entry.verified.is_some()) {
            return unchecked;
        }
        let Some((database, sum)) = self.sum(request, base, module, fetcher).await else {
            return unchecked;
        };
        let mut wrong = None;
        // What was kept may be of a time when nobody could say what it has to be.
        for (class, ask) in [(Class::immutable(), Ask::IfAbsent), (Class::index(), Ask::Always)] {
            let entry = match fetcher.obtain(&wanted(class, ask)).await {
                Ok(obtained) => obtained.entry,
                Err(_) if wrong.is_none() => return unchecked,
                Err(_) => break,
            };
            match self.hash(&entry.blob, module.file).await {
                Ok(hash) if hash == sum => {
                    let by = format!("the checksum database {database}");
                    self.vouch(&entry, by).await;
                    if kept.is_some() {
                        return unchecked;
                    }
                    return Resolution::Blob(Resolved {
                        blob: entry.blob.clone(),
                        headers: entry.policy.headers.clone(),
                        stale: None,
                        outcome: Outcome::Miss,
                    });
                }
                Ok(hash) => wrong = Some(format!("it is {hash}")),
                Err(error) => wrong = Some(error.to_string()),
            }
            self.forget(&entry).await;
        }
        let wrong = wrong.unwrap_or_default();
        tracing::warn!(target = %request.target, wrong, %sum, "the upstream has wrong bytes");
        Resolution::Refused {
            status: StatusCode::BAD_GATEWAY,
            message: format!("{} should be {sum}, says {database}: {wrong}", request.target),
        }
    }

    async fn hash(&self, blob: &Digest, file: File) -> Result<Hash, HashError> {
        let (store, blob) = (self.root.store(), blob.clone());
        let hash = tokio::task::spawn_blocking(move || {
            let opened = store.open_blocking(&blob).map_err(std::io::Error::other)?;
            let opened =
                opened.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
            match file {
                File::Zip => dirhash::of_zip(opened.into_file()),
                File::Mod => dirhash::of_mod(opened.into_file()),
            }
        });
        hash.await.unwrap_or_else(|_| Err(std::io::Error::other("the program is stopping").into()))
    }

    /// Notes that what is kept is what it has to be.
    async fn vouch(&self, entry: &Entry, by: String) {
        let (root, entry) = (Arc::clone(&self.root), Entry { verified: Some(by), ..entry.clone() });
        let put = tokio::task::spawn_blocking(move || {
            root.entries().put(&entry.target.key(), &entry.vary(), &entry.to_variant())
        });
        if let Ok(Err(error)) = put.await {
            tracing::warn!(%error, "it is not noted who vouches for a module");
        }
    }

    /// Gives up what is kept and wrong.
    async fn forget(&self, entry: &Entry) {
        let (root, key) = (Arc::clone(&self.root), entry.target.key());
        let removed = tokio::task::spawn_blocking(move || root.entries().remove(&key)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(target = %entry.target, %error, "wrong bytes are still kept");
        }
    }
}

#[async_trait]
impl Ecosystem for Go {
    fn name(&self) -> &'static str {
        "go"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        Some(match Address::of(request)?.kind {
            Kind::Constant => Classified::As(Class::immutable()),
            Kind::Changing | Kind::Supported(_) | Kind::File(_) => Classified::Resolve,
        })
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        match Address::of(request) {
            Some(Address { base, kind: Kind::File(module) }) => {
                self.file(request, &base, &module, fetcher).await
            }
            Some(Address { base, kind: Kind::Supported(database) }) => {
                let target = request.target.clone();
                // Only what the upstream offers: otherwise a client could have nothing checked.
                if index::bring(request, target, Ask::IfStale, fetcher).await.is_ok() {
                    self.learn(&base, &database);
                    // It was asked for just now.
                    return Resolution::Class(Class::immutable());
                }
                Resolution::Class(index::class(request, fetcher).await)
            }
            _ => Resolution::Class(index::class(request, fetcher).await),
        }
    }
}
