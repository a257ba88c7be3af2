//! Python package indexes, for pip, uv and whoever else speaks to them.
//!
//! A project has a page, which is asked for in its richest form and given to each client in the one
//! that it wants, with all files below it: `simple/six/files/six-1.0.whl`. Where a file is upstream,
//! and what its bytes must be, only the page says, and no client: a page that is not here is fetched
//! first.

mod address;
mod catalogue;
mod form;
mod html;
mod page;
mod private;
mod projects;

use std::io::{self, Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Blob;
use boatyard_content::cache::Cache;
use boatyard_oci::Digest;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
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

use address::{Address, ProjectName};
use catalogue::{Catalogue, File};
use page::{Form, Recipe};
use projects::Projects;

/// How many bytes of what pages say are kept in memory.
const MEMORY_BYTES: usize = 32 * 1024 * 1024;
/// The one way in which pages are asked for: of JSON, HTML can be made.
const PAGES: &str = "application/vnd.pypi.simple.v1+json, \
    application/vnd.pypi.simple.v1+html; q=0.2, text/html; q=0.1";
/// A number that grows with each change of an index.
const SERIAL: HeaderName = HeaderName::from_static("x-pypi-last-serial");

/// Python package indexes.
#[derive(Debug)]
pub struct Pypi {
    /// What pages say, by their blobs.
    catalogues: Cache<Digest, Arc<Catalogue>>,
}

/// What a request is for.
struct Asked<'r> {
    site: Site<'r>,
    /// What comes between the site and its projects: `simple/`, or nothing.
    prefix: &'static str,
    address: Address,
}

impl Default for Pypi {
    fn default() -> Pypi {
        Pypi { catalogues: Cache::new(MEMORY_BYTES) }
    }
}

fn is_configured(request: &Request) -> bool {
    let upstream = request.upstream.as_ref();
    upstream.is_some_and(|upstream| upstream.ecosystem.as_deref() == Some("pypi"))
}

fn asked(request: &Request) -> Option<Asked<'_>> {
    let (site, below) = Site::configured(request)?;
    let base = request.upstream.as_ref()?.bases[0].path();
    let (prefix, rest) = match below.strip_prefix("simple/") {
        Some(rest) => ("simple/", rest),
        None if base.ends_with("/simple/") => ("", below),
        None => {
            let project = below.strip_prefix("pypi/")?.strip_suffix("/json")?.split('/').next()?;
            let address = Address::About(ProjectName::parse(project)?);
            return Some(Asked { site, prefix: "", address });
        }
    };
    let address = Address::parse(rest, &request.target.file_name())?;
    Some(Asked { site, prefix, address })
}

/// Says what something is by what it is asked for as, where no index is configured.
fn guessed(request: &Request) -> Option<Class> {
    let path = request.target.path();
    let accepts = request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if path.ends_with('/') && path.contains("/simple/") {
        let mut accepts = accepts;
        let is_page = accepts.any(|accept| accept.contains("application/vnd.pypi.simple."));
        return is_page.then(|| page_class(false, None, vec![ACCEPT]));
    }
    // > /packages/<two digits>/<two>/<sixty>/<file>, the digits being those of a digest
    let (_, packages) = path.rsplit_once("/packages/")?;
    let segments: Vec<&str> = packages.split('/').collect();
    let [one, two, rest, _] = segments[..] else { return None };
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(one, 2) && hex(two, 2) && hex(rest, 60)).then(Class::immutable)
}

fn page_class(always_ask: bool, recipe: Option<String>, varies: Vec<HeaderName>) -> Class {
    Class::Mutable(Mutable { always_ask, recipe, varies, serial: Some(SERIAL) })
}

