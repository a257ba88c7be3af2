//! npm registries, for npm, yarn, pnpm and whoever else speaks to them.
//!
//! A package has a document, long or abbreviated, which changes; and tarballs, which do not, and
//! whose digests the document has. A tarball that is asked for is held against that: where the
//! document is not here, it is fetched first. Which host a tarball lies on only the document says,
//! and no client.

mod address;
mod catalogue;
mod document;
mod integrity;
mod name;
mod private;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Blob;
use boatyard_content::cache::Cache;
use boatyard_oci::Digest;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use crate::class::{Class, Mutable, Promise};
use crate::ecosystem::site::{Site, bring, is_of_unknown_age};
use crate::ecosystem::{
    Ask, Classified, Ecosystem, Explained, Fetcher, ObtainError, Resolution, Resolved,
};
use crate::entry::Entry;
use crate::hosted::{Hosted, Seen, Upload};
use crate::policy::{Policy, Withdrawn};
use crate::reply::Reply;
use crate::request::Request;
use crate::upstreams::{Upstream, Upstreams};

use address::Address;
use catalogue::{Catalogue, Version};
use document::{Addresses, Recipe};
use integrity::Integrity;
use name::PackageName;
use private::Change;

/// How many bytes of what documents say are kept in memory.
const MEMORY_BYTES: usize = 32 * 1024 * 1024;
/// How many tarballs are remembered that were read to see whether they are right.
const CHECKED_MAX: usize = 20_000;

/// npm registries.
#[derive(Debug)]
pub struct Npm {
    /// What documents say, by their blobs.
    catalogues: Cache<Digest, Arc<Catalogue>>,
    /// Blobs that are what a document vouches for under another digest.
    checked: Cache<(Digest, String), ()>,
}

/// Which of its two documents a package is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With everything: authors, times, the text of its README.
    Full,
    /// With what installing takes.
    Abbreviated,
}

/// What a request is for.
struct Asked<'r> {
    site: Site<'r>,
    address: Address,
    /// The registry is configured, so all of it is known to be one.
    is_configured: bool,
}

impl Default for Npm {
    fn default() -> Npm {
        Npm { catalogues: Cache::new(MEMORY_BYTES), checked: Cache::new(CHECKED_MAX) }
    }
}

impl Kind {
    const ABBREVIATED: &'static str = "application/vnd.npm.install-v1+json";

    fn of(headers: &HeaderMap) -> Kind {
        let wanted = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        match wanted.into_iter().any(|accept| accept.contains(Kind::ABBREVIATED)) {
            true => Kind::Abbreviated,
            false => Kind::Full,
        }
    }

    fn other(self) -> Kind {
        match self {
            Kind::Full => Kind::Abbreviated,
            Kind::Abbreviated => Kind::Full,
        }
    }

    /// Returns the one way in which we ask for it.
    fn accept(self) -> &'static str {
        match self {
            Kind::Full => "application/json",
            Kind::Abbreviated => {
                "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"
            }
        }
    }
}

/// Returns the upstream that a tarball at the root of this server is of, and its path there. With
/// `replace-registry-host`, `npm pack` and others put the path of an address below the host of their
/// registry, whose own path they forget. Where there are several registries, it may be of any.
pub(crate) fn tarball_of_only<'a>(
    upstreams: &'a Upstreams,
    path: &'a str,
    headers: &HeaderMap,
) -> Option<(&'a Arc<Upstream>, &'a str)> {
    let agent = headers.get(USER_AGENT)?.to_str().ok()?;
    if !agent.starts_with("npm/") {
        return None;
    }
    let (above, _) = Address::tarball_at_end(path)?;
    let is_npm = |upstream: &&Arc<Upstream>| {
        upstream.ecosystem.as_deref() == Some("npm") && !upstream.is_alone()
    };
    let mut registries = upstreams.all().iter().filter(is_npm);
    let only = registries.next().filter(|_| registries.next().is_none())?;
    let base = only.bases[0].path().trim_start_matches('/');
    (above.is_empty() || above == base).then(|| (only, &path[above.len()..]))
}

