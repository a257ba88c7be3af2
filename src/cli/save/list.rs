//! `boatyard save --list`: what this machine has, for `save --since` elsewhere.

use std::process::ExitCode;

use boatyard_oci::ImageName;

use super::{Args, to_output};
use crate::images;
use crate::report::{Context as _, Result};
use crate::world::World;

/// Writes a line for each blob: its digest, and the image that it is of.
pub(super) fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let lease = root.lease().context("cannot begin a lease")?;
    let places = match args.images.is_empty() {
        true => images::list(&root)?,
        false => {
            let found = args.images.iter().map(|text| images::find(&root, text));
            found.map(|found| Ok(found?.places.swap_remove(0))).collect::<Result<_>>()?
        }
    };
    let mut lines = std::collections::BTreeMap::new();
    for place in &places {
        let name = place.tags.first().map_or_else(|| place.familiar(), ImageName::familiar);
        for digest in images::hold(&root, &lease, place)? {
            lines.entry(digest).or_insert_with(|| name.clone());
        }
    }
    to_output(args.output.as_deref(), |sink| {
        let write = |(digest, name)| writeln!(sink, "{digest} {name}");
        lines.iter().try_for_each(write).context("cannot write the list")
    })?;
    Ok(ExitCode::SUCCESS)
}
