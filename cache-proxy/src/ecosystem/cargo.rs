//! cargo: registries with a sparse index.
//!
//! `config.json` says where crates are downloaded from (`dl`) and where the registry's own interface
//! is (`api`): often on other hosts. Below a configured upstream both are rewritten to lead through
//! us ([`config`]); the address of a crate then has its checksum. The file of each crate in the index
//! lists its versions with their checksums ([`listing`]), and a crate is held against those.
//! Everything but `config.json` is passed on byte for byte, unless what was yanked is to be refused.
//! [`private`] crates are published here.

mod address;
mod config;
mod listing;
mod private;

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_content::cache::Cache;
use boatyard_oci::Digest;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use self::address::{Address, Kind, Version};
use self::config::Config;
use self::listing::{Filter, Listed, Listing};
use super::index;
use crate::class::{Class, Promise};
use crate::ecosystem::{Ask, Classified, Ecosystem, Fetcher, Resolution};
use crate::hosted::{Hosted, Upload};
use crate::policy::Withdrawn;
use crate::reply::Reply;
use crate::request::Request;
use crate::target::Target;

/// The longest file of an index that is read.
const LISTING_MAX: usize = 32 * 1024 * 1024;
/// How much of what was read of indexes stays in memory, in bytes.
const MEMORY_BYTES: usize = 16 * 1024 * 1024;
/// How many indexes are remembered that clients of the forward proxy asked for.
const INDEXES_MAX: usize = 16;

/// The registries of crates.
#[derive(Debug)]
pub struct Cargo {
    root: Arc<Root>,
    listings: Cache<Digest, Arc<Listing>>,
    /// The indexes that clients of the forward proxy asked for, the last one last.
    seen: Mutex<Vec<Target>>,
}

impl Cargo {
    /// Returns the ecosystem of cargo on a root.
    pub fn new(root: Arc<Root>) -> Cargo {
        Cargo { root, listings: Cache::new(MEMORY_BYTES), seen: Mutex::default() }
    }

    fn see(&self, index: Target) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|known| *known != index);
        if seen.len() >= INDEXES_MAX {
            seen.remove(0);
        }
        seen.push(index);
    }

    fn seen(&self) -> Vec<Target> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn config(
        &self,
        request: &Request,
        index: &Target,
        ask: Ask,
        fetcher: &dyn Fetcher,
    ) -> Option<Config> {
        let target = index.join("config.json").ok()?;
        let entry = index::bring(request, target, ask, fetcher).await.ok()?.entry;
        let bytes = index::read(&self.root, &entry.blob, config::SIZE_MAX).await?;
        Config::parse(&bytes).ok()
    }

    /// Returns what an index has of a version; `None` where it cannot be asked, nothing where it
    /// does not know it.
    async fn sum(
        &self,
        request: &Request,
        index: &Target,
        version: &Version,
        fetcher: &dyn Fetcher,
    ) -> Option<Option<Listed>> {
        let target = index.join(&address::file_of(&version.name)).ok()?;
        let mut found = None;
        for ask in [Ask::IfAbsent, Ask::IfStale] {
            let Ok(obtained) = index::bring(request, target.clone(), ask, fetcher).await else {
                break;
            };
            let Some(listing) = self.listing(&obtained.entry.blob).await else { break };
            let listed = listing.version(&version.number);
            if listed.is_some() {
                return Some(listed.cloned());
            }
            found = Some(None);
        }
        found
    }

    async fn listing(&self, blob: &Digest) -> Option<Arc<Listing>> {
        if let Some(listing) = self.listings.get(blob) {
            return Some(listing);
        }
        let bytes = index::read(&self.root, blob, LISTING_MAX).await?;
        let listing = Arc::new(Listing::parse(&bytes));
        self.listings.put(blob.clone(), Arc::clone(&listing), listing.weight());
        Some(listing)
    }

    /// Answers for a crate under the address that we wrote into `config.json`.
    async fn download(
        &self,
        request: &Request,
        index: &Target,
        version: &Version,
        sum: &Digest,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let refused = |status, message: String| Resolution::Refused { status, message };
        let listed = self.sum(request, index, version, fetcher).await;
        if let Some(Some(Listed { is_yanked: true, .. })) = &listed {
            match withdrawn(request) {
                Withdrawn::Serve => {}
                Withdrawn::Warn => tracing::warn!(%version, "a crate that was yanked is served"),
                Withdrawn::Refuse => {
                    let message = format!("{version} was yanked (see `withdrawn` of [proxy])");
                    return refused(StatusCode::FORBIDDEN, message);
                }
            }
        }
        if let Some(Some(Listed { published, .. })) = &listed
            && let Some(upstream) = &request.upstream
            && upstream.policy.holds_back(&version.name, *published, fetcher.now())
        {
            let message = format!("{version} is too young (see `minimum_release_age` of [proxy])");
            return refused(StatusCode::FORBIDDEN, message);
        }
        let class = match &listed {
            // Blobs of the store are not for whoever knows their digests: the index has to name it.
            Some(Some(listed)) if listed.sum == *sum => Class::promised(Promise {
                digest: sum.clone(),
                size: None,
                by: format!("{index}{}", address::file_of(&version.name)),
            }),
            Some(_) => {
                let message = format!("the index has no {version} with this checksum");
                return refused(StatusCode::NOT_FOUND, message);
            }
            None => Class::immutable(),
        };
        let Some(config) = self.config(request, index, Ask::IfAbsent, fetcher).await else {
            let message = format!("{index}config.json cannot be read");
            return refused(StatusCode::BAD_GATEWAY, message);
        };
        match config.download(version, sum).parse() {
            Ok(target) => Resolution::Instead(index::instead(request, target), class),
            Err(error) => {
                let message = format!("{index}config.json has an address that is none: {error}");
                refused(StatusCode::BAD_GATEWAY, message)
            }
        }
    }

    /// Says what a crate must be that is downloaded from where the registry has it.
    async fn promise(&self, request: &Request, fetcher: &dyn Fetcher) -> Option<Promise> {
        let target = &request.target;
        for index in self.seen().iter().rev() {
            let Some(config) = self.config(request, index, Ask::Never, fetcher).await else {
                continue;
            };
            for version in address::versions(target.path()) {
                let listed = self.sum(request, index, &version, fetcher).await;
                let Some(Some(Listed { sum, .. })) = listed else { continue };
                let there = config.download(&version, &sum).parse::<Target>();
                if there.is_ok_and(|there| there == *target) {
                    let by = format!("{index}{}", address::file_of(&version.name));
                    return Some(Promise { digest: sum, size: None, by });
                }
            }
        }
        None
    }
}

