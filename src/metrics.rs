//! What is counted, in Prometheus' text format.
//!
//! Names begin with `boatyard_`, units are last, and labels have few values: no repository, no
//! address and no user is one, for each would be a time series for ever. Those are in the log.

mod process;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use boatyard_cache_proxy::statistics::{Outcome, Served as Proxied};
use boatyard_front::{Exchange, Observer, Peer};
use boatyard_registry::webhooks::Tally;
use http::{HeaderMap, StatusCode, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// > "The content type of the OpenMetrics text format" (OpenMetrics 1.0, "Protocol Negotiation")
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of durations, in seconds: from an answer out of memory to a large blob on a slow
/// line.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    service: &'static str,
    route: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    service: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    service: &'static str,
}

/// Everything that is counted; one for a process.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    cut: Family<Asked, Counter>,
    durations: Family<Asked, Histogram, fn() -> Histogram>,
    received: Family<Served, Counter>,
    sent: Family<Served, Counter>,
    in_flight: Gauge,
    reloads: Family<Reloaded, Counter>,
    proxy_requests: Family<ProxyAnswer, Counter>,
    proxy_bytes: Family<ProxySource, Counter>,
    webhook_events: Family<Delivered, Counter>,
    webhook_failures: Counter,
    webhooks_owed: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivered {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProxyAnswer {
    ecosystem: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProxySource {
    ecosystem: &'static str,
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reloaded {
    result: &'static str,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Returns counters at zero; those of the disk are of the file system that a root is on.
    pub fn new(root: PathBuf) -> Arc<Metrics> {
        let mut all = Registry::default();
        process::register(&mut all, root);
        let registry = all.sub_registry_with_prefix("boatyard");
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        let metrics = Metrics {
            requests: Family::default(),
            cut: Family::default(),
            durations,
            received: Family::default(),
            sent: Family::default(),
            in_flight: Gauge::default(),
            reloads: Family::default(),
            proxy_requests: Family::default(),
            proxy_bytes: Family::default(),
            webhook_events: Family::default(),
            webhook_failures: Counter::default(),
            webhooks_owed: Gauge::default(),
            registry: Mutex::default(),
        };
        registry.register("http_requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "http_requests_cut",
            "Requests whose answer did not reach the client whole",
            metrics.cut.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "From the request's header to the last byte of the answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit(
            "http_received",
            "Bytes of the bodies of requests",
            Unit::Bytes,
            metrics.received.clone(),
        );
        registry.register_with_unit(
            "http_sent",
            "Bytes of the bodies of answers",
            Unit::Bytes,
            metrics.sent.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests that are being answered",
            metrics.in_flight.clone(),
        );
        registry.register(
            "config_reloads",
            "Times that the configuration or a certificate was read again",
            metrics.reloads.clone(),
        );
        registry.register(
            "proxy_requests",
            "Requests that the cache proxy answered",
            metrics.proxy_requests.clone(),
        );
        registry.register_with_unit(
            "proxy",
            "Bytes of the bodies that the cache proxy sent",
            Unit::Bytes,
            metrics.proxy_bytes.clone(),
        );
        registry.register(
            "webhook_events",
            "Events that webhooks took, or that were dropped because too many were owed",
            metrics.webhook_events.clone(),
        );
        registry.register(
            "webhook_failures",
            "Envelopes that a webhook did not take; they are sent again",
            metrics.webhook_failures.clone(),
        );
        registry.register(
            "webhook_envelopes_owed",
            "Envelopes that wait to be delivered",
            metrics.webhooks_owed.clone(),
        );
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", version);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Arc::new(metrics)
    }

    /// Counts that the configuration or a certificate was read again.
    pub fn reloaded(&self, went_well: bool) {
        let result = if went_well { "success" } else { "failure" };
        self.reloads.get_or_create(&Reloaded { result }).inc();
    }

    /// Counts an answer of the cache proxy.
    pub fn proxied(&self, served: &Proxied<'_>) {
        let ecosystem = served.ecosystem.unwrap_or("other");
        let (result, source) = match served.outcome {
            Outcome::Hit => ("hit", "cache"),
            Outcome::Revalidated => ("revalidated", "cache"),
            Outcome::Stale => ("stale", "cache"),
            Outcome::Coalesced => ("coalesced", "cache"),
            Outcome::Miss => ("miss", "upstream"),
            Outcome::Pass => ("pass", "upstream"),
            Outcome::Own => ("own", "cache"),
        };
        self.proxy_requests.get_or_create(&ProxyAnswer { ecosystem, result }).inc();
        if served.outcome != Outcome::Own {
            let source = ProxySource { ecosystem, source };
            self.proxy_bytes.get_or_create(&source).inc_by(served.bytes);
        }
    }

    fn text(&self) -> Option<String> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).is_ok().then_some(text)
    }

    /// Returns the route `/metrics`, for all or only for clients on this machine.
    pub fn router(self: &Arc<Self>, audience: Audience) -> Router {
        let metrics = Arc::clone(self);
        let answer = move |peer: Option<Extension<Peer>>, headers: HeaderMap| async move {
            let peer = peer.map(|Extension(peer)| peer.address.ip());
            if !audience.admits(peer, &headers) {
                return Err(StatusCode::NOT_FOUND);
            }
            let text = tokio::task::spawn_blocking(move || metrics.text()).await.ok().flatten();
            let text = text.ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
            Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
        };
        Router::new().route("/metrics", get(answer))
    }
}

/// To whom metrics are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// To everybody who reaches the address.
    Everybody,
    /// To clients on this machine that ask for themselves.
    ThisMachine,
}