#[async_trait]
impl Ecosystem for Pypi {
    fn name(&self) -> &'static str {
        "pypi"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        if is_configured(request) {
            return asked(request).map(|_| Classified::Resolve);
        }
        guessed(request).map(Classified::As)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let Some(asked) = asked(request) else { return Resolution::Class(Class::Http) };
        if let Some(hosted) =
            request.upstream.as_ref().and_then(|upstream| upstream.hosted.as_ref())
            && let Some(private) = read_private(request, hosted, &asked.address)
        {
            return private;
        }
        match &asked.address {
            Address::Root => projects_page(request, &asked),
            Address::About(_) => Resolution::Class(page_class(false, None, Vec::new())),
            Address::Misspelt(name) => match asked.site.seen() {
                Some(seen) => {
                    Resolution::Moved(format!("{seen}/{}{}/", asked.prefix, name.as_str()))
                }
                None => Resolution::Class(Class::Http),
            },
            Address::Project(name) => self.page(request, &asked, name, fetcher).await,
            Address::File(name, file) => self.file(request, &asked, name, file, fetcher).await,
        }
    }

    async fn explain(&self, request: &Request, _: Timestamp) -> Explained {
        let Some(asked) = asked(request) else { return Explained::default() };
        let (class, note) = match &asked.address {
            Address::Root => {
                (page_class(false, None, Vec::new()), "the names of all projects".to_owned())
            }
            Address::About(_) => {
                (page_class(false, None, Vec::new()), "what is known of a project".to_owned())
            }
            Address::Misspelt(name) => {
                (Class::Http, format!("leads to the page of {}", name.as_str()))
            }
            Address::Project(name) => {
                (page_class(false, None, Vec::new()), format!("the page of {}", name.as_str()))
            }
            Address::File(name, file) => {
                let name = name.as_str();
                let note = format!("{file}, wherever the page of {name} says that it is, and what");
                (Class::immutable(), note)
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
        let kind = match serde_json::from_str::<Projects>(recipe) {
            Ok(projects) => projects.render(from, to)?,
            Err(_) => page::render(&serde_json::from_str::<Recipe>(recipe)?, from, to)?,
        };
        let mut changed = HeaderMap::new();
        changed.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        changed.insert(VARY, HeaderValue::from_static("Accept"));
        Ok(changed)
    }

    fn receives(&self, request: &Request) -> bool {
        let below = Site::configured(request).map(|(_, below)| below);
        request.method == Method::POST && matches!(below, Some("" | "legacy" | "legacy/"))
    }

    fn receive(&self, request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
        private::receive(request, hosted, upload)
    }
}

/// Answers with the names of all projects: the upstream's as they are, or private ones beside them.
fn projects_page(request: &Request, asked: &Asked<'_>) -> Resolution {
    let as_it_is = Resolution::Class(page_class(false, None, vec![ACCEPT]));
    let hosted = request.upstream.as_ref().and_then(|upstream| upstream.hosted.as_ref());
    let Some(hosted) = hosted.filter(|_| asked.site.seen().is_some()) else { return as_it_is };
    if hosted.is_alone() && !request.admitted.reads {
        return Resolution::Reply(Reply::unauthorized());
    }
    let own = projects::of(request, hosted);
    let projects = Projects { form: Form::of(&request.headers), own };
    if hosted.is_alone() {
        return Resolution::Reply(projects.reply());
    }
    match asked.site.client(asked.prefix, PAGES) {
        Some(request) => {
            let class = page_class(false, Some(projects.text()), Vec::new());
            Resolution::Instead(Box::new(request), class)
        }
        None => as_it_is,
    }
}

/// Answers for a private project; `None` where it is none.
fn read_private(request: &Request, hosted: &Hosted, address: &Address) -> Option<Resolution> {
    let (Address::Project(name)
    | Address::Misspelt(name)
    | Address::File(name, _)
    | Address::About(name)) = address
    else {
        return None;
    };
    if !hosted.is_private(name.as_str()) {
        return None;
    }
    let absent = || {
        let message = format!("nothing is published here as {}", name.as_str());
        Resolution::Reply(Reply::text(StatusCode::NOT_FOUND, &message))
    };
    let package = match hosted.package(request, name.as_str()) {
        Seen::Hidden => return Some(Resolution::Reply(Reply::unauthorized())),
        Seen::Absent => return Some(absent()),
        Seen::There(package) => package,
    };
    Some(match address {
        Address::Project(_) => {
            Resolution::Reply(private::read_page(&package, Form::of(&request.headers)))
        }
        // Its right spelling is found as that of any other.
        Address::Misspelt(_) if request.base.is_some() => return None,
        Address::File(_, file) => package.file(file).map_or_else(absent, |file| {
            Resolution::Blob(Resolved::private(file, "application/octet-stream"))
        }),
        _ => absent(),
    })
}

impl Pypi {
    async fn page(
        &self,
        request: &Request,
        asked: &Asked<'_>,
        name: &ProjectName,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let path = format!("{}{}/", asked.prefix, name.as_str());
        if asked.site.seen().is_none() {
            // Who uses us as a forward proxy fetches the files where the page says.
            return Resolution::Class(page_class(false, None, vec![ACCEPT]));
        }
        let Some(client) = asked.site.client(&path, PAGES) else {
            return Resolution::Class(Class::Http);
        };
        let always_ask = is_of_unknown_age(fetcher, &client).await;
        let without = self.left_out(request, asked, &path, name, fetcher).await;
        let recipe = Recipe { form: Form::of(&request.headers), without }.text();
        Resolution::Instead(Box::new(client), page_class(always_ask, Some(recipe), Vec::new()))
    }

    /// Returns the files that the operator wants nobody to see, for now or for good.
    async fn left_out(
        &self,
        request: &Request,
        asked: &Asked<'_>,
        path: &str,
        name: &ProjectName,
        fetcher: &dyn Fetcher,
    ) -> Vec<String> {
        let policy = request.upstream.as_ref().map(|upstream| &upstream.policy);
        let Some(policy) = policy.filter(|policy| policy.changes_indexes()) else {
            return Vec::new();
        };
        let Some(page) = asked.site.own(path, PAGES) else { return Vec::new() };
        let class = page_class(is_of_unknown_age(fetcher, &page).await, None, Vec::new());
        let Ok(page) = bring(fetcher, page, class, Ask::IfStale).await else { return Vec::new() };
        let Some(catalogue) = self.catalogue(&page.entry, fetcher).await else { return Vec::new() };
        let now = fetcher.now();
        let files =
            catalogue.files().filter(|(_, file)| refused(policy, name, file, now).is_some());
        let mut without: Vec<String> = files.map(|(file, _)| file.clone()).collect();
        without.sort();
        without
    }

    async fn file(
        &self,
        request: &Request,
        asked: &Asked<'_>,
        project: &ProjectName,
        name: &str,
        fetcher: &dyn Fetcher,
    ) -> Resolution {
        let path = format!("{}{}/", asked.prefix, project.as_str());
        let Some(page) = asked.site.own(&path, PAGES) else {
            return Resolution::Class(Class::Http);
        };
        let mut status = StatusCode::NOT_FOUND;
        let mut reason = format!("the page of {} names no such file", project.as_str());
        // A page that is kept may be older than what the client read.
        for ask in [Ask::Never, Ask::IfAbsent, Ask::Always] {
            let class = page_class(false, None, Vec::new());
            let entry = match bring(fetcher, page.clone(), class, ask).await {
                Ok(brought) => brought.entry,
                Err(error) => {
                    if ask == Ask::IfAbsent {
                        status = match &error {
                            ObtainError::Answered { status, .. } if status.is_client_error() => {
                                StatusCode::NOT_FOUND
                            }
                            ObtainError::Forbidden { .. } => StatusCode::FORBIDDEN,
                            _ => StatusCode::BAD_GATEWAY,
                        };
                        reason = error.to_string();
                        break;
                    }
                    continue;
                }
            };
            let Some(catalogue) = self.catalogue(&entry, fetcher).await else { break };
            let policy = request.upstream.as_ref().map(|upstream| &upstream.policy);
            let file = catalogue.get(name.strip_suffix(".metadata").unwrap_or(name));
            if let Some((policy, file)) = policy.zip(file) {
                if let Some(message) = refused(policy, project, file, fetcher.now()) {
                    let message = format!("{name}: {message}");
                    return Resolution::Refused { status: StatusCode::FORBIDDEN, message };
                }
                if file.is_yanked && policy.withdrawn == Withdrawn::Warn {
                    tracing::warn!(file = name, "it was yanked by its authors, and is served");
                }
            }
            if let Some(found) = found(asked, &entry, &catalogue, name) {
                return found;
            }
        }
        let message = format!("{name}: {reason}");
        Resolution::Refused { status, message }
    }

    async fn catalogue(&self, page: &Entry, fetcher: &dyn Fetcher) -> Option<Arc<Catalogue>> {
        if let Some(known) = self.catalogues.get(&page.blob) {
            return Some(known);
        }
        let (root, blob) = (Arc::clone(fetcher.root()), page.blob.clone());
        let read = tokio::task::spawn_blocking(move || {
            let opened = root.store().open_blocking(&blob).map_err(io::Error::other)?;
            let file = opened.ok_or(io::ErrorKind::NotFound)?;
            Catalogue::read(Blob::File(file).into_reader())
        });
        match read.await.ok()? {
            Ok(catalogue) => {
                let catalogue = Arc::new(catalogue);
                let weight = catalogue.weight();
                self.catalogues.put(page.blob.clone(), Arc::clone(&catalogue), weight);
                Some(catalogue)
            }
            Err(error) => {
                tracing::warn!(target = %page.target, %error, "it is no project's page");
                None
            }
        }
    }
}

/// Says why a file is not to be had, if the operator wants that.
fn refused(
    policy: &Policy,
    name: &ProjectName,
    file: &File,
    now: Timestamp,
) -> Option<&'static str> {
    if policy.holds_back(name.as_str(), file.uploaded, now) {
        return Some("it is too young to be had (minimum_release_age)");
    }
    let yanked = file.is_yanked && policy.withdrawn == Withdrawn::Refuse;
    yanked.then_some("it was yanked by its authors (withdrawn = \"refuse\")")
}

/// Returns where a file is, or the `.metadata` beside one, and what its bytes must be.
fn found(asked: &Asked<'_>, page: &Entry, catalogue: &Catalogue, name: &str) -> Option<Resolution> {
    let (file, suffix) = match catalogue.get(name) {
        Some(file) => (file, ""),
        None => (catalogue.get(name.strip_suffix(".metadata")?)?, ".metadata"),
    };
    let File { url, digest, metadata, .. } = file;
    let digest = if suffix.is_empty() { digest } else { metadata };
    let (path, query) = url.split_at(url.find('?').unwrap_or(url.len()));
    let url = format!("{path}{suffix}{query}");
    let url = match &catalogue.base {
        None => url,
        Some(base) => page.target.url().join(base).ok()?.join(&url).ok()?.to_string(),
    };
    let request = asked.site.file(&page.target, &url)?;
    let class = match digest {
        None => Class::immutable(),
        Some(digest) => {
            let by = format!("the page {}", page.target);
            Class::promised(Promise { digest: digest.clone(), size: None, by })
        }
    };
    Some(Resolution::Instead(Box::new(request), class))
}
