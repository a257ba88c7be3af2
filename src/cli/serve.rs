//! `boatyard serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use boatyard_access::Authority;
use boatyard_content::Root;
use boatyard_front::health::Health;
use boatyard_front::limits::Limits;
use boatyard_front::server::{Server, ServerOptions};
use boatyard_front::tls::{ClientAuthority, Tls, TlsFiles};
use boatyard_registry::{Mirrors, Registry};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::access;
use crate::cli::runtime;
use crate::config::TlsClient;
use crate::mirrors;
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
    let authority = access::open(world, &root, &options.addresses)?;
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
        access::announce(&authority);
        let router = router(Arc::clone(&root), mirrors, &authority, &health);
        let syncing = tokio::spawn(access::keep_synced(Arc::clone(authority.audit())));
        let report = server.serve(router, stop_signal()?).await;
        syncing.abort();
        authority.audit().sync();
        tracing::info!("stopped: {} connections ended, {} were cut", report.finished, report.cut);
        Ok(ExitCode::SUCCESS)
    })
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
pub fn router(
    root: Arc<Root>,
    mirrors: Mirrors,
    authority: &Arc<Authority>,
    health: &Health,
) -> Router {
    let limits = boatyard_registry::Limits::default();
    let registry = Registry::new(root, mirrors, Arc::clone(authority) as _, limits);
    let registry = boatyard_registry::guarded_router(registry, Arc::clone(authority));
    health.router().merge(registry)
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
            let clients = config.tls_client_ca.clone().map(|certificates| ClientAuthority {
                certificates,
                required: config.tls_client == TlsClient::Required,
            });
            let files = TlsFiles { certificate, key, clients };
            let tls = Tls::load(files).context("cannot serve HTTPS")?;
            Some(Arc::new(tls))
        }
        (None, None) if config.tls_client_ca.is_some() => {
            return Err(Failure::usage(
                "[serve] tls_client_ca needs tls_cert and tls_key: only HTTPS has certificates",
            ));
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
