//! The upstream's side of a flight: where to ask, with what, and who rests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use boatyard_upstream::Credential;
use boatyard_upstream::http::HttpSource;
use boatyard_upstream::transfer::{Arrival, Missing, Source, SourceError};
use http::header::{AUTHORIZATION, VIA};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use url::Url;

use super::Engine;
use super::judge::{Judge, Question, Settled};
use crate::headers;
use crate::request::Request;
use crate::upstreams::Upstream;

/// Servers that failed, and until when they are left alone.
#[derive(Debug, Default)]
pub(super) struct Resting {
    until: Mutex<HashMap<String, Timestamp>>,
}

impl Resting {
    fn is_resting(&self, server: &str, now: Timestamp) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(server).is_some_and(|until| now < *until)
    }

    fn rest(&self, server: &str, until: Timestamp, now: Timestamp) {
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, until| now < *until);
        all.insert(server.to_owned(), until);
    }

    fn wake(&self, server: &str) {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }
}

/// Returns the server of a URL: scheme, host and port.
fn server(url: &Url) -> String {
    url.origin().ascii_serialization()
}

impl Engine {
    /// Returns the URLs that a request may be answered from, the first to be asked first.
    pub(super) fn urls(&self, request: &Request) -> Vec<Url> {
        let url = request.target.url().clone();
        let Some(upstream) = &request.upstream else { return vec![url] };
        let Some(below) = upstream.below(&request.target) else { return vec![url] };
        let urls = upstream.bases.iter().filter_map(|base| format!("{base}{below}").parse().ok());
        urls.collect()
    }

    /// Returns a request with the upstream that its target lies below: what one is shown is none
    /// of another's business.
    pub(super) fn placed(&self, request: Request) -> Request {
        let upstream = request.upstream.as_ref();
        if upstream.is_some_and(|upstream| upstream.below(&request.target).is_some()) {
            return request;
        }
        let settings = self.settings();
        let (upstream, target) = match settings.upstreams.of(&request.target) {
            Some((upstream, below)) => (Some(Arc::clone(upstream)), below),
            None => (None, request.target.clone()),
        };
        Request { target, upstream, ..request }
    }

    /// Returns headers as the upstream gets them: with what we show it, and our name.
    pub(super) fn dressed(&self, request: &Request, mut headers: HeaderMap) -> HeaderMap {
        headers.append(VIA, self.shared.via.clone());
        if let Some(value) = request.upstream.as_deref().and_then(authorization) {
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// Says whether all servers of a request are resting.
    pub(super) fn rests(&self, request: &Request) -> bool {
        let now = self.shared.options.clock.now();
        let rests = |url: &Url| self.shared.resting.is_resting(&server(url), now);
        self.urls(request).iter().all(rests)
    }

    /// Notes that a server gave no answer, or gave one again.
    pub(super) fn note_answer(&self, url: &Url, answered: bool) {
        let (now, resting) = (self.shared.options.clock.now(), &self.shared.resting);
        if answered {
            resting.wake(&server(url));
        } else if let Ok(until) = now.checked_add(self.shared.options.rest_for) {
            resting.rest(&server(url), until, now);
        }
    }

    /// Returns what a transfer fetches from.
    pub(super) fn sources(
        &self,
        question: &Arc<Question>,
        settled: &Arc<Settled>,
    ) -> Vec<Arc<dyn Source>> {
        let request = &question.request;
        let urls = self.urls(request);
        let now = self.shared.options.clock.now();
        let (resting, awake): (Vec<_>, Vec<_>) =
            urls.into_iter().partition(|url| self.shared.resting.is_resting(&server(url), now));
        // Who rests is asked after all others, and if only because there is nobody else.
        let order: Vec<Url> = awake.into_iter().chain(resting).collect();
        let count = order.len();
        let mut headers = self.dressed(request, headers::shared(&request.headers));
        headers.extend(question.conditions());
        let options = &self.shared.options;
        let transport = &self.settings().transport;
        let source = |(at, url): (usize, Url)| {
            let judge = Judge {
                question: Arc::clone(question),
                settled: Arc::clone(settled),
                is_last: at + 1 == count,
                room: Arc::clone(&self.shared.root),
                clock: Arc::clone(&options.clock),
            };
            let name = server(&url);
            let source = HttpSource {
                transport: Arc::clone(transport),
                url: url.clone(),
                headers: headers.clone(),
                name,
                retry: options.retry.clone(),
                clock: Arc::clone(&options.clock),
                trusts_close: false,
                judge: Some(Arc::new(judge)),
            };
            let engine = self.clone();
            Arc::new(Gate { source, engine, settled: Arc::clone(settled) }) as Arc<dyn Source>
        };
        order.into_iter().enumerate().map(source).collect()
    }
}

/// One base of an upstream, as long as no other has settled the question.
#[derive(Debug)]
struct Gate {
    source: HttpSource,
    engine: Engine,
    settled: Arc<Settled>,
}

#[async_trait]
impl Source for Gate {
    fn upstream(&self) -> &str {
        self.source.upstream()
    }

    async fn fetch(&self, missing: &Missing) -> Result<Arrival, SourceError> {
        if self.settled.is_settled() {
            return Err(SourceError::Refused("another upstream has answered".into()));
        }
        self.settled.begin(self.engine.shared.options.clock.now());
        let fetched = self.source.fetch(missing).await;
        let answered = !matches!(&fetched, Err(SourceError::Interrupted(_)));
        self.engine.note_answer(&self.source.url, answered);
        fetched
    }
}

fn authorization(upstream: &Upstream) -> Option<HeaderValue> {
    use base64::Engine as _;
    let text = match upstream.credential.as_ref()? {
        // > "the token is sent as is in the Authorization header" (after The Cargo Book): some
        // > registries' tokens begin with `Bearer`, others' do not.
        Credential::RegistryToken { token } if upstream.ecosystem.as_deref() == Some("cargo") => {
            token.expose().to_owned()
        }
        Credential::Password { user, password } => {
            let pair = format!("{user}:{}", password.expose());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Credential::RegistryToken { token } | Credential::IdentityToken { token } => {
            format!("Bearer {}", token.expose())
        }
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