fn asked(request: &Request) -> Option<Asked<'_>> {
    let is_configured = request
        .upstream
        .as_ref()
        .is_some_and(|upstream| upstream.ecosystem.as_deref() == Some("npm"));
    if is_configured {
        let (site, below) = Site::configured(request)?;
        let address = match Address::parse(below) {
            Some(address) => address,
            None => Address::tarball_at_end(below)?.1,
        };
        return Some(Asked { site, address, is_configured });
    }
    // Elsewhere a registry is known by what nobody else has.
    let path = request.target.path();
    if let Some((base, address)) = Address::tarball_at_end(path)
        && path.ends_with(".tgz")
    {
        let site = Site::above(request, &path[base.len()..])?;
        return Some(Asked { site, address, is_configured });
    }
    if Kind::of(&request.headers) == Kind::Full {
        return None;
    }
    let (before, last) = path.rsplit_once('/')?;
    let scope = before.rsplit('/').next().filter(|scope| scope.starts_with('@'));
    let below = scope.map_or_else(|| last.to_owned(), |scope| format!("{scope}/{last}"));
    let address = Address::Document(PackageName::parse(&below)?);
    Some(Asked { site: Site::above(request, &below)?, address, is_configured })
}

fn document_class(always_ask: bool, recipe: Option<String>) -> Class {
    Class::Mutable(Mutable { always_ask, recipe, varies: vec![ACCEPT], serial: None })
}

#[async_trait]
impl Ecosystem for Npm {
    fn name(&self) -> &'static str {
        "npm"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        asked(request).map(|_| Classified::Resolve)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let Some(asked) = asked(request) else { return Resolution::Class(Class::Http) };
        let hosted = request.upstream.as_ref().and_then(|upstream| upstream.hosted.as_ref());
        if let Some(hosted) = hosted {
            // Who comes through the forward door reads nothing private, nor asks the upstream.
            let seen = asked.site.seen().unwrap_or_default().to_owned();
            let hosted = Arc::clone(hosted);
            let (request, address) = (request.clone(), asked.address.clone());
            let read = move || read_private(&request, &hosted, &address, &seen);
            if let Ok(Some(private)) = tokio::task::spawn_blocking(read).await {
                return private;
            }
        }
        match &asked.address {
            Address::Document(name) => self.document(request, &asked, name, fetcher).await,
            Address::Version(name, version) => {
                self.version(request, &asked, name, version, fetcher).await
            }
            Address::Tarball(name, file) => {
                self.tarball(request, &asked, name, file, fetcher).await
            }
            Address::Tags(_) => Resolution::Class(Class::index()),
            Address::Whoami | Address::Passing => Resolution::Class(Class::Pass),
        }
    }

    async fn explain(&self, request: &Request, _: Timestamp) -> Explained {
        let Some(asked) = asked(request) else { return Explained::default() };
        let (class, note) = match &asked.address {
            Address::Document(name) => {
                let kind = match Kind::of(&request.headers) {
                    Kind::Full => "full",
                    Kind::Abbreviated => "abbreviated",
                };
                (document_class(false, None), format!("the {kind} document of {name}"))
            }
            Address::Version(name, version) => {
                (document_class(false, None), format!("the document of {name} {version}"))
            }
            Address::Tarball(name, file) => {
                let note = format!("{file} of {name}: held against the digest in its document");
                (Class::immutable(), note)
            }
            Address::Tags(_) => (Class::index(), "the tags of a package".to_owned()),
            Address::Whoami | Address::Passing => {
                (Class::Pass, "a question to the registry itself".to_owned())
            }
        };
        Explained { class: Some(class), notes: vec![note] }
    }

    fn render(
        &self,
        recipe: &str,
        from: &mut dyn Read,
        to: &mut dyn Write,
    ) -> io::Result<HeaderMap> {
        let recipe: Recipe = serde_json::from_str(recipe)?;
        recipe.render(from, to)?;
        let mut changed = HeaderMap::new();
        changed.insert(VARY, HeaderValue::from_static("Accept, User-Agent"));
        changed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(changed)
    }

    fn receives(&self, request: &Request) -> bool {
        change(request).is_some()
    }

    fn receive(&self, request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
        match change(request) {
            Some(change) => private::receive(request, hosted, upload, &change),
            None => self.refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing is published so"),
        }
    }

    fn refusal(&self, status: StatusCode, message: &str) -> Reply {
        private::refusal(status, message)
    }
}

