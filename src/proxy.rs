//! The cache proxy that `boatyard serve` runs.

pub mod policy;
pub mod record;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boatyard_access::Authority;
use boatyard_cache_proxy::ecosystem::apk::Apk;
use boatyard_cache_proxy::ecosystem::apt::Apt;
use boatyard_cache_proxy::ecosystem::cargo::Cargo;
use boatyard_cache_proxy::ecosystem::gem::Gem;
use boatyard_cache_proxy::ecosystem::go::Go;
use boatyard_cache_proxy::ecosystem::maven::Maven;
use boatyard_cache_proxy::ecosystem::npm::Npm;
use boatyard_cache_proxy::ecosystem::pypi::Pypi;
use boatyard_cache_proxy::ecosystem::rpm::Rpm;
use boatyard_cache_proxy::engine::{Engine, EngineOptions, Settings};
use boatyard_cache_proxy::forward::clients::{Clients, NetworkError};
use boatyard_cache_proxy::forward::{Proxy, ProxyOptions};
use boatyard_cache_proxy::generation;
use boatyard_cache_proxy::statistics::Statistics;
use boatyard_cache_proxy::{Ecosystem, Hosted, Target, Upstream, Upstreams};
use boatyard_content::Root;
use boatyard_front::{Limits, Server, ServerError, ServerOptions};
use boatyard_upstream::guard::Guard;
use boatyard_upstream::transport::Transport;
use boatyard_upstream::{
    Credential, RetryPolicy, Secret, SystemClock, Timeouts, Trust, transfer, transport,
};
use http::HeaderValue;

use crate::config;
use crate::proxy::record::Recorder;
use crate::remote;
use crate::report::{Context as _, Failure, Result};
use crate::serving::Services;
use crate::world::World;

/// How long an upstream may take to be connected to. A client waits that long, so it is short.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to answer, further tries included.
const ANSWER: Duration = Duration::from_secs(20);
/// How long an upstream may pause within an answer.
const IDLE: Duration = Duration::from_secs(30);
/// How long it is remembered that something is absent: clients ask for optional files every time.
const ABSENT: Duration = Duration::from_secs(20);
/// How long an upstream that failed is not asked for what is kept.
const REST: Duration = Duration::from_secs(15);
/// How many bytes a client may publish at once, where nothing else is configured.
const UPLOAD_MAX: u64 = 2_000_000_000;
/// How many objects are fetched at once from one upstream.
const PER_UPSTREAM: usize = 64;

/// What an upstream's `ecosystem` may be.
const ECOSYSTEMS: [&str; 10] =
    ["apt", "rpm", "apk", "gem", "pypi", "npm", "cargo", "go", "maven", "generic"];

/// The proxy, and where it listens.
pub struct Listening {
    /// What serves its connections.
    pub proxy: Proxy,
    /// Its sockets.
    pub server: Server,
    /// What it served, for those who ask.
    pub recorder: Arc<Recorder>,
}

/// Begins to listen. `None` where it is switched off, or where the usual address is taken and
/// nobody asked for it.
pub fn listen(
    world: &World,
    services: &Services,
    asked: &[SocketAddr],
) -> Result<Option<Listening>> {
    let root = services.root();
    let config = &world.config.proxy;
    let addresses = match (asked, config.listen.as_slice()) {
        ([], _) if config.off => return Ok(None),
        ([], []) => vec![SocketAddr::from(([127, 0, 0, 1], 3142))],
        ([], configured) => configured.to_vec(),
        (asked, _) => asked.to_vec(),
    };
    let is_asked = !asked.is_empty() || !config.listen.is_empty();
    let limits = Limits {
        stop_timeout: Duration::from_secs(world.config.serve.stop_seconds),
        ..world.config.limits.of_connections()
    };
    let recorder = Arc::new(Recorder::new(root, Arc::clone(services.metrics())));
    let statistics = Arc::clone(&recorder) as Arc<dyn Statistics>;
    let engine = engine(world, root, services.authority(), statistics)?;
    let options = ServerOptions { addresses, limits: limits.clone(), ..ServerOptions::default() };
    let server = match Server::bind(options) {
        Ok(server) => server,
        Err(error @ ServerError::Bind { .. }) if !is_asked => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(
                "the cache proxy is off: {error}: {} (choose another address with --proxy-listen, \
                 or set `off = true` under [proxy])",
                cause.unwrap_or_default()
            );
            return Ok(None);
        }
        Err(error) => {
            return Err(Failure::new("cannot start the cache proxy")
                .because(error)
                .hint("choose another address with --proxy-listen, such as 127.0.0.1:3143"));
        }
    };
    let proxy = Proxy::new(engine, self::options(config, limits)?);
    warn_of_unheeded(config);
    Ok(Some(Listening { proxy, server, recorder }))
}

/// What a configuration that was read again means for a proxy that runs.
#[derive(Debug)]
pub struct Changed {
    options: ProxyOptions,
    settings: Settings,
}

