//! `boatyard pull`

use std::process::ExitCode;

use boatyard_content::Root;
use boatyard_oci::{ImageName, Platform, Reference};
use boatyard_upstream::Platforms;

use crate::cli::runtime;
use crate::output;
use crate::remote::{self, Mover};
use crate::report::{Context as _, Failure, Result};
use crate::transfers::{self, Direction};
use crate::world::World;

/// Fetch an image from a registry.
///
/// Blobs that are here already are not fetched again, and one whose transfer broke off goes on
/// where it stopped. Credentials are those of `boatyard login`, docker's and podman's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, such as debian:12 or registry.example/app@sha256:...
    image: String,
    /// Which image of one for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Fetch the images for all platforms
    #[arg(short, long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,
}

/// Fetches the image and gives it its name here.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let name: ImageName = args.image.parse().map_err(|error| {
        Failure::usage(format!("`{}` is no image name", args.image)).because(error)
    })?;
    let client = remote::client(world)?;
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let platforms = if args.all_platforms { Platforms::All } else { Platforms::One(&platform) };
    let before = current(&root, &name)?;
    let progress = transfers::open(Direction::Pull, args.quiet);
    let mover =
        Mover { client: &client, root: &root, lease: &lease, progress: progress.as_progress() };
    let pulled = runtime()?.block_on(mover.fetch(&name, platforms))?;
    progress.finish();
    if args.quiet {
        output::line(&name.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("Digest: {}", pulled.top.digest))?;
    let status = match before.as_ref() == Some(&pulled.top.digest) {
        true => "Image is up to date for",
        false => "Downloaded newer image for",
    };
    output::line(&format!("Status: {status} {}", name.familiar()))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what the name points at now.
fn current(root: &Root, name: &ImageName) -> Result<Option<boatyard_oci::Digest>> {
    let repository = root.images_of(name);
    let failed = || format!("cannot look for {}", name.familiar());
    match &name.reference {
        Reference::Tag(tag) => repository.tag(tag).context(failed()),
        Reference::Digest(digest) => {
            let there = repository.manifest(digest).context(failed())?;
            Ok(there.map(|there| there.digest))
        }
    }
}
