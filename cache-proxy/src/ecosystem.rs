//! What the engine does not know and an ecosystem does: which targets never change, what vouches
//! for them, which must agree with one another.

pub mod apk;
pub mod apt;
pub mod cargo;
pub mod gem;
pub mod go;
mod index;
mod json;
pub mod maven;
pub mod npm;
pub mod pypi;
pub mod rpm;
mod site;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_content::packages::PackageFile;
use boatyard_oci::Digest;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::class::Class;
use crate::entry::Entry;
use crate::hosted::{Hosted, Upload};
use crate::reply::Reply;
use crate::request::Request;
use crate::statistics::Outcome;
use crate::target::Target;

/// The knowledge of one kind of package archive.
///
/// For each request, the engine asks its ecosystems in order; the first that says something of the
/// target decides. An ecosystem never touches a connection: it classifies, has the engine fetch
/// what it needs through a [`Fetcher`], and says which bytes are the answer.
///
/// Laws:
/// - [`Ecosystem::classify`] is quick: it looks at what is in memory, never at a file.
/// - What [`Ecosystem::resolve`] answers with is a blob that a file of the ecosystem holds, or
///   that an entry does.
/// - A blob in [`Ecosystem::needed`] is never evicted; the ecosystem gives up what it no longer
///   needs by itself.
#[async_trait]
pub trait Ecosystem: fmt::Debug + Send + Sync {
    /// Returns its name, as configurations and statistics have it: `apt`.
    fn name(&self) -> &'static str;

    /// Says what a target is; `None` where it is none of this ecosystem's.
    fn classify(&self, request: &Request) -> Option<Classified>;

    /// Answers for a target that [`Classified::Resolve`] was said of.
    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let _ = (request, fetcher);
        Resolution::Class(Class::Http)
    }

    /// Explains what it would say of a target that [`Classified::Resolve`] was said of. Nothing is
    /// fetched for that.
    async fn explain(&self, request: &Request, now: Timestamp) -> Explained {
        let _ = (request, now);
        Explained::default()
    }

    /// Hears that the bytes of a target are kept: a new version of an index, for example. Called
    /// once for each version, after it is durable.
    async fn kept(&self, entry: &Arc<Entry>, fetcher: &dyn Fetcher) {
        let _ = (entry, fetcher);
    }

    /// Makes what clients get of what the upstream has, by a recipe of [`crate::Mutable`], and
    /// returns the headers that differ from the upstream's. Blocking.
    ///
    /// # Errors
    /// Where the upstream's bytes make no sense: then they are passed on as they are.
    fn render(
        &self,
        recipe: &str,
        from: &mut dyn Read,
        to: &mut dyn Write,
    ) -> io::Result<HeaderMap> {
        let _ = recipe;
        io::copy(from, to)?;
        Ok(HeaderMap::new())
    }

    /// Says whether a request that is neither GET nor HEAD changes private packages, or asks
    /// something about them: then [`Ecosystem::receive`] answers it. Asked only of upstreams that
    /// host packages ([`crate::Upstream::hosted`]); what is not received passes to the upstream,
    /// where there is one. Quick.
    fn receives(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// Answers a request that it receives: publishes what was sent, withdraws, removes.
    ///
    /// The client is known by then (401 otherwise: [`Ecosystem::refusal`] says it), the body is on
    /// disk. What the client may do with which package is asked of [`Hosted::publish`] and its kin,
    /// once the package's name is read. Blocking.
    fn receive(&self, request: &Request, hosted: &Hosted, upload: &Upload) -> Reply {
        let _ = (request, hosted, upload);
        self.refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing is published in this way")
    }

    /// Says why there is nothing, as its clients show it: a line of text, where they have no form
    /// of their own.
    fn refusal(&self, status: StatusCode, message: &str) -> Reply {
        Reply::text(status, message)
    }

    /// Returns the blobs that must stay however long nobody asks for them. Blocking.
    fn needed(&self) -> HashSet<Digest> {
        HashSet::new()
    }
}

/// What an ecosystem says of a target at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classified {
    /// It is of this class.
    As(Class),
    /// [`Ecosystem::resolve`] has to say.
    Resolve,
}

