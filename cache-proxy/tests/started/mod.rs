//! A proxy that runs in the test's process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boatyard_cache_proxy::engine::{Engine, EngineOptions, Settings};
use boatyard_cache_proxy::forward::{Proxy, ProxyOptions};
use boatyard_cache_proxy::policy::Rules;
use boatyard_cache_proxy::statistics::Counters;
use boatyard_cache_proxy::{Ecosystem, Upstream, Upstreams};
use boatyard_content::Root;
use boatyard_front::server::{Server, ServerOptions};
use boatyard_upstream::transport::{ProxyUse, Transport};
use boatyard_upstream::{RetryPolicy, SystemClock, Timeouts, Trust, transfer};
use http::HeaderValue;

/// Starts a proxy on a root, with one upstream. It listens at the address.
pub fn start(
    root: &Arc<Root>,
    upstream: Upstream,
    ecosystems: Vec<Arc<dyn Ecosystem>>,
) -> (Engine, SocketAddr) {
    let agent = HeaderValue::from_static("test");
    let transport = Transport::new(Trust::default(), Timeouts::default(), agent, ProxyUse::Never);
    let retry = RetryPolicy {
        attempts_max: 2,
        delay_first: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let options = EngineOptions {
        settings: Settings {
            upstreams: Upstreams::new(vec![upstream]).unwrap(),
            transport: Arc::new(transport),
            bytes_max: None,
            grace: Duration::ZERO,
            rules: Rules::default(),
            upload_max: 1 << 20,
        },
        ecosystems,
        limits: transfer::Limits {
            idle: Duration::from_millis(300),
            retry: retry.clone(),
            ..transfer::Limits::default()
        },
        retry,
        absent_for: Duration::from_secs(20),
        rest_for: Duration::ZERO,
        clock: Arc::new(SystemClock),
        statistics: Arc::new(Counters::default()),
    };
    let engine = Engine::new(root, options);
    let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let server = Server::bind(ServerOptions { addresses, ..ServerOptions::default() }).unwrap();
    let address = server.local_addrs()[0];
    let proxy = Proxy::new(engine.clone(), ProxyOptions::default());
    let serve = move |stream, client, stop| proxy.clone().serve(stream, client, stop);
    tokio::spawn(server.serve_by(serve, std::future::pending()));
    (engine, address)
}