/// Returns what a request changes among the private packages of its upstream.
fn change(request: &Request) -> Option<Change> {
    let hosted = request.upstream.as_ref()?.hosted.as_ref()?;
    let (_, below) = Site::configured(request)?;
    let change = Change::parse(&request.method, below)?;
    hosted.is_private(&change.name().to_string()).then_some(change)
}

/// Answers for a private package; `None` where it is none. Blocking.
fn read_private(
    request: &Request,
    hosted: &Hosted,
    address: &Address,
    seen: &str,
) -> Option<Resolution> {
    let name = match address {
        Address::Document(name)
        | Address::Version(name, _)
        | Address::Tarball(name, _)
        | Address::Tags(name) => name,
        Address::Whoami => {
            let caller = request.admitted.caller.as_ref()?;
            let who = serde_json::json!({ "username": caller.identity().to_string() });
            return Some(Resolution::Reply(Reply::json(StatusCode::OK, &who)));
        }
        Address::Passing => return None,
    };
    let key = name.to_string();
    if !hosted.is_private(&key) {
        return None;
    }
    let absent = || {
        let message = format!("nothing is published here as {name}");
        Resolution::Reply(private::refusal(StatusCode::NOT_FOUND, &message))
    };
    let package = match hosted.package(request, &key) {
        Seen::Hidden => {
            let message = "private packages are shown to who has logged in and may `pull` there";
            let reply = private::refusal(StatusCode::UNAUTHORIZED, message).asking();
            return Some(Resolution::Reply(reply));
        }
        Seen::There(package) if !package.files.is_empty() => package,
        Seen::There(_) | Seen::Absent => return Some(absent()),
    };
    let tags = private::tags(hosted, &package);
    let reply = |value: &serde_json::Value| Resolution::Reply(private::reply(value));
    Some(match address {
        Address::Version(_, version) => {
            let version = tags.get(version).unwrap_or(version);
            let file = package.version(version).next();
            file.map_or_else(absent, |file| reply(&private::version(file, seen)))
        }
        Address::Tarball(_, file) => package.file(file).map_or_else(absent, |file| {
            Resolution::Blob(Resolved::private(file, "application/octet-stream"))
        }),
        Address::Tags(_) => reply(&serde_json::json!(tags)),
        _ => reply(&private::read(&package, &tags, seen)),
    })
}

/// Versions that are left out, and what becomes of the tags that point at them.
type LeftOut = (Vec<String>, BTreeMap<String, Option<String>>);

/// Returns how a client that sees the registry below us needs a document.
fn recipe(
    request: &Request,
    asked: &Asked<'_>,
    name: &PackageName,
    is_version: bool,
    (without, tags): LeftOut,
) -> Option<String> {
    let seen = asked.site.seen().filter(|_| asked.is_configured)?;
    let agent = request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let addresses = Addresses::of(agent.unwrap_or_default(), seen);
    let recipe = Recipe { name: name.to_string(), is_version, addresses, without, tags };
    recipe.changes().then(|| recipe.text())
}

fn version_document(
    request: &Request,
    asked: &Asked<'_>,
    name: &PackageName,
    version: &str,
) -> Resolution {
    let path = format!("{}/{version}", name.path());
    let class = document_class(false, recipe(request, asked, name, true, Default::default()));
    match asked.site.client(&path, Kind::Full.accept()) {
        Some(request) => Resolution::Instead(Box::new(request), class),
        None => Resolution::Class(Class::Http),
    }
}

