//! gem and bundler: sources of Ruby's packages.
//!
//! A source has the *compact index*: `/versions` names every version of every gem, and for each gem
//! the MD5 of its `/info/NAME`; that lists its versions with the SHA-256 of each `.gem`; `/names`
//! has the names. Clients append to what they have by ranges, and check the whole by the headers
//! ([`compact`]). Older clients read Marshal files (`specs.4.8.gz` and its kin), which are passed on.
//!
//! - A `.gem` is held against the sum in `/info/NAME`.
//! - `/versions` never goes back: an upstream's servers do not all have the newest.
//! - `/info/NAME` that is what the newest `/versions` says is not asked for again.
//! - One address serves many sources: bundler says which it means ([`source`]).
//! - Private gems are listed beside the public ones ([`private`]).

mod address;
mod compact;
mod listing;
mod marshal;
mod newest;
mod package;
mod private;
pub mod source;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_content::cache::Cache;
use boatyard_oci::Digest;
use http::header::USER_AGENT;
use http::{Method, StatusCode};

use self::address::{Address, Kind};
use self::listing::{Info, Versions};
use super::index;
use crate::class::{Class, Promise};
use crate::ecosystem::{Ask, Classified, Ecosystem, Fetcher, ObtainError, Resolution};
use crate::headers::X_GEMFILE_SOURCE;
use crate::hosted::{Hosted, Upload};
use crate::reply::Reply;
use crate::request::Request;
use crate::target::Target;

/// The longest `/info/NAME` that is read.
const INFO_MAX: usize = 32 * 1024 * 1024;
/// How much of what was read of indexes stays in memory, in bytes.
const MEMORY_BYTES: usize = 32 * 1024 * 1024;
/// How many names a file name may be tried as.
const NAMES_MAX: usize = 4;

/// The sources of gems.
#[derive(Debug)]
pub struct Gem {
    root: Arc<Root>,
    /// What `/info` files say, by their blobs.
    infos: Cache<Digest, Arc<Info>>,
    /// What `/versions` files say, by their blobs.
    versions: Cache<Digest, Arc<Versions>>,
    /// The MD5 of files, by their blobs.
    sums: Cache<Digest, [u8; 16]>,
    /// What was served last of `/versions`, by source.
    newest: newest::Newest,
}

impl Gem {
    /// Returns the ecosystem of gems on a root.
    pub fn new(root: Arc<Root>) -> Gem {
        Gem {
            newest: newest::Newest::new(Arc::clone(&root)),
            root,
            infos: Cache::new(MEMORY_BYTES),
            versions: Cache::new(MEMORY_BYTES),
            sums: Cache::new(100_000),
        }
    }

    /// Says what a `.gem` must be.
    async fn promise(
        &self,
        request: &Request,
        base: &Target,
        file: &str,
        fetcher: &dyn Fetcher,
    ) -> Option<Promise> {
        for (name, version) in address::splits(file).take(NAMES_MAX) {
            let Ok(target) = base.join(&format!("info/{name}")) else { continue };
            for ask in [Ask::IfAbsent, Ask::IfStale] {
                let obtained = index::bring(request, target.clone(), ask, fetcher).await;
                let entry = match obtained {
                    Ok(obtained) => obtained.entry,
                    Err(ObtainError::Answered { .. }) => break,
                    // Nobody can say now what it must be.
                    Err(_) => return None,
                };
                let Some(info) = self.info(&entry.blob).await else { break };
                if let Some(digest) = info.sum(version) {
                    return Some(Promise { digest, size: None, by: target.to_string() });
                }
            }
        }
        None
    }

    async fn info(&self, blob: &Digest) -> Option<Arc<Info>> {
        if let Some(info) = self.infos.get(blob) {
            return Some(info);
        }
        let bytes = index::read(&self.root, blob, INFO_MAX).await?;
        let info = Arc::new(Info::parse(&bytes));
        self.infos.put(blob.clone(), Arc::clone(&info), info.weight());
        Some(info)
    }

    /// Answers `gem`, which asks by HEAD of the root whether there is a compact index.
    async fn root(&self, request: &Request, base: &Target, fetcher: &dyn Fetcher) -> Resolution {
        let Ok(versions) = base.join("versions") else { return Resolution::Class(Class::Pass) };
        match index::bring(request, versions, Ask::IfAbsent, fetcher).await {
            Ok(_) => Resolution::Refused {
                status: StatusCode::OK,
                message: "a source of gems with a compact index".to_owned(),
            },
            Err(_) => Resolution::Class(Class::Pass),
        }
    }
}

#[async_trait]
impl Ecosystem for Gem {
    fn name(&self) -> &'static str {
        "gem"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let address = Address::of(request)?;
        if !address.kind.is_distinctive() && !is_certain(request) {
            return None;
        }
        Some(match address.kind {
            Kind::Spec if private::hosted(request).is_none() => Classified::As(Class::immutable()),
            Kind::Root if request.method == Method::GET => Classified::As(Class::Http),
            _ => Classified::Resolve,
        })
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let Some(address) = Address::of(request) else { return Resolution::Class(Class::Http) };
        if let Some(hosted) = private::hosted(request)
            && let Some(resolution) = private::resolve(request, &address, hosted)
        {
            return resolution;
        }
        match &address.kind {
            Kind::Versions | Kind::Names => self.list(request, &address.kind, fetcher).await,
            Kind::Info => self.info_of(request, &address, fetcher).await,
            Kind::Gem(file) => {
                let promise = self.promise(request, &address.base, file, fetcher).await;
                Resolution::Class(promise.map_or_else(Class::immutable, Class::promised))
            }
            Kind::Root => self.root(request, &address.base, fetcher).await,
            Kind::Spec => Resolution::Class(Class::immutable()),
            Kind::Marshal => Resolution::Class(index::class(request, fetcher).await),
        }
    }

    fn receives(&self, request: &Request) -> bool {
        private::receives(request)
    }

    fn receive(&self, request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
        private::receive(request, hosted, upload)
    }
}

/// Says whether it is a gem client who asks, or a source of gems that is asked.
fn is_certain(request: &Request) -> bool {
    let named = request.upstream.as_ref().and_then(|upstream| upstream.ecosystem.as_deref());
    let agent = request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    named == Some("gem")
        || request.headers.contains_key(X_GEMFILE_SOURCE)
        || agent.is_some_and(|agent| agent.contains("RubyGems/") || agent.starts_with("bundler/"))
}