impl Changed {
    /// Reads what a configuration says. Blocking: it reads files that the configuration names.
    ///
    /// # Errors
    /// Where it asks for what cannot be.
    pub fn of(world: &World, services: &Services, proxy: &Proxy) -> Result<Changed> {
        let options = options(&world.config.proxy, proxy.options().limits.clone())?;
        warn_of_unheeded(&world.config.proxy);
        Ok(Changed { options, settings: settings(world, services.root(), services.authority())? })
    }

    /// Has requests from now on answered so.
    pub fn apply(self, proxy: &Proxy) {
        proxy.configure(self.options, self.settings);
    }
}

/// Says what a server would say of a configuration of the cache proxy, a line each.
///
/// # Errors
/// Where it asks for what cannot be.
pub fn check(world: &World, services: &Services) -> Result<Vec<String>> {
    options(&world.config.proxy, Limits::default())?;
    settings(world, services.root(), services.authority())?;
    Ok(policy::unheeded(&world.config.proxy))
}

fn warn_of_unheeded(config: &config::Proxy) {
    for line in policy::unheeded(config) {
        tracing::warn!("{line}");
    }
}

fn options(config: &config::Proxy, limits: Limits) -> Result<ProxyOptions> {
    let clients = config
        .allow_clients
        .iter()
        .map(|network| network.parse())
        .collect::<std::result::Result<_, NetworkError>>()
        .context("[proxy] allow_clients cannot be used")?;
    let defaults = ProxyOptions::default();
    let ports: BTreeSet<u16> = config.connect_ports.iter().copied().collect();
    Ok(ProxyOptions {
        clients: Clients { allowed: clients },
        limits,
        tunnel_ports: if ports.is_empty() { defaults.tunnel_ports } else { ports },
        tunnel_hosts: config.connect_hosts.iter().map(|host| host.to_lowercase()).collect(),
        log_access: !config.quiet,
        ..defaults
    })
}

/// Returns the ecosystems, in the order in which they are asked.
fn ecosystems(root: &Arc<Root>) -> Vec<Arc<dyn Ecosystem>> {
    let options = generation::Options::default;
    // What rpm and apk take has names of its own; apt takes all that is below its archives.
    vec![
        Arc::new(Rpm::new(Arc::clone(root), options())),
        Arc::new(Apk::new(Arc::clone(root), options())),
        Arc::new(Apt::new(Arc::clone(root), options())),
        Arc::new(Gem::new(Arc::clone(root))),
        Arc::new(Cargo::new(Arc::clone(root))),
        Arc::new(Go::new(Arc::clone(root))),
        Arc::new(Npm::default()),
        Arc::new(Pypi::default()),
        Arc::new(Maven::default()),
    ]
}

/// Returns what of the engine follows from the configuration, and may change with it.
fn settings(world: &World, root: &Arc<Root>, authority: &Arc<Authority>) -> Result<Settings> {
    let config = &world.config.proxy;
    let upstream = |configured: &config::ProxyUpstream| {
        let upstream = upstream(configured, config)?;
        hosting(upstream, configured, root, authority)
    };
    let upstreams = config.upstream.iter().map(upstream).collect::<Result<Vec<_>>>()?;
    let upstreams =
        Upstreams::new(upstreams).context("the upstreams of the cache proxy cannot be used")?;
    let guard = Arc::new(guard(config, &upstreams));
    let agent = HeaderValue::from_static(concat!("boatyard/", env!("CARGO_PKG_VERSION")));
    let timeouts = Timeouts { connect: CONNECT, idle: IDLE };
    let trust = Trust { registries_conf: Vec::new(), ..remote::trust(world)? };
    // The machine's proxy settings may name this very proxy.
    let mut transport =
        Transport::new(trust, timeouts, agent, transport::ProxyUse::Never).guarded(guard);
    if let Some(parent) = &config.parent {
        let parent = parent.parse().map_err(|error| {
            Failure::usage(format!("[proxy] parent `{parent}` is no URL")).because(error)
        })?;
        transport = transport.through(parent);
    }
    Ok(Settings {
        upstreams,
        transport: Arc::new(transport),
        bytes_max: config.max_size,
        grace: world.config.gc.grace(),
        rules: policy::rules(&config.rules, None)?,
        upload_max: config.upload_max.unwrap_or(UPLOAD_MAX),
    })
}

/// Returns the engine on a root. Blocking: it reads what is held of archives.
pub fn engine(
    world: &World,
    root: &Arc<Root>,
    authority: &Arc<Authority>,
    statistics: Arc<dyn Statistics>,
) -> Result<Engine> {
    let options = EngineOptions {
        settings: settings(world, root, authority)?,
        ecosystems: ecosystems(root),
        limits: transfer::Limits {
            per_upstream: PER_UPSTREAM,
            total: 4 * PER_UPSTREAM,
            first_byte: ANSWER,
            idle: IDLE,
            ..transfer::Limits::default()
        },
        retry: RetryPolicy {
            attempts_max: 2,
            retry_after_max: Duration::from_secs(2),
            ..RetryPolicy::default()
        },
        absent_for: ABSENT,
        rest_for: REST,
        clock: Arc::new(SystemClock),
        statistics,
    };
    Ok(Engine::new(root, options))
}