impl Npm {
    async fn document(
        &self,
        request: &Request,
        asked: &Asked<'_>,
        name: &PackageName,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let policy = request.upstream.as_ref().map(|upstream| &upstream.policy);
        let policy = policy.filter(|policy| asked.is_configured && policy.changes_indexes());
        // When a version was published only the full document says.
        let kind = if policy.is_some() { Kind::Full } else { Kind::of(&request.headers) };
        let recipe = match policy {
            None => recipe(request, asked, name, false, Default::default()),
            Some(policy) => {
                let known = self.known(asked, name, fetcher).await;
                let left_out = known
                    .map(|known| left_out(policy, name, &known, fetcher.now()))
                    .unwrap_or_default();
                recipe(request, asked, name, false, left_out)
            }
        };
        let of = |kind: Kind| asked.site.client(&name.path(), kind.accept());
        let (Some(wanted), Some(other)) = (of(kind), of(kind.other())) else {
            return Resolution::Class(Class::Http);
        };
        // Where the upstream is away, the other document is better than none.
        let own = |request: &Request| Request { method: Method::GET, ..request.clone() };
        if is_absent(fetcher, &wanted).await && !is_absent(fetcher, &other).await {
            let class = document_class(false, None);
            let brought = bring(fetcher, own(&wanted), class, Ask::IfAbsent).await;
            if let Err(ObtainError::Unavailable { .. }) = brought {
                return Resolution::Instead(Box::new(other), document_class(false, recipe));
            }
        }
        let always_ask = is_of_unknown_age(fetcher, &wanted).await;
        Resolution::Instead(Box::new(wanted), document_class(always_ask, recipe))
    }

    /// Answers with the document of one version, or of the one that a tag points at: among those
    /// that the operator wants to be seen.
    async fn version(
        &self,
        request: &Request,
        asked: &Asked<'_>,
        name: &PackageName,
        version: &str,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let policy = request.upstream.as_ref().map(|upstream| &upstream.policy);
        let policy = policy.filter(|policy| asked.is_configured && policy.changes_indexes());
        let Some(policy) = policy else { return version_document(request, asked, name, version) };
        let refused = |status, why: &str| {
            let message = format!("{name} {version}: {why}");
            Resolution::Refused { status, message }
        };
        let Some(known) = self.known(asked, name, fetcher).await else {
            let why = "nothing is known of its versions, and so nothing of their ages";
            return refused(StatusCode::BAD_GATEWAY, why);
        };
        let (_, moved) = left_out(policy, name, &known, fetcher.now());
        let tagged = known.tags.iter().find(|(tag, _)| tag == version);
        let number = match (moved.get(version), tagged) {
            (Some(moved), _) => moved.as_deref(),
            (None, Some((_, number))) => Some(number.as_str()),
            (None, None) => Some(version),
        };
        let found = known.versions.iter().find(|known| Some(known.number.as_str()) == number);
        let Some(found) = found else {
            return refused(StatusCode::NOT_FOUND, "there is no such version to be had");
        };
        match self::refused(policy, name, found, fetcher.now()) {
            Some(why) => refused(StatusCode::FORBIDDEN, why),
            None => version_document(request, asked, name, &found.number),
        }
    }

    /// Returns what the full document says, the only one that has times.
    async fn known(
        &self,
        asked: &Asked<'_>,
        name: &PackageName,
        fetcher: &dyn Fetcher,
    ) -> Option<Arc<Catalogue>> {
        let document = asked.site.own(&name.path(), Kind::Full.accept())?;
        let class = document_class(is_of_unknown_age(fetcher, &document).await, None);
        let brought = bring(fetcher, document, class, Ask::IfStale).await.ok()?;
        self.catalogue(name, &brought.entry, fetcher).await
    }

