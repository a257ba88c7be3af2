//! `boatyard tag`

use std::process::ExitCode;

use boatyard_builder::import;
use boatyard_oci::{ImageName, Reference};

use crate::images;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Give an image of this machine a further name.
///
/// The image itself is not copied. If another image has the name, it loses it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a name, or the beginning of an image ID
    #[arg(value_name = "IMAGE")]
    source: String,
    /// The name that it gets, such as registry.example/team/app:1.0
    #[arg(value_name = "NAME")]
    name: String,
}

/// Names an image.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let name = parse_tag(&args.name)?;
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let found = images::find(&root, &args.source)?;
    import::name(&root, &lease, found.target(), &[name])
        .context(format!("cannot name {}", args.source))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a name that an image can be given: one with a tag.
pub fn parse_tag(text: &str) -> Result<ImageName> {
    let name: ImageName = text
        .parse()
        .map_err(|error| Failure::usage(format!("`{text}` is no image name")).because(error))?;
    match name.reference {
        Reference::Tag(_) => Ok(name),
        Reference::Digest(_) => Err(Failure::usage(format!(
            "`{text}` names an image by its digest, which cannot be given to another"
        ))
        .hint("write a tag instead: name:tag")),
    }
}
