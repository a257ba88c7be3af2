//! Python package indexes, for pip, uv and whoever else speaks to them.
//!
//! A project has a page, which is asked for in its richest form and given to each client in the one
//! that it wants, with all files below it: `simple/six/files/six-1.0.whl`. Where a file is upstream,
//! and what its bytes must be, only the page says, and no client: a page that is not here is fetched
//! first.

mod address;
mod catalogue;
mod html;
mod page;

use std::io::{self, Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Blob;
use boatyard_content::cache::Cache;
use boatyard_oci::Digest;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::class::{Class, Mutable, Promise};
use crate::ecosystem::site::{Site, bring, is_of_unknown_age};
use crate::ecosystem::{Ask, Classified, Ecosystem, Explained, Fetcher, ObtainError, Resolution};
use crate::entry::Entry;
use crate::request::Request;

use address::{Address, ProjectName};
use catalogue::{Catalogue, File};
use page::Form;

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
            let is_about = below.starts_with("pypi/") && below.ends_with("/json");
            return is_about.then_some(Asked { site, prefix: "", address: Address::About });
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
        match &asked.address {
            Address::Root => Resolution::Class(page_class(false, None, vec![ACCEPT])),
            Address::About => Resolution::Class(page_class(false, None, Vec::new())),
            Address::Misspelt(name) => match asked.site.seen() {
                Some(seen) => {
                    Resolution::Moved(format!("{seen}/{}{}/", asked.prefix, name.as_str()))
                }
                None => Resolution::Class(Class::Http),
            },
            Address::Project(name) => page(request, &asked, name, fetcher).await,
            Address::File(name, file) => self.file(&asked, name, file, fetcher).await,
        }
    }

    async fn explain(&self, request: &Request, _: Timestamp) -> Explained {
        let Some(asked) = asked(request) else { return Explained::default() };
        let (class, note) = match &asked.address {
            Address::Root => {
                (page_class(false, None, Vec::new()), "the names of all projects".to_owned())
            }
            Address::About => {
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
        let form = Form::ALL.into_iter().find(|form| form.name() == recipe);
        let form = form.ok_or_else(|| io::Error::other("there is no such form of a page"))?;
        let kind = page::render(form, from, to)?;
        let mut changed = HeaderMap::new();
        changed.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        changed.insert(VARY, HeaderValue::from_static("Accept"));
        Ok(changed)
    }
}

async fn page(
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
    let recipe = Form::of(&request.headers).name().to_owned();
    Resolution::Instead(Box::new(client), page_class(always_ask, Some(recipe), Vec::new()))
}

impl Pypi {
    async fn file(
        &self,
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

/// Returns where a file is, or the `.metadata` beside one, and what its bytes must be.
fn found(asked: &Asked<'_>, page: &Entry, catalogue: &Catalogue, name: &str) -> Option<Resolution> {
    let (file, suffix) = match catalogue.get(name) {
        Some(file) => (file, ""),
        None => (catalogue.get(name.strip_suffix(".metadata")?)?, ".metadata"),
    };
    let File { url, digest, metadata } = file;
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