impl Audience {
    fn admits(self, peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
        let forwarded = ["forwarded", "x-forwarded-for", "via"];
        match self {
            Audience::Everybody => true,
            Audience::ThisMachine => {
                peer.is_some_and(|peer| peer.to_canonical().is_loopback())
                    && !forwarded.iter().any(|name| headers.contains_key(*name))
            }
        }
    }
}

impl Tally for Metrics {
    fn delivered(&self, events: u64) {
        self.webhook_events.get_or_create(&Delivered { result: "delivered" }).inc_by(events);
    }

    fn failed(&self) {
        self.webhook_failures.inc();
    }

    fn dropped(&self, events: u64) {
        self.webhook_events.get_or_create(&Delivered { result: "dropped" }).inc_by(events);
    }

    fn owed(&self, envelopes: u64) {
        self.webhooks_owed.set(i64::try_from(envelopes).unwrap_or(i64::MAX));
    }
}

impl Observer for Metrics {
    fn began(&self) {
        self.in_flight.inc();
    }

    fn ended(&self, exchange: &Exchange) {
        self.in_flight.dec();
        let service = match exchange.labels.service {
            "" => "server",
            service => service,
        };
        let route = match exchange.labels.route {
            "" => "other",
            route => route,
        };
        let asked = Asked { service, route };
        if let Some(status) = exchange.status {
            let method = known_method(exchange.method.as_str());
            let answered = Answered { service, route, method, code: status.as_u16() };
            self.requests.get_or_create(&answered).inc();
            self.durations.get_or_create(&asked).observe(exchange.lasted.as_secs_f64());
        }
        if !exchange.complete {
            self.cut.get_or_create(&asked).inc();
        }
        self.received.get_or_create(&Served { service }).inc_by(exchange.received);
        self.sent.get_or_create(&Served { service }).inc_by(exchange.sent);
        log(exchange, service);
    }
}

/// A client can invent methods; there are to be few label values.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 8] =
        ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// Writes the line of the access log. That somebody looks after the server is no news.
fn log(exchange: &Exchange, service: &'static str) {
    if service == "server" && exchange.status.is_some_and(|status| status.is_success()) {
        return;
    }
    tracing::info!(
        target: "boatyard::access",
        id = %exchange.id,
        peer = %exchange.peer.address.ip(),
        who = exchange.labels.who.as_deref(),
        service,
        method = %exchange.method,
        path = ?Shown(&exchange.path),
        status = exchange.status.map(|status| status.as_u16()),
        received = exchange.received,
        sent = exchange.sent,
        complete = exchange.complete,
        waited_ms = millis(exchange.waited),
        lasted_ms = millis(exchange.lasted),
        agent = exchange.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
    );
}

/// A path, as long as a line of a log may be.
struct Shown<'a>(&'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 512;
        match self.0.char_indices().nth(MOST) {
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_see_nothing_of_this_machine() {
        let local: Option<IpAddr> = Some([127, 0, 0, 1].into());
        let none = HeaderMap::new();
        assert!(Audience::ThisMachine.admits(local, &none));
        assert!(Audience::ThisMachine.admits(Some("::ffff:127.0.0.1".parse().unwrap()), &none));
        assert!(!Audience::ThisMachine.admits(Some([192, 0, 2, 7].into()), &none));
        assert!(!Audience::ThisMachine.admits(None, &none));
        let mut forwarded = HeaderMap::new();
        forwarded.insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
        assert!(!Audience::ThisMachine.admits(local, &forwarded));
        assert!(Audience::Everybody.admits(None, &forwarded));
    }

    #[test]
    fn the_text_has_the_process_and_the_disk() {
        let text = Metrics::new(std::env::temp_dir()).text().unwrap();
        for name in ["process_resident_memory_bytes", "process_open_fds", "boatyard_build_info"] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(text.contains("boatyard_root_free_bytes") && text.ends_with("# EOF\n"), "{text}");
    }
}