/// The answer of [`Ecosystem::explain`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// What the target is, where the engine would answer for it.
    pub class: Option<Class>,
    /// What there is to know, a line each.
    pub notes: Vec<String>,
}

/// The answer of [`Ecosystem::resolve`].
#[derive(Clone, Debug)]
pub enum Resolution {
    /// The engine answers, as for this class.
    Class(Class),
    /// The engine answers as if the client had asked this: the one form of many spellings, or the
    /// place upstream of a file that clients see below our own address. Where it does not lie below
    /// its upstream, it belongs to the one that it lies below, if any.
    Instead(Box<Request>, Class),
    /// It is at this address, a URL or an absolute path as the client sees it.
    Moved(String),
    /// These bytes are the answer.
    Blob(Resolved),
    /// This is the answer, made here. It is not kept.
    Reply(Reply),
    /// There is none.
    Refused {
        /// The status.
        status: StatusCode,
        /// What happened, why, and what to do; one line for people.
        message: String,
    },
}

/// A blob that answers a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Which.
    pub blob: Digest,
    /// The headers of the answer: `ETag`, `Last-Modified`, `Content-Type`. What follows from the
    /// blob (its length) and from the request (ranges, 304) is added.
    pub headers: HeaderMap,
    /// How old it is, where it is served instead of something newer.
    pub stale: Option<Duration>,
    /// How it came about, where it is not stale.
    pub outcome: Outcome,
}

impl Resolved {
    /// Returns a file of a private package, of a media type: its bytes never change.
    pub fn private(file: &PackageFile, kind: &'static str) -> Resolved {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", file.blob.hex())) {
            headers.insert(ETAG, tag);
        }
        Resolved { blob: file.blob.clone(), headers, stale: None, outcome: Outcome::Hit }
    }
}

/// What an ecosystem fetches with.
#[async_trait]
pub trait Fetcher: fmt::Debug + Send + Sync {
    /// Brings a target: from what is kept, from a transfer that is under way, or from the
    /// upstream. Returns when its bytes are kept.
    async fn obtain(&self, wanted: &Obtain) -> Result<Obtained, ObtainError>;

    /// Returns the root, with the store of all blobs.
    fn root(&self) -> &Arc<Root>;

    /// Returns itself for work that goes on when the request has its answer; `None` where nothing
    /// is to go on.
    fn share(&self) -> Option<Arc<dyn Fetcher>> {
        None
    }

    /// Returns the time.
    fn now(&self) -> Timestamp;
}

/// What is to be brought, and how.
#[derive(Clone, Debug)]
pub struct Obtain {
    /// The request that it is brought for, or as if for: its target, headers and upstream count.
    pub request: Request,
    /// What the target is; its promise is held to.
    pub class: Class,
    /// Whether the upstream is asked.
    pub ask: Ask,
}

/// Whether the upstream is asked for what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Not at all: what is kept, or nothing.
    Never,
    /// Where nothing is kept.
    IfAbsent,
    /// Where what is kept is not fresh.
    IfStale,
    /// In any case; with the validators of what is kept.
    Always,
}

/// What was brought.
#[derive(Clone, Debug)]
pub struct Obtained {
    /// What is kept.
    pub entry: Arc<Entry>,
    /// The upstream was to be asked and could not be: this is what it said before.
    pub stale: bool,
}

/// Why something could not be brought.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObtainError {
    /// The upstream answered with something else than the bytes: 404, for example.
    #[error("{target}: the upstream answered {status}")]
    Answered {
        /// What was asked for.
        target: Target,
        /// The status.
        status: StatusCode,
    },
    /// The upstream could not be reached, broke off, or gave wrong bytes, and nothing is kept.
    #[error("{target}: {reason}")]
    Unavailable {
        /// What was asked for.
        target: Target,
        /// Why.
        reason: String,
    },
    /// The answer may not be kept.
    #[error("{target}: the answer may not be kept: {reason}")]
    NotKept {
        /// What was asked for.
        target: Target,
        /// Why.
        reason: String,
    },
    /// It may not be asked for: an address, a port or a host that is not allowed.
    #[error("{target}: {reason}")]
    Forbidden {
        /// What was asked for.
        target: Target,
        /// Why.
        reason: String,
    },
}
