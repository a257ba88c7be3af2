//! `boatyard inspect`

mod attestations;
mod efficiency;

use std::process::ExitCode;

use boatyard_builder::attest::Predicate;
use boatyard_content::Root;
use boatyard_oci::{Descriptor, ImageName, Platform};
use serde::Serialize;
use serde_json::Value;

use crate::images::{self, Found};
use crate::output;
use crate::report::{Context as _, Result};
use crate::world::World;

/// Print all that is known about images, as JSON.
///
/// The properties have the names that docker gives them. With --raw or --raw-config the very
/// bytes are printed that the digests are of. --provenance and --sbom print what was said of an image
/// when it was built, of images that are not here by asking their registry. With --efficiency it is said what each layer adds,
/// and what of it later layers delete or replace.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images: names, or beginnings of image IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Print the manifest, or the index, as it is
    #[arg(long)]
    raw: bool,
    /// Print the configuration as it is
    #[arg(long, conflicts_with = "raw")]
    raw_config: bool,
    /// Show what each layer adds, and what of it is in the image in vain
    #[arg(long, conflicts_with_all = ["raw", "raw_config"])]
    efficiency: bool,
    /// Print where the image comes from: its provenance, if it was built with one
    #[arg(long, conflicts_with_all = ["raw", "raw_config", "efficiency"])]
    provenance: bool,
    /// Print which packages are in the image: its SBOM, if it was built with one
    #[arg(long, conflicts_with_all = ["raw", "raw_config", "efficiency", "provenance"])]
    sbom: bool,
    /// Print what --efficiency shows as JSON; everything else is JSON anyway
    #[arg(long, requires = "efficiency")]
    json: bool,
    /// Which image of one for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    created: Option<jiff::Timestamp>,
    author: Option<String>,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    /// Of the blobs, compressed as they are.
    size: u64,
    config: Value,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    /// What the name points at: perhaps an index.
    descriptor: Descriptor,
    /// The image that was chosen from it, and its layers' blobs.
    manifest: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: String,
    layers: Vec<boatyard_oci::DiffId>,
}

/// Prints what there is to say.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    if args.provenance || args.sbom {
        let wanted = if args.sbom { Predicate::Sbom } else { Predicate::Provenance };
        return attestations::run(world, &root, &args.images, args.platform.as_ref(), wanted);
    }
    let found = args.images.iter().map(|text| images::find(&root, text));
    let found = found.collect::<Result<Vec<_>>>()?;
    if args.efficiency {
        return efficiency(args, &root, &found);
    }
    if args.raw {
        for found in &found {
            let target = match &args.platform {
                Some(platform) => images::open(&root, found.target(), Some(platform))?.descriptor,
                None => found.target().clone(),
            };
            output::bytes(&images::manifest_bytes(&root, &target)?)?;
        }
    } else if args.raw_config {
        for found in &found {
            let image = images::open(&root, found.target(), args.platform.as_ref())?;
            output::bytes(image.config.bytes())?;
        }
    } else {
        let inspected = found.iter().map(|found| inspect(&root, found, args.platform.as_ref()));
        output::json(&inspected.collect::<Result<Vec<_>>>()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn efficiency(args: &Args, root: &Root, found: &[Found]) -> Result<ExitCode> {
    let lease = root.lease().context("cannot begin a lease")?;
    let mut reports = Vec::new();
    for (name, found) in args.images.iter().zip(found) {
        images::hold(root, &lease, &found.places[0])?;
        let image = images::open(root, found.target(), args.platform.as_ref())?;
        reports.push(efficiency::report(root, name, &image)?);
    }
    if args.json {
        output::json(&reports)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (at, report) in reports.iter().enumerate() {
        if at > 0 {
            output::line("")?;
        }
        efficiency::print(report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(root: &Root, found: &Found, platform: Option<&Platform>) -> Result<Inspected> {
    let target = found.target();
    let image = images::open(root, target, platform)?;
    let mut names = Vec::new();
    for listed in images::list(root)? {
        if listed.target.digest == target.digest {
            names.push(listed);
        }
    }
    let tags = names.iter().flat_map(|listed| &listed.tags).map(ImageName::familiar);
    let digests = names.iter().map(|listed| format!("{}@{}", listed.familiar(), target.digest));
    let config = image.config.value();
    let as_it_is: Value =
        serde_json::from_slice(image.config.bytes()).context("cannot read the configuration")?;
    Ok(Inspected {
        id: image.id().to_string(),
        repo_tags: tags.collect(),
        repo_digests: digests.collect(),
        created: config.created,
        author: config.author.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        size: image.size(),
        config: as_it_is.get("config").cloned().unwrap_or(Value::Null),
        root_fs: RootFs {
            r#type: config.rootfs.kind.clone(),
            layers: config.rootfs.diff_ids.clone(),
        },
        descriptor: target.clone(),
        manifest: image.descriptor.clone(),
        layers: image.manifest.layers.clone(),
    })
}
