//! The transport: one HTTP request out, one answer in.
//!
//! It owns the connections (one pool per host that has certificates of its own, one for all
//! others), follows redirects by hand, and watches that bytes keep moving. It knows nothing of
//! tokens or retries: an `Authorization` header is put on by the caller and taken off here as soon
//! as a redirect leaves the origin (scheme, host and port) it was meant for. Bodies are passed on
//! as they come: nothing is decompressed, for digests name the bytes on the wire.

pub mod exchange;

mod tunnel;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, COOKIE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::{Host, Url};

use crate::guard::{self, Denied, Guard};
use crate::redact::url_without_secrets;
use crate::tls::{HostTls, TlsError, Trust};

pub use exchange::{Incoming, Outgoing, Payload};

/// The most redirects that one request follows.
const REDIRECTS_MAX: usize = 5;

/// How long to wait for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, with its TLS handshake.
    pub connect: Duration,
    /// For the first byte of an answer, and between two pieces of a body, in either direction.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { connect: Duration::from_secs(15), idle: Duration::from_secs(60) }
    }
}

/// Whether the proxies that the system's settings name are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyUse {
    /// They are, except for this machine itself.
    #[default]
    System,
    /// They are not.
    Never,
}

/// A request that got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host cannot be one.
    #[error("`{host}` is no address")]
    Address {
        /// The host.
        host: String,
        /// Why not.
        #[source]
        source: url::ParseError,
    },
    /// Its connection could not be set up as configured.
    #[error("the connection to `{host}` cannot be set up")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// No connection, or it broke.
    #[error("{method} {url} failed")]
    Exchange {
        /// The method.
        method: Method,
        /// The URL, without its query.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing moved for too long.
    #[error("{method} {url}: nothing came for {} s", after.as_secs())]
    Idle {
        /// The method.
        method: Method,
        /// The URL, without its query.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects to {target}, which is not followed: {reason}")]
    Redirect {
        /// The URL that answered, without its query.
        url: String,
        /// Where it points, without its query.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// It may not be asked for.
    #[error("{url} may not be asked for")]
    Denied {
        /// The URL, without its query.
        url: String,
        /// Why not.
        #[source]
        source: Denied,
    },
    /// The body of a request could not be read.
    #[error("{method} {url}: what was to be sent cannot be read")]
    Payload {
        /// The method.
        method: Method,
        /// The URL, without its query.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An answer is longer than such an answer can be.
    #[error("{url}: the answer has more than {most} bytes")]
    TooLong {
        /// The URL, without its query.
        url: String,
        /// The limit.
        most: usize,
    },
}

impl TransportError {
    /// Says whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            TransportError::Exchange { source, .. } => {
                !is_certificate(source) && guard::denied(source).is_none()
            }
            TransportError::Idle { .. } => true,
            TransportError::Address { .. }
            | TransportError::Tls { .. }
            | TransportError::Redirect { .. }
            | TransportError::Denied { .. }
            | TransportError::Payload { .. }
            | TransportError::TooLong { .. } => false,
        }
    }
}

/// Says whether a connection failed for a reason that waiting does not mend: the TLS handshake.
fn is_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An io::Error shows what its content has for a source, but not the content.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| is_certificate(inner)) || error.source().is_some_and(is_certificate)
}

/// What of an [`Outgoing`] goes out again after a redirect. Its payload cannot be shared between
/// threads, this can.
struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    unchecked: bool,
}

/// The connections of this process to other servers.
#[derive(Debug)]
pub struct Transport {
    trust: Trust,
    timeouts: Timeouts,
    user_agent: HeaderValue,
    proxy: ProxyUse,
    guard: Option<Arc<Guard>>,
    parent: Option<Url>,
    pools: Mutex<HashMap<Pool, reqwest::Client>>,
}

/// What tells pools apart. Hosts without anything of their own share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pool {
    host: Option<String>,
    plain: bool,
    unchecked: bool,
    direct: bool,
}

impl Transport {
    /// Returns a transport without connections.
    pub fn new(
        trust: Trust,
        timeouts: Timeouts,
        user_agent: HeaderValue,
        proxy: ProxyUse,
    ) -> Transport {
        let (guard, parent, pools) = (None, None, Mutex::default());
        Transport { trust, timeouts, user_agent, proxy, guard, parent, pools }
    }

    /// Asks only for what a guard allows.
    #[must_use]
    pub fn guarded(mut self, guard: Arc<Guard>) -> Transport {
        self.guard = Some(guard);
        self
    }

    /// Asks through another proxy, which resolves names itself.
    #[must_use]
    pub fn through(mut self, parent: Url) -> Transport {
        self.parent = Some(parent);
        self
    }

    /// Sends a request, follows redirects, and returns the answer as soon as its head is there,
    /// whatever its status.
    ///
    /// GET and HEAD follow every redirect; other methods follow 307 and 308 where their payload
    /// can be sent again.
    ///
    /// # Errors
    /// Where there is no answer, or it is a redirect that may not be followed.
    pub async fn send(&self, request: Outgoing) -> Result<Incoming, TransportError> {
        let Outgoing { method, url, headers, payload, unchecked } = request;
        let mut request = Request { method, url, headers, unchecked };
        let again = payload.again();
        let mut answer = self.exchange(&request, payload).await?;
        for _ in 0..REDIRECTS_MAX {
            let Some(target) = redirect_target(&request, &answer, again.is_some())? else {
                return Ok(answer);
            };
            if target.origin() != request.url.origin() {
                request.headers.remove(AUTHORIZATION);
                request.headers.remove(COOKIE);
                request.unchecked = false;
            }
            request.url = target;
            let payload = again.as_ref().and_then(Payload::again).unwrap_or(Payload::Empty);
            answer = self.exchange(&request, payload).await?;
        }
        match redirect_target(&request, &answer, again.is_some())? {
            None => Ok(answer),
            Some(target) => Err(refuse(&request.url, &target, "there were too many redirects")),
        }
    }