/// Understands an address as people write it, as a request for it would be: a URL, or
/// `NAME/path` of a configured upstream; `None` where it is neither.
pub fn target_of(world: &World, text: &str) -> Result<Option<(Target, Option<Arc<Upstream>>)>> {
    let config = &world.config.proxy;
    let upstream = |configured| upstream(configured, config);
    let configured = config.upstream.iter().map(upstream).collect::<Result<Vec<_>>>()?;
    let upstreams =
        Upstreams::new(configured).context("the upstreams of the cache proxy cannot be used")?;
    if let Some((name, below)) = text.trim_start_matches('/').split_once('/')
        && let Some(upstream) = upstreams.named(name)
    {
        return Ok(upstream.target(below).ok().map(|target| (target, Some(Arc::clone(upstream)))));
    }
    let Ok(target) = text.parse::<Target>() else { return Ok(None) };
    Ok(Some(match upstreams.of(&target) {
        Some((upstream, target)) => (target, Some(Arc::clone(upstream))),
        None => (target, None),
    }))
}

/// Returns where requests may lead: what the operator named may be anywhere.
fn guard(config: &config::Proxy, upstreams: &Upstreams) -> Guard {
    let mut guard = Guard { allow_private: config.allow_private, ..Guard::default() };
    guard.ports.extend(config.allow_ports.iter().copied());
    guard.ports.extend(config.connect_ports.iter().copied());
    for base in upstreams.all().iter().flat_map(|upstream| &upstream.bases) {
        let port = base.port_or_known_default().unwrap_or_default();
        guard.trusted.insert((base.host_str().unwrap_or_default().to_owned(), port));
    }
    guard
}

fn upstream(configured: &config::ProxyUpstream, defaults: &config::Proxy) -> Result<Upstream> {
    let name = &configured.name;
    if ["livez", "readyz", "metrics"].contains(&name.as_str()) {
        return Err(Failure::usage(format!("no upstream can be called `{name}`")));
    }
    if let Some(ecosystem) = &configured.ecosystem
        && !ECOSYSTEMS.contains(&ecosystem.as_str())
    {
        return Err(Failure::usage(format!(
            "the upstream `{name}` is of an unknown ecosystem, `{ecosystem}`"
        ))
        .hint(format!("these are known: {}", ECOSYSTEMS.join(", "))));
    }
    let made = match &configured.url {
        Some(url) => {
            let bases: Vec<_> = [url].into_iter().chain(&configured.also).cloned().collect();
            Upstream::new(name, &bases)
        }
        None if configured.also.is_empty() => Upstream::alone(name),
        None => {
            return Err(Failure::usage(format!("the upstream `{name}` has `also`, and no `url`")));
        }
    };
    let mut upstream = made.context("an upstream of the cache proxy cannot be used")?;
    upstream.credential = credential(configured)?;
    upstream.ecosystem = configured.ecosystem.clone();
    upstream.policy = policy::of(configured, defaults, upstream.bases[0].as_str())?;
    Ok(upstream)
}

/// Gives an upstream its private packages, where it has some.
fn hosting(
    mut upstream: Upstream,
    configured: &config::ProxyUpstream,
    root: &Arc<Root>,
    authority: &Arc<Authority>,
) -> Result<Upstream> {
    if configured.private.is_empty() && !upstream.is_alone() {
        return Ok(upstream);
    }
    let Some(ecosystem) = &configured.ecosystem else {
        let name = &configured.name;
        return Err(Failure::usage(format!(
            "the upstream `{name}` has private packages: of what kind?"
        ))
        .hint("say it with `ecosystem`, such as ecosystem = \"npm\""));
    };
    let place = (ecosystem.as_str(), configured.name.as_str());
    let names = upstream.policy.private.clone();
    let hosted = Hosted::new(root, Arc::clone(authority), place, names, upstream.is_alone());
    upstream.hosted = Some(Arc::new(hosted));
    Ok(upstream)
}

fn credential(configured: &config::ProxyUpstream) -> Result<Option<Credential>> {
    let Some(file) = &configured.password_file else {
        return match configured.username {
            None => Ok(None),
            Some(_) => Err(Failure::usage("`username` needs `password_file`")),
        };
    };
    let text = fs_err::read_to_string(file).context("cannot read the password")?;
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']));
    Ok(Some(match &configured.username {
        Some(user) => Credential::Password { user: user.clone(), password: secret },
        None => Credential::RegistryToken { token: secret },
    }))
}
