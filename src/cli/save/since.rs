//! `boatyard save --since`: bundles.

use std::io::{BufWriter, Write};
use std::path::Path;

use boatyard_builder::bundle::{self, Base, BaseError, Sent};
use boatyard_builder::export::Source;
use boatyard_content::{Lease, Root};

use super::{Args, failed};
use crate::images;
use crate::output::{count, size};
use crate::report::{self, Context as _, Failure, Result};

/// Finds out what the receiver has.
pub(super) fn base(args: &Args, root: &Root, lease: &Lease) -> Result<Base> {
    let mut base = Base::default();
    let mut any_file = false;
    for old in &args.since {
        let path = Path::new(old);
        match images::find(root, old) {
            Ok(found) => {
                images::hold(root, lease, &found.places[0])?;
                let image = Source {
                    names: Vec::new(),
                    target: found.target().clone(),
                    platform: args.platform.clone(),
                    annotations: std::collections::BTreeMap::new(),
                };
                base.add_image(&root.store(), &image, old).map_err(failed)?;
            }
            Err(_) if path.is_file() => {
                any_file = true;
                base.add_file(path).map_err(unusable)?;
            }
            Err(failure) => {
                return Err(failure.hint(
                    "--since also takes a file: a list of `boatyard save --list`, or an archive",
                ));
            }
        }
    }
    if any_file {
        // A file tells digests only: which of them are layers, the images of this machine say.
        for place in images::list(root)? {
            images::hold(root, lease, &place)?;
            base.know(&root.store(), &place.target);
        }
    }
    Ok(base)
}

fn unusable(error: BaseError) -> Failure {
    let hint = match &error {
        BaseError::NoLayout(_) => "archives of `save --format oci-archive` and bundles do",
        _ => "`boatyard save --list` writes such a file, on the machine that shall load the bundle",
    };
    Failure::new("cannot tell what the receiver has").because(error).hint(hint)
}

/// Writes the bundle, and says what is in it.
pub(super) fn write(root: &Root, sources: &[Source], base: &Base, sink: impl Write) -> Result<()> {
    let sink = BufWriter::with_capacity(1 << 20, sink);
    let (mut sink, outcome) = bundle::bundle(root, sources, base, sink).map_err(failed)?;
    sink.flush().context("cannot write the bundle")?;
    let (blobs, bytes) = outcome.left_out;
    report::note(&format!("left out: {}, {}", count(blobs as u64, "blob"), size(bytes)));
    outcome.layers.iter().for_each(tell);
    Ok(())
}

fn tell(sent: &Sent) {
    let Sent { blob, bytes, whole } = sent;
    let layer = format!("layer {}: {}", blob.digest.short(), size(*bytes));
    match whole {
        _ if *bytes < blob.size => {
            report::note(&format!("{layer}, a delta that stands for {}", size(blob.size)));
        }
        Some(why) => report::note(&format!("{layer}, whole: {why}")),
        None => report::note(&layer),
    }
}
