//! `boatyard serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use boatyard_content::Root;
use boatyard_front::health::Health;
use boatyard_front::limits::Limits;
use boatyard_front::server::{Server, ServerOptions, StopReport};
use boatyard_front::tls::{Tls, TlsFiles};
use boatyard_registry::{Mirrors, OpenAccess, Registry};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::runtime;
use crate::mirrors;
use crate::proxy::{self, Listening};
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Run the registry: push images to it, and pull them from it, with any client.
///
/// It serves until SIGTERM or Ctrl-C; then it accepts no more, finishes what is under way, and
/// exits 0. `/readyz` and `/livez` answer whoever watches over it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An address to listen on; several are fine [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// An address for the cache proxy to listen on; several are fine [default: 127.0.0.1:3142]
    #[arg(long, value_name = "ADDRESS:PORT")]
    proxy_listen: Vec<SocketAddr>,
    /// The certificate (chain) to serve HTTPS with, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub fn run(world: &World, args: &Args) -> Result<ExitCode> {
    let root = world.open_root()?;
    let mirrors = mirrors::open(world, &root)?;
    let options = options(world, args)?;
    raise_descriptor_limit(options.limits.connections_max);
    runtime()?.block_on(async {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let health = options.health.clone();
        let server = bind(options)?;
        for address in server.local_addrs() {
            tracing::info!("the registry listens on {scheme}://{address}, its root is {root}");
        }
        for mirror in mirrors.all() {
            tracing::info!("{} is mirrored as `{}`", mirror.host(), mirror.name());
        }
        let proxy = proxy::listen(world, &root, &args.proxy_listen)?;
        for address in proxy.iter().flat_map(|listening| listening.server.local_addrs()) {
            tracing::info!("the cache proxy listens on {address}");
        }
        let router = router(Arc::clone(&root), mirrors, &health);
        let proxied = proxied(proxy, stop_signal()?);
        let (report, proxied) = tokio::join!(server.serve(router, stop_signal()?), proxied);
        if let Some(report) = proxied {
            tracing::info!("the cache proxy stopped: {} connections were cut", report.cut);
        }
        tracing::info!("stopped: {} connections ended, {} were cut", report.finished, report.cut);
        Ok(ExitCode::SUCCESS)
    })
}

/// Serves the cache proxy, where there is one, until it is told to stop.
async fn proxied(
    listening: Option<Listening>,
    stop: impl Future<Output = ()>,
) -> Option<StopReport> {
    let Listening { proxy, server } = listening?;
    let serve = move |stream, client, stop| proxy.clone().serve(stream, client, stop);
    Some(server.serve_by(serve, stop).await)
}

/// Raises the limit of open files as far as it may be raised: each connection is one, and so is
/// each blob that is being sent. Shells give 1,024.
fn raise_descriptor_limit(connections_max: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    let wanted = 2 * connections_max as u64;
    if let Some(most) = limit.maximum.filter(|most| *most < wanted) {
        tracing::warn!(
            "at most {most} files can be open, too few for {connections_max} connections that \
             each send a blob: raise the limit (LimitNOFILE=, ulimit -n)"
        );
    }
}

/// Listens, and says what may help if that is not possible.
pub fn bind(options: ServerOptions) -> Result<Server> {
    Server::bind(options).map_err(|error| {
        Failure::new("cannot start the server")
            .because(error)
            .hint("choose another address with --listen, such as 127.0.0.1:5001")
    })
}

/// Returns all that the server answers.
pub fn router(root: Arc<Root>, mirrors: Mirrors, health: &Health) -> Router {
    let limits = boatyard_registry::Limits::default();
    let registry = Registry::new(root, mirrors, Arc::new(OpenAccess), limits);
    health.router().merge(boatyard_registry::router(registry))
}

fn options(world: &World, args: &Args) -> Result<ServerOptions> {
    let config = &world.config.serve;
    let mut limits = Limits::default();
    if let Some(most) = config.connections_max {
        limits.connections_max = most;
    }
    if let Some(seconds) = config.stop_seconds {
        limits.stop_timeout = Duration::from_secs(seconds);
    }
    let addresses = if !args.listen.is_empty() {
        args.listen.clone()
    } else if !config.listen.is_empty() {
        config.listen.clone()
    } else {
        vec![SocketAddr::from(([127, 0, 0, 1], 5000))]
    };
    let certificate = args.tls_cert.clone().or_else(|| config.tls_cert.clone());
    let key = args.tls_key.clone().or_else(|| config.tls_key.clone());
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let tls = Tls::load(TlsFiles { certificate, key }).context("cannot serve HTTPS")?;
            Some(Arc::new(tls))
        }
        (None, None) => None,
        _ => {
            return Err(Failure::usage(
                "[serve] needs both tls_cert and tls_key to serve HTTPS, or neither",
            ));
        }
    };
    Ok(ServerOptions { addresses, tls, limits, health: Health::new() })
}

/// Waits for SIGTERM or Ctrl-C.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
