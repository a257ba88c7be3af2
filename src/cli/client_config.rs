//! `boatyard client-config`

mod images;
mod lines;
mod packages;
mod place;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::config::ProxyUpstream;
use crate::output;
use crate::report::{Failure, Result};
use crate::world::World;

use images::{MirrorOf, Server};
use packages::{Proxy, Scope};
use place::Settings;

/// Print what points a client at this server, or write it.
///
/// Clients of registries are pointed at its mirrors; without --mirror, at those of the configuration.
/// Clients of packages are pointed at its cache proxy.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which client
    #[arg(value_name = "CLIENT")]
    client: ClientKind,
    /// How clients reach this server, such as https://mirror.lan:5000, or its cache proxy, such as
    /// http://mirror.lan:3142 [default: the address that `serve` listens on]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The upstream of the cache proxy, by its name [default: the one of the client's ecosystem]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// The settings of the user; the default, where the client has such
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// The settings of the machine
    #[arg(long)]
    system: bool,
    /// A registry that the server mirrors, and what it calls it; may be repeated
    #[arg(long = "mirror", value_name = "HOST[=NAME]")]
    mirrors: Vec<String>,
    /// The authority that signed the server's certificate, PEM, as a path on the client
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write the files, instead of printing them
    #[arg(long)]
    write: bool,
    /// Put back what was there before --write
    #[arg(long, conflicts_with = "write")]
    undo: bool,
    /// Write below this directory instead of /, as into an image that is being made
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
}

/// The clients that can be pointed at a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClientKind {
    /// dockerd, with either of its image stores
    Docker,
    /// containerd, and Kubernetes and nerdctl on it
    Containerd,
    /// podman, buildah, skopeo, CRI-O
    Podman,
    /// buildkitd
    Buildkit,
    /// apt, of Debian and its kin
    Apt,
    /// gem
    Gem,
    /// bundler
    Bundler,
    /// pip
    Pip,
    /// uv
    Uv,
    /// npm
    Npm,
    /// yarn, classic or later
    Yarn,
    /// pnpm
    Pnpm,
    /// cargo
    Cargo,
    /// go
    Go,
    /// dnf, of Fedora and its kin
    Dnf,
    /// Maven
    Maven,
    /// apk, of Alpine
    Apk,
}

impl ClientKind {
    /// Returns the ecosystem of a client of packages, as upstreams name it.
    fn ecosystem(self) -> Option<&'static str> {
        Some(match self {
            ClientKind::Docker
            | ClientKind::Containerd
            | ClientKind::Podman
            | ClientKind::Buildkit => return None,
            ClientKind::Apt => "apt",
            ClientKind::Gem | ClientKind::Bundler => "gem",
            ClientKind::Pip | ClientKind::Uv => "pypi",
            ClientKind::Npm | ClientKind::Yarn | ClientKind::Pnpm => "npm",
            ClientKind::Cargo => "cargo",
            ClientKind::Go => "go",
            ClientKind::Dnf => "rpm",
            ClientKind::Maven => "maven",
            ClientKind::Apk => "apk",
        })
    }

    /// Says whether there are only settings of the machine.
    fn is_of_machine(self) -> bool {
        matches!(self, ClientKind::Apt | ClientKind::Dnf | ClientKind::Apk)
    }
}

