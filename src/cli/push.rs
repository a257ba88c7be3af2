//! `boatyard push`

use std::process::ExitCode;

use boatyard_content::Root;
use boatyard_oci::{Descriptor, Platform};

use crate::cli::runtime;
use crate::cli::tag::parse_tag;
use crate::images;
use crate::output;
use crate::remote::{self, Manifests, Mover};
use crate::report::{self, Context as _, Failure, Result};
use crate::transfers::{self, Direction};
use crate::world::World;

/// Send an image to a registry.
///
/// Blobs that the registry has already are not sent; those that another repository of it has are
/// mounted from there. Of an image for several platforms all are sent if all are here, else the
/// one for this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a name, or the beginning of an image ID
    image: String,
    /// The name that it gets in the registry [default: its own]
    #[arg(value_name = "NAME")]
    destination: Option<String>,
    /// Send only the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
}

/// Sends the image.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let client = remote::client(world)?;
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let found = images::find(&root, &args.image)?;
    let name = match (&args.destination, found.name.clone()) {
        (Some(destination), _) => parse_tag(destination)?,
        (None, Some(name)) => name,
        (None, None) => {
            return Err(Failure::usage(format!(
                "{} is an image ID, which does not say where to push",
                args.image
            ))
            .hint("add a name: boatyard push IMAGE NAME"));
        }
    };
    let manifests = manifests(&root, found.target(), args.platform.as_ref())?;
    let progress = transfers::open(Direction::Push, args.quiet);
    let mover =
        Mover { client: &client, root: &root, lease: &lease, progress: progress.as_progress() };
    let digest = runtime()?.block_on(mover.send_manifests(&manifests, &name))?;
    progress.finish();
    match args.quiet {
        true => output::line(&digest.to_string())?,
        false => output::line(&format!("{name}: digest: {digest}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the manifests to send, each after those that it lists.
fn manifests(root: &Root, target: &Descriptor, platform: Option<&Platform>) -> Result<Manifests> {
    if platform.is_none()
        && let Some(manifests) = remote::gather(root, target)?
    {
        return Ok(manifests);
    }
    let image = images::open(root, target, platform)?;
    if platform.is_none() {
        let platform = image.config.value().platform();
        report::warn(&format!(
            "not all images of this name are here: only the one for {platform} is pushed"
        ));
    }
    let manifests = remote::gather(root, &image.descriptor)?;
    manifests.ok_or_else(|| Failure::new(format!("cannot read {}", image.descriptor.digest)))
}