#[async_trait]
impl Ecosystem for Cargo {
    fn name(&self) -> &'static str {
        "cargo"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let address = Address::of(request, is_cargo(request))?;
        if address.kind == Kind::Config && request.upstream.is_none() {
            self.see(address.index);
        }
        Some(Classified::Resolve)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let Some(Address { index, kind }) = Address::of(request, true) else {
            return Resolution::Class(Class::Http);
        };
        let hosted = request.upstream.as_ref().and_then(|upstream| upstream.hosted.as_ref());
        if let Some(hosted) = hosted
            && let Some(resolution) = private::resolve(request, &kind, hosted)
        {
            return resolution;
        }
        match kind {
            Kind::Config => {
                let mut class = index::class(request, fetcher).await;
                if let Class::Mutable(mutable) = &mut class {
                    mutable.recipe = config::Changes::of(request).map(|changes| changes.recipe());
                }
                Resolution::Class(class)
            }
            Kind::Index => {
                let mut class = index::class(request, fetcher).await;
                if let Class::Mutable(mutable) = &mut class {
                    let name = request.target.file_name();
                    mutable.recipe = filter(request, &name, fetcher.now()).recipe();
                }
                Resolution::Class(class)
            }
            Kind::Crate(version, sum) => {
                self.download(request, &index, &version, &sum, fetcher).await
            }
            Kind::Api(below) => {
                let config = self.config(request, &index, Ask::IfAbsent, fetcher).await;
                match config.and_then(|config| config.api(&below)?.parse().ok()) {
                    Some(target) => {
                        Resolution::Instead(index::instead(request, target), Class::Pass)
                    }
                    None => Resolution::Class(Class::Pass),
                }
            }
            Kind::Download => {
                let promise = self.promise(request, fetcher).await;
                Resolution::Class(promise.map_or_else(Class::immutable, Class::promised))
            }
        }
    }

    fn render(
        &self,
        recipe: &str,
        from: &mut dyn Read,
        to: &mut dyn Write,
    ) -> io::Result<HeaderMap> {
        let mut bytes = Vec::new();
        if let Some(filter) = Filter::of_recipe(recipe) {
            from.take(LISTING_MAX as u64).read_to_end(&mut bytes)?;
            to.write_all(&filter.apply(&bytes))?;
            return Ok(HeaderMap::new());
        }
        from.take(config::SIZE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let rewritten = config::rewrite(recipe, &bytes).map_err(io::Error::other)?;
        to.write_all(&rewritten)?;
        let kind = HeaderValue::from_static("application/json");
        Ok(HeaderMap::from_iter([(CONTENT_TYPE, kind)]))
    }

    fn receives(&self, request: &Request) -> bool {
        private::receives(request)
    }

    fn receive(&self, request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
        private::receive(request, hosted, upload)
    }

    fn refusal(&self, status: StatusCode, message: &str) -> Reply {
        private::refusal(status, message)
    }
}

/// Returns what becomes of what was yanked.
fn withdrawn(request: &Request) -> Withdrawn {
    request.upstream.as_ref().map(|upstream| upstream.policy.withdrawn).unwrap_or_default()
}

fn is_cargo(request: &Request) -> bool {
    let agent = request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with("cargo"))
}

/// Returns what is left out of the file of a crate.
fn filter(request: &Request, name: &str, now: Timestamp) -> Filter {
    let Some(upstream) = &request.upstream else { return Filter::default() };
    let policy = &upstream.policy;
    let minimum = policy.minimum_age.filter(|_| !policy.minimum_age_exclude.matches(name));
    // To the hour, so that what is made of a file serves for an hour.
    let after = minimum.map(|minimum| {
        let minimum = i64::try_from(minimum.as_secs()).unwrap_or(i64::MAX);
        now.as_second().saturating_sub(minimum).div_euclid(3600) * 3600
    });
    Filter { yanked: policy.withdrawn == Withdrawn::Refuse, after }
}