    async fn tarball(
        &self,
        client: &Request,
        asked: &Asked<'_>,
        name: &PackageName,
        file: &str,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let by_name = asked.site.client(&format!("{name}/-/{file}"), "*/*");
        let Some((entry, version)) = self.version_of(client, asked, name, file, fetcher).await
        else {
            // Nobody vouches for it, but clients have digests of their own.
            return match by_name {
                Some(request) => Resolution::Instead(Box::new(request), Class::immutable()),
                None => Resolution::Class(Class::immutable()),
            };
        };
        let policy = client.upstream.as_ref().map(|upstream| &upstream.policy);
        if let Some(policy) = policy.filter(|_| asked.is_configured) {
            if let Some(message) = refused(policy, name, &version, fetcher.now()) {
                let message = format!("{name} {}: {message}", version.number);
                return Resolution::Refused { status: StatusCode::FORBIDDEN, message };
            }
            if let Some(why) = &version.deprecated
                && policy.withdrawn == Withdrawn::Warn
            {
                tracing::warn!(%name, version = version.number, why, "it is deprecated, and served");
            }
        }
        let request = asked.site.file(&entry.target, &version.tarball).or(by_name);
        let Some(request) = request else { return Resolution::Class(Class::immutable()) };
        let class = match &version.integrity {
            Integrity::Nothing => Class::immutable(),
            Integrity::Strong(digest) => {
                let kept = bring(fetcher, request.clone(), Class::immutable(), Ask::Never).await;
                match kept {
                    // It came before its document did.
                    Ok(kept)
                        if version.integrity.is_of_another_kind(&kept.entry.blob)
                            && self.holds(fetcher, &version.integrity, &kept.entry.blob).await =>
                    {
                        Class::immutable()
                    }
                    _ => {
                        let by = format!("the document of {name} {}", version.number);
                        Class::promised(Promise { digest: digest.clone(), size: None, by })
                    }
                }
            }
            Integrity::Weak(_) => match self.weakly_vouched(&request, &version, fetcher).await {
                Ok(()) => Class::immutable(),
                Err(refused) => return refused,
            },
        };
        Resolution::Instead(Box::new(request), class)
    }

    /// Brings a tarball that only a digest vouches for by which nothing is stored: it is read
    /// before anybody gets a byte.
    async fn weakly_vouched(
        &self,
        request: &Request,
        version: &Version,
        fetcher: &dyn Fetcher,
    ) -> Result<(), Resolution> {
        let own = Request { method: Method::GET, ..request.clone() };
        for ask in [Ask::IfAbsent, Ask::Always] {
            // What cannot be had is for the engine to say.
            let Ok(brought) = bring(fetcher, own.clone(), Class::immutable(), ask).await else {
                return Ok(());
            };
            if self.holds(fetcher, &version.integrity, &brought.entry.blob).await {
                return Ok(());
            }
        }
        let message = format!("{}: the bytes are not what the package's document says", own.target);
        tracing::warn!("{message}");
        Err(Resolution::Refused { status: StatusCode::BAD_GATEWAY, message })
    }

    /// Says whether a blob is what is vouched for. Each is read once.
    async fn holds(&self, fetcher: &dyn Fetcher, integrity: &Integrity, blob: &Digest) -> bool {
        let key = (blob.clone(), format!("{integrity:?}"));
        if self.checked.get(&key).is_some() {
            return true;
        }
        let (root, integrity, blob) = (Arc::clone(fetcher.root()), integrity.clone(), blob.clone());
        let read = tokio::task::spawn_blocking(move || {
            let opened = root.store().open_blocking(&blob).map_err(io::Error::other)?;
            let file = opened.ok_or(io::ErrorKind::NotFound)?;
            integrity.holds(Blob::File(file).into_reader())
        });
        let holds = matches!(read.await, Ok(Ok(true)));
        if holds {
            self.checked.put(key, (), 1);
        }
        holds
    }

