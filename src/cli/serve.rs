//! `boatyard serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use boatyard_front::{
    ClientAuthority, Limits, Observer, Routes, Server, ServerOptions, StopReport, Tls, TlsFiles,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::access;
use crate::cli::runtime;
use crate::config::{self, TlsClient};
use crate::metrics::Audience;
use crate::proxy::{self, Listening};
use crate::report::{Context as _, Failure, Result};
use crate::serving::Services;
use crate::serving::checking;
use crate::serving::reload::Running;
use crate::serving::upkeep;
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
    let addresses =
        if args.listen.is_empty() { &world.config.serve.listen } else { &args.listen }.clone();
    let services = Services::new(world, root, addresses)?;
    let answers = services.answers(world)?;
    services.decide(&answers)?;
    let routes = Routes::from(answers.router.clone());
    let options = options(world, args, &services)?;
    raise_descriptor_limit(options.limits.connections_max);
    runtime()?.block_on(async {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let tls = options.tls.clone();
        let server = bind(options)?;
        for address in server.local_addrs() {
            let root = world.root_path().display();
            tracing::info!("the registry listens on {scheme}://{address}, its root is {root}");
        }
        let authority = Arc::clone(services.authority());
        access::announce(&authority);
        let syncing = tokio::spawn(access::keep_synced(Arc::clone(authority.audit())));

        let proxy = proxy::listen(world, &services, &args.proxy_listen)?;
        for address in proxy.iter().flat_map(|listening| listening.server.local_addrs()) {
            tracing::info!("the cache proxy listens on {address}");
        }
        let metrics = metrics(world, &services)?
            .map(|(server, router)| tokio::spawn(server.serve(router, std::future::pending())));
        let root = Arc::clone(services.root());
        let checking = tokio::spawn(checking::check(Arc::clone(&root), world.clone()));
        let retaining = Arc::clone(services.retaining());
        let collecting = tokio::spawn(upkeep::collect(root, world.config.gc.clone(), retaining));
        let policies = services.policies().clone();
        let noting = tokio::spawn(upkeep::note(policies.clone()));
        let running = Running {
            world: world.clone(),
            services,
            routes: routes.clone(),
            tending: answers.tend(),
            tls,
            proxy: proxy.as_ref().map(|listening| listening.proxy.clone()),
        };
        let following = tokio::spawn(running.follow());
        let proxied = proxied(proxy, stop_signal()?);
        let (report, proxied) = tokio::join!(server.serve(routes, stop_signal()?), proxied);
        if let Some(report) = proxied {
            tracing::info!("the cache proxy stopped: {} connections were cut", report.cut);
        }
        following.abort();
        checking.abort();
        collecting.abort();
        syncing.abort();
        noting.abort();
        upkeep::note_now(&policies);
        authority.audit().sync();
        if let Some(metrics) = metrics {
            metrics.abort();
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
    let Listening { proxy, server, recorder } = listening?;
    let writing = tokio::spawn(Arc::clone(&recorder).write());
    let serve = move |stream, client, stop| proxy.clone().serve(stream, client, stop);
    let report = server.serve_by(serve, stop).await;
    writing.abort();
    // A stop is not to lose the last of it; should the thread fail, that is all that is lost.
    let _ = tokio::task::spawn_blocking(move || recorder.write_now()).await;
    Some(report)
}

/// Listens where the metrics have an address of their own.
fn metrics(world: &World, services: &Services) -> Result<Option<(Server, Router)>> {
    let Some(address) = world.config.metrics.listen else { return Ok(None) };
    let server = bind(ServerOptions { addresses: vec![address], ..ServerOptions::default() })?;
    for address in server.local_addrs() {
        tracing::info!("the metrics are at http://{address}/metrics");
    }
    Ok(Some((server, services.metrics().router(Audience::Everybody))))
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

fn options(world: &World, args: &Args, services: &Services) -> Result<ServerOptions> {
    let config = &world.config.serve;
    let limits = Limits {
        stop_timeout: Duration::from_secs(config.stop_seconds),
        ..world.config.limits.of_connections()
    };
    let config = config::Serve {
        tls_cert: args.tls_cert.clone().or_else(|| config.tls_cert.clone()),
        tls_key: args.tls_key.clone().or_else(|| config.tls_key.clone()),
        ..config.clone()
    };
    let tls = tls(&config)?.map(Arc::new);
    Ok(ServerOptions {
        addresses: services.addresses().to_vec(),
        tls,
        limits,
        health: services.health().clone(),
        observer: Some(Arc::clone(services.metrics()) as Arc<dyn Observer>),
    })
}

/// Reads the certificate, where HTTPS is to be served.
pub fn tls(config: &config::Serve) -> Result<Option<Tls>> {
    match (config.tls_cert.clone(), config.tls_key.clone()) {
        (Some(certificate), Some(key)) => {
            let clients = config.tls_client_ca.clone().map(|certificates| ClientAuthority {
                certificates,
                required: config.tls_client == TlsClient::Required,
            });
            let files = TlsFiles { certificate, key, clients };
            Tls::load(files).map(Some).context("cannot serve HTTPS")
        }
        (None, None) if config.tls_client_ca.is_some() => Err(Failure::usage(
            "[serve] tls_client_ca needs tls_cert and tls_key: only HTTPS has certificates",
        )),
        (None, None) => Ok(None),
        _ => Err(Failure::usage(
            "[serve] needs both tls_cert and tls_key to serve HTTPS, or neither",
        )),
    }
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