/// Prints or writes the settings.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    if args.prefix.is_some() && !(args.write || args.undo) {
        return Err(Failure::usage("--prefix says where --write and --undo find files"));
    }
    let settings = match args.client.ecosystem() {
        None => of_registries(args, world)?,
        Some(ecosystem) => of_packages(args, world, ecosystem)?,
    };
    let below = args.prefix.as_deref();
    if args.undo {
        for path in settings.undo(below)? {
            output::line(&format!("as it was: {}", path.display()))?;
        }
    } else if args.write {
        for path in settings.write(below)? {
            output::line(&format!("written: {}", path.display()))?;
        }
        for note in &settings.notes {
            output::line(note)?;
        }
    } else {
        output::bytes(settings.to_string().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_registries(args: &Args, world: &World) -> Result<Settings> {
    if args.upstream.is_some() || args.user || args.system {
        return Err(Failure::usage("--upstream, --user and --system are for clients of packages"));
    }
    let server = Server::new(&server_url(args, world)?, args.ca.clone())?;
    let mirrors = mirrors(args, world)?;
    Ok(match args.client {
        ClientKind::Docker => images::docker(&server, &mirrors),
        ClientKind::Containerd => images::containerd(&server, &mirrors),
        ClientKind::Podman => images::podman(&server, &mirrors),
        _ => images::buildkit(&server, &mirrors),
    })
}

fn of_packages(args: &Args, world: &World, ecosystem: &str) -> Result<Settings> {
    if !args.mirrors.is_empty() {
        return Err(Failure::usage("--mirror is for clients of registries")
            .hint("--upstream names an upstream of the cache proxy"));
    }
    let scope = match &world.environment.home {
        _ if args.system || (!args.user && args.client.is_of_machine()) => Scope::System,
        Some(home) => Scope::User(home.clone()),
        None => return Err(Failure::usage("HOME is not set").hint("use --system")),
    };
    let proxy = Proxy::new(&proxy_url(args, world)?, args.ca.clone(), scope)?;
    match args.client {
        ClientKind::Apt => return packages::apt(&proxy),
        ClientKind::Dnf => return packages::dnf(&proxy),
        _ => {}
    }
    let upstream = upstream(args, world, ecosystem)?;
    match args.client {
        ClientKind::Gem => packages::gem(&proxy, upstream),
        ClientKind::Bundler => packages::bundler(&proxy, upstream),
        ClientKind::Pip => packages::pip(&proxy, upstream),
        ClientKind::Uv => packages::uv(&proxy, upstream),
        ClientKind::Yarn => packages::yarn(&proxy, upstream),
        ClientKind::Cargo => packages::cargo(&proxy, upstream),
        ClientKind::Go => packages::go(&proxy, upstream),
        ClientKind::Maven => packages::maven(&proxy, upstream),
        ClientKind::Apk => packages::apk(&proxy, upstream),
        _ => packages::npm(&proxy, upstream),
    }
}

/// Returns the upstream that a client is to use: the one that is named, or the only one of its
/// ecosystem.
fn upstream<'a>(args: &Args, world: &'a World, ecosystem: &str) -> Result<&'a ProxyUpstream> {
    let all = &world.config.proxy.upstream;
    if let Some(name) = &args.upstream {
        return all.iter().find(|upstream| upstream.name == *name).ok_or_else(|| {
            Failure::usage(format!("no upstream of the cache proxy is called `{name}`"))
        });
    }
    let is_of = |upstream: &&ProxyUpstream| upstream.ecosystem.as_deref() == Some(ecosystem);
    let mut found = all.iter().filter(is_of);
    match (found.next(), found.next()) {
        (Some(upstream), None) => Ok(upstream),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several upstreams have `ecosystem = \"{ecosystem}\"`: which one?"
        ))
        .hint("name it with --upstream")),
        (None, _) => {
            Err(Failure::usage(format!("no [[proxy.upstream]] has `ecosystem = \"{ecosystem}\"`"))
                .hint("add one to the configuration, or name one with --upstream"))
        }
    }
}

fn proxy_url(args: &Args, world: &World) -> Result<String> {
    if let Some(url) = &args.server {
        return Ok(url.clone());
    }
    let config = &world.config.proxy;
    let listens = config.listen.first().copied().unwrap_or(([127, 0, 0, 1], 3142).into());
    if listens.ip().is_unspecified() {
        return Err(Failure::usage(
            "the cache proxy listens on all addresses: which one do clients use?",
        )
        .hint("name it with --server, such as --server http://mirror.lan:3142"));
    }
    Ok(format!("http://{listens}"))
}

fn server_url(args: &Args, world: &World) -> Result<String> {
    if let Some(url) = &args.server {
        return Ok(url.clone());
    }
    let serve = &world.config.serve;
    let listens = serve.listen.first().copied().unwrap_or(([127, 0, 0, 1], 5000).into());
    if listens.ip().is_unspecified() {
        return Err(Failure::usage("`serve` listens on all addresses: which one do clients use?")
            .hint("name it with --server, such as --server http://mirror.lan:5000"));
    }
    let scheme = if serve.tls_cert.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{listens}"))
}

fn mirrors(args: &Args, world: &World) -> Result<Vec<MirrorOf>> {
    let mirrors: Vec<MirrorOf> = if args.mirrors.is_empty() {
        let configured = world.config.mirror.iter();
        configured.map(MirrorOf::configured).collect::<Result<_>>()?
    } else {
        args.mirrors.iter().map(|text| MirrorOf::named(text)).collect::<Result<_>>()?
    };
    if mirrors.is_empty() {
        return Err(Failure::usage("no mirror is configured").hint(
            "name what the server mirrors with --mirror docker.io, or add a [[mirror]] to \
                   the configuration",
        ));
    }
    Ok(mirrors)
}