    async fn exchange(
        &self,
        request: &Request,
        payload: Payload,
    ) -> Result<Incoming, TransportError> {
        if let Some(guard) = &self.guard {
            guard.check(&request.url).map_err(|source| TransportError::Denied {
                url: url_without_secrets(&request.url),
                source,
            })?;
        }
        let client = self.client(&request.url, request.unchecked)?;
        let (body, progress) = payload.into_body(&request.method, &request.url);
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some((body, length)) = body {
            builder = builder.header(CONTENT_LENGTH, length).body(body);
        }
        let head = progress.watch(self.timeouts.idle, builder.send()).await;
        exchange::incoming(request, head, self.timeouts.idle)
    }

    fn client(&self, url: &Url, unchecked: bool) -> Result<reqwest::Client, TransportError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let setup = |source| TransportError::Tls { host: host.clone(), source };
        let mut tls = HostTls { unchecked, ..HostTls::default() };
        let plain = url.scheme() != "https";
        let mut pool = Pool { host: None, plain, unchecked, direct: is_local(url) };
        if !plain {
            let names = host_names(url);
            tls = HostTls { unchecked, ..self.trust.for_host(&names).map_err(setup)? };
            let common = tls.authorities == self.trust.authorities && tls.identity.is_none();
            pool.host = (!common).then(|| names.join(" "));
        }
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = pools.get(&pool) {
            return Ok(client.clone());
        }
        let client = self.build(&pool, &tls).map_err(setup)?;
        pools.insert(pool, client.clone());
        Ok(client)
    }

    fn build(&self, pool: &Pool, tls: &HostTls) -> Result<reqwest::Client, TlsError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.timeouts.connect)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_adaptive_window(true)
            .user_agent(self.user_agent.clone());
        match &self.parent {
            Some(parent) => {
                let parent = reqwest::Proxy::all(parent.clone()).map_err(TlsError::Build)?;
                builder = builder.proxy(parent);
            }
            None if pool.direct || self.proxy == ProxyUse::Never => builder = builder.no_proxy(),
            None => {}
        }
        if let Some(guard) = self.guard.as_ref().filter(|_| self.parent.is_none()) {
            builder = builder.dns_resolver(Arc::new(Guarded(Arc::clone(guard))));
        }
        // Plain HTTP has to work where no authorities are installed.
        builder = if pool.plain { builder.tls_certs_only([]) } else { tls.apply(builder)? };
        builder.build().map_err(TlsError::Build)
    }
}

/// A guard as the resolver of a client: it connects to the addresses that were checked.
struct Guarded(Arc<Guard>);

impl reqwest::dns::Resolve for Guarded {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let found = guard.addresses(name.as_str()).await?;
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as reqwest::dns::Addrs)
        })
    }
}

/// Returns where an answer sends us, where it does and we go.
fn redirect_target(
    request: &Request,
    answer: &Incoming,
    repeatable: bool,
) -> Result<Option<Url>, TransportError> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let followed = match answer.status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => reads,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => reads || repeatable,
        _ => false,
    };
    let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let Some(location) = location.filter(|_| followed) else {
        return Ok(None);
    };
    let from = &request.url;
    let Ok(target) = from.join(location) else {
        return Err(refuse(from, from, "the address cannot be read"));
    };
    match target.scheme() {
        "https" => {}
        "http" if from.scheme() == "http" => {}
        _ => return Err(refuse(from, &target, "it leaves HTTPS")),
    }
    if is_local(&target) && !is_local(from) {
        return Err(refuse(from, &target, "it points at this machine"));
    }
    Ok(Some(target))
}

fn refuse(from: &Url, target: &Url, reason: &'static str) -> TransportError {
    TransportError::Redirect {
        url: url_without_secrets(from),
        target: url_without_secrets(target),
        reason,
    }
}

/// Says whether a URL names this machine, or a link-local service of it (cloud metadata).
pub(crate) fn is_local(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical(),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            return name == "localhost" || name.ends_with(".localhost");
        }
        None => return false,
    };
    match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_link_local() || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()
        }
    }
}

/// Returns the names that a host's directory in `certs.d` may have.
pub(crate) fn host_names(url: &Url) -> Vec<String> {
    let host = url.host_str().unwrap_or_default();
    let mut names = vec![match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => format!("{host}:443"),
    }];
    if url.port().is_none() {
        names.push(host.to_owned());
    }
    if host == "registry-1.docker.io" {
        names.push("docker.io".to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses() {
        for local in [
            "http://localhost/",
            "http://127.0.0.2/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
            "http://x.localhost./",
            "http://2130706433/",
        ] {
            assert!(is_local(&local.parse().unwrap()), "{local}");
        }
        for remote in ["https://registry.example/", "http://10.0.0.1/", "http://[2001:db8::1]/"] {
            assert!(!is_local(&remote.parse().unwrap()), "{remote}");
        }
    }
}
