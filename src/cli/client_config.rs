//! `boatyard client-config`

mod images;
mod place;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::output;
use crate::report::{Failure, Result};
use crate::world::World;

use images::{MirrorOf, Server};

/// Print what points a client at this server's mirrors, or write it.
///
/// Without --mirror, the mirrors are those of the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which client
    #[arg(value_name = "CLIENT")]
    client: ClientKind,
    /// How clients reach this server, such as https://mirror.lan:5000 [default: the address that
    /// `serve` listens on]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A registry that the server mirrors, and what it calls it; may be repeated
    #[arg(long = "mirror", value_name = "HOST[=NAME]")]
    mirrors: Vec<String>,
    /// The authority that signed the server's certificate, PEM, as a path on the client
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write the files, instead of printing them
    #[arg(long)]
    write: bool,
    /// Write below this directory instead of /, as into an image that is being made
    #[arg(long, value_name = "DIR", requires = "write")]
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
}

/// Prints or writes the settings.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let server = Server::new(&server_url(args, world)?, args.ca.clone())?;
    let mirrors = mirrors(args, world)?;
    let settings = match args.client {
        ClientKind::Docker => images::docker(&server, &mirrors),
        ClientKind::Containerd => images::containerd(&server, &mirrors),
        ClientKind::Podman => images::podman(&server, &mirrors),
        ClientKind::Buildkit => images::buildkit(&server, &mirrors),
    };
    if args.write {
        for path in settings.write(args.prefix.as_deref())? {
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