    /// Returns what a package's document says of the version that a file is the tarball of.
    async fn version_of(
        &self,
        client: &Request,
        asked: &Asked<'_>,
        name: &PackageName,
        file: &str,
        fetcher: &dyn Fetcher,
    ) -> Option<(Arc<Entry>, Version)> {
        let policy = client.upstream.as_ref().map(|upstream| &upstream.policy);
        // Only the full one has times.
        let first = match policy.is_some_and(Policy::changes_indexes) {
            true => Kind::Full,
            false => Kind::Abbreviated,
        };
        let mut is_kept = false;
        for kind in [first, first.other()] {
            if kind != first && first == Kind::Full {
                break;
            }
            let document = asked.site.own(&name.path(), kind.accept())?;
            let class = document_class(false, None);
            if let Ok(kept) = bring(fetcher, document, class, Ask::Never).await {
                is_kept = true;
                if let Some(found) = self.found(name, file, kept.entry, fetcher).await {
                    return Some(found);
                }
            }
        }
        if !asked.is_configured {
            return None;
        }
        let document = asked.site.own(&name.path(), first.accept())?;
        let ask = if is_kept { Ask::Always } else { Ask::IfAbsent };
        let brought = bring(fetcher, document, document_class(false, None), ask).await.ok()?;
        self.found(name, file, brought.entry, fetcher).await
    }

    async fn found(
        &self,
        name: &PackageName,
        file: &str,
        document: Arc<Entry>,
        fetcher: &dyn Fetcher,
    ) -> Option<(Arc<Entry>, Version)> {
        let catalogue = self.catalogue(name, &document, fetcher).await?;
        let version = catalogue.tarball(file)?.clone();
        Some((document, version))
    }

    async fn catalogue(
        &self,
        name: &PackageName,
        document: &Entry,
        fetcher: &dyn Fetcher,
    ) -> Option<Arc<Catalogue>> {
        if let Some(known) = self.catalogues.get(&document.blob) {
            return Some(known);
        }
        let (root, blob) = (Arc::clone(fetcher.root()), document.blob.clone());
        let name = name.clone();
        let read = tokio::task::spawn_blocking(move || {
            let opened = root.store().open_blocking(&blob).map_err(io::Error::other)?;
            let file = opened.ok_or(io::ErrorKind::NotFound)?;
            Catalogue::read(&name, Blob::File(file).into_reader())
        });
        match read.await.ok()? {
            Ok(catalogue) => {
                let catalogue = Arc::new(catalogue);
                let weight = catalogue.weight();
                self.catalogues.put(document.blob.clone(), Arc::clone(&catalogue), weight);
                Some(catalogue)
            }
            Err(error) => {
                tracing::warn!(target = %document.target, %error, "it is no package's document");
                None
            }
        }
    }
}

/// Returns the versions that the operator wants nobody to see, for now or for good.
fn left_out(policy: &Policy, name: &PackageName, known: &Catalogue, now: Timestamp) -> LeftOut {
    let is_out = |version: &&Version| refused(policy, name, version, now).is_some();
    let without: Vec<String> =
        known.versions.iter().filter(is_out).map(|version| version.number.clone()).collect();
    // > "latest" of what is left: the newest that is no pre-release, by when it was published
    let shown = known.versions.iter().filter(|version| !is_out(version));
    let newest = shown
        .filter(|version| !version.number.contains('-'))
        .max_by_key(|version| version.published)
        .map(|version| version.number.clone());
    let moved = known.tags.iter().filter(|(_, version)| without.contains(version));
    let tags =
        moved.map(|(tag, _)| (tag.clone(), newest.clone().filter(|_| tag == "latest"))).collect();
    (without, tags)
}

/// Says why a version is not to be had, if the operator wants that.
fn refused(
    policy: &Policy,
    name: &PackageName,
    version: &Version,
    now: Timestamp,
) -> Option<&'static str> {
    if policy.holds_back(&name.to_string(), version.published, now) {
        return Some("it is too young to be had (minimum_release_age)");
    }
    let deprecated = version.deprecated.is_some() && policy.withdrawn == Withdrawn::Refuse;
    deprecated.then_some("its authors have deprecated it (withdrawn = \"refuse\")")
}

async fn is_absent(fetcher: &dyn Fetcher, request: &Request) -> bool {
    bring(fetcher, request.clone(), Class::Http, Ask::Never).await.is_err()
}
