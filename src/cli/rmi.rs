//! `boatyard rmi`

use std::collections::BTreeSet;
use std::process::ExitCode;

use boatyard_content::repository::Repository;
use boatyard_oci::{Digest, ImageName, Reference};

use crate::images::{self, Found, Listed};
use crate::output;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Take names from images of this machine, and forget images that have none left.
///
/// An image that is named by its ID or digest is forgotten with all its names, if it has but one,
/// or with --force. The space is given back by `boatyard gc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images: names, or beginnings of image IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Forget an image that is named by its ID with all its names
    #[arg(short, long)]
    force: bool,
}

/// Removes names and images. Nothing is removed unless all of them are found.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let found = args.images.iter().map(|text| Ok((text, images::find(&root, text)?)));
    for (text, found) in found.collect::<Result<Vec<_>>>()? {
        match &found.name {
            Some(name) if matches!(name.reference, Reference::Tag(_)) => {
                untag(name, &found.places[0])?;
            }
            _ => remove(text, &found, args.force)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes one name away; the image goes with its last one.
fn untag(name: &ImageName, place: &Listed) -> Result<()> {
    let Reference::Tag(tag) = &name.reference else { return Ok(()) };
    let failed = || format!("cannot remove {}", name.familiar());
    if place.repository.delete_tag(tag).context(failed())? {
        output::line(&format!("Untagged: {}", name.familiar()))?;
    }
    let digest = &place.target.digest;
    let is_named = !place.repository.tags_of(digest).context(failed())?.is_empty();
    if is_named || place.is_listed {
        return Ok(());
    }
    forget(&place.repository, digest)
}

/// Forgets an image wherever it is.
fn remove(text: &str, found: &Found, force: bool) -> Result<()> {
    let names: Vec<_> = found.places.iter().flat_map(|place| &place.tags).collect();
    if names.len() > 1 && !force {
        let names: Vec<_> = names.iter().map(|name| name.familiar()).collect();
        return Err(Failure::new(format!("{text} has several names: {}", names.join(", ")))
            .hint("name the one to take away, or forget all with --force"));
    }
    if let Some(place) = found.places.iter().find(|place| place.is_listed) {
        return Err(Failure::new(format!(
            "{text} is one of several images under one name in {}",
            place.familiar()
        ))
        .hint("remove that name: the images go with it"));
    }
    for place in &found.places {
        for name in &place.tags {
            output::line(&format!("Untagged: {}", name.familiar()))?;
        }
        forget(&place.repository, &place.target.digest)?;
    }
    Ok(())
}

/// Forgets a manifest with its tags, and what only it lists.
fn forget(repository: &Repository, digest: &Digest) -> Result<()> {
    let failed = || format!("cannot remove the image {digest}");
    let children = repository.refs(digest).context(failed())?;
    if repository.delete_manifest(digest).context(failed())? {
        output::line(&format!("Deleted: {digest}"))?;
    }
    let manifests: BTreeSet<_> = repository.manifests().context(failed())?.into_iter().collect();
    let mut listed = BTreeSet::new();
    for manifest in &manifests {
        listed.extend(repository.refs(manifest).context(failed())?);
    }
    for child in children.iter().filter(|child| manifests.contains(child)) {
        let is_tagged = !repository.tags_of(child).context(failed())?.is_empty();
        if !is_tagged && !listed.contains(child) {
            forget(repository, child)?;
        }
    }
    Ok(())
}
