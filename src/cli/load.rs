//! `boatyard load`

use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boatyard_builder::bundle::BundleError;
use boatyard_builder::import::{self, LoadError, Loaded};
use boatyard_content::{Lease, Root};
use boatyard_oci::ImageName;

use crate::cli::tag::parse_tag;
use crate::images;
use crate::output;
use crate::report::{self, Context as _, Failure, Result};
use crate::world::World;

/// Bring the images of an archive to this machine.
///
/// Reads what `docker save`, `podman save`, `skopeo copy` and `boatyard save` write, compressed or
/// not. Images keep the names that they have in the archive. A bundle of `boatyard save --since` is
/// completed from what is here.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// A name for the archive's one image, besides those that it has
    #[arg(short, long, value_name = "NAME")]
    tag: Option<String>,
}

/// Loads the images.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let name = args.tag.as_deref().map(parse_tag).transpose()?;
    let reader = open_input(args.input.as_deref())?;
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let what = args.input.as_ref().map_or("standard input".into(), |path| path.to_string_lossy());
    let mut loaded = import::load(reader, &root, &lease).map_err(|error| failed(&what, error))?;
    if let Some(name) = name {
        give_name(&root, &lease, &mut loaded, name)?;
    }
    for image in &loaded {
        tell(&root, image, args.quiet)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why nothing was loaded, and what to do.
fn failed(what: &str, error: LoadError) -> Failure {
    let hint = match &error {
        LoadError::Bundle(BundleError::Base { of, .. }) => {
            Some(format!("save without --since there, or load {of} here first"))
        }
        _ => None,
    };
    let failure = Failure::new(format!("cannot load {what}")).because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Opens an archive. `-` and nothing mean standard input, which must not be a terminal.
pub fn open_input(path: Option<&Path>) -> Result<Box<dyn Read>> {
    if let Some(path) = path.filter(|path| *path != Path::new("-")) {
        let file = fs_err::File::open(path).context("cannot read the archive")?;
        return Ok(Box::new(file));
    }
    if io::stdin().is_terminal() {
        return Err(Failure::usage("there is no archive: standard input is a terminal")
            .hint("name a file, or send an archive into this command"));
    }
    Ok(Box::new(io::stdin().lock()))
}

fn give_name(root: &Root, lease: &Lease, loaded: &mut [Loaded], name: ImageName) -> Result<()> {
    let [image] = loaded else {
        return Err(Failure::new(format!(
            "--tag is for one image, and the archive has {}",
            loaded.len()
        ))
        .hint("they are here under their own names: `boatyard tag` gives them others"));
    };
    import::name(root, lease, &image.target, std::slice::from_ref(&name))
        .context("cannot name the image")?;
    image.names.push(name);
    Ok(())
}

/// Says what was loaded, in docker's words.
fn tell(root: &Root, image: &Loaded, quiet: bool) -> Result<()> {
    if image.names.is_empty() {
        report::warn(&format!(
            "the image {} has no name in the archive, and is gone with the next `boatyard gc`: \
             load it again with --tag NAME",
            image.target.digest
        ));
    }
    if quiet {
        return Ok(());
    }
    if image.names.is_empty() {
        let id = images::open(root, &image.target, None).map(|image| image.id().clone());
        let id = id.unwrap_or_else(|_| image.target.digest.clone());
        return output::line(&format!("Loaded image ID: {id}"));
    }
    let mut names = image.names.iter().map(ImageName::familiar);
    names.try_for_each(|name| output::line(&format!("Loaded image: {name}")))
}
