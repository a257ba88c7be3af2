//! `boatyard mirror fetch`

use std::process::ExitCode;
use std::sync::Arc;

use boatyard_oci::{ImageName, Platform};
use boatyard_registry::mirror::upstream::FetchError;
use boatyard_registry::{Mirror, Mirrors};
use boatyard_upstream::Platforms;

use crate::cli::runtime;
use crate::report::{Failure, Result};
use crate::transfers::{self, Direction};
use crate::world::World;
use crate::{mirrors, output, remote};

/// Fetch images before anybody asks for them.
///
/// A server on the same root answers with them at once, and goes on while the upstream is away.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The images, by their upstream (docker.io/library/debian:12) or by the mirror's name
    /// (hub/library/debian:12)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Which image of one for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Fetch the images for all platforms
    #[arg(short, long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Print nothing but what failed
    #[arg(short, long)]
    quiet: bool,
}

/// Fetches them.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let mirrors = mirrors::open(world, &root, &mirrors::transfers(&root))?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let platforms = if args.all_platforms { Platforms::All } else { Platforms::One(&platform) };
    let images: Vec<_> =
        args.images.iter().map(|text| find(&mirrors, text)).collect::<Result<_>>()?;
    let runtime = runtime()?;
    for (mirror, name) in images {
        let progress = transfers::open(Direction::Pull, args.quiet);
        let fetched = runtime.block_on(mirror.fetch(
            &name.repository,
            &name.reference,
            platforms,
            progress.as_progress(),
        ));
        let fetched = fetched.map_err(|error| failure(&name, &mirror, error))?;
        progress.finish();
        if !args.quiet {
            output::line(&format!("{}: {}", name.familiar(), fetched.top.digest))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds the mirror that an image is of.
fn find(mirrors: &Mirrors, text: &str) -> Result<(Arc<Mirror>, ImageName)> {
    let name: ImageName = text.parse().map_err(|error: boatyard_oci::name::NameError| {
        Failure::usage(format!("`{text}` is no image name")).because(error)
    })?;
    if let Some(mirror) = mirrors.all().iter().find(|mirror| mirror.answers_to(&name.registry)) {
        return Ok((Arc::clone(mirror), name));
    }
    // `hub/library/debian`: a name without a dot is no host, but may be a mirror's.
    let by_name = mirrors.all().iter().find_map(|mirror| {
        let rest = text.strip_prefix(mirror.name())?.strip_prefix('/')?;
        let name = format!("{}/{rest}", mirror.host()).parse().ok()?;
        Some((Arc::clone(mirror), name))
    });
    by_name.ok_or_else(|| {
        Failure::new(format!("{} is of no registry that is mirrored here", name.familiar()))
            .hint("add a [[mirror]] of its registry to the configuration")
    })
}

fn failure(name: &ImageName, mirror: &Mirror, error: FetchError) -> Failure {
    let what = format!("cannot fetch {}", name.familiar());
    match error {
        FetchError::Pull(error) => remote::failure(what, mirror.host(), error),
        FetchError::Kept(error) => Failure::new(what).because(error),
    }
}
