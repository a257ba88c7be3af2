//! `boatyard proxy import`

use std::path::PathBuf;
use std::process::ExitCode;

use boatyard_cache_proxy::import::{self, Imported, Origin};

use crate::output;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Take in a directory of packages, or the cache of apt-cacher-ng.
///
/// Packages become hits as soon as an index promises their digests, whatever their names are. With
/// --as, they also have an address. The cache of apt-cacher-ng is known by its `.head` files; its
/// files say where they are from. The directory stays as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory
    directory: PathBuf,
    /// The address that the directory stands for: http://deb.example/debian/pool
    #[arg(long = "as", value_name = "URL")]
    base: Option<String>,
    /// Name each file
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Default)]
struct Sum {
    kept: u64,
    bytes: u64,
    known: u64,
    skipped: u64,
}

/// Imports.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    if !args.directory.is_dir() {
        return Err(Failure::usage(format!("{} is no directory", args.directory.display())));
    }
    let origin = match &args.base {
        Some(base) => {
            base.parse::<boatyard_cache_proxy::Target>().map_err(|error| {
                Failure::usage(format!("`{base}` is no address to import as")).because(error)
            })?;
            Origin::Below(base.clone())
        }
        None if Origin::has_heads(&args.directory) => Origin::Heads,
        None => Origin::Unknown,
    };
    let root = world.open_root()?;
    let (mut sum, mut lines) = (Sum::default(), Vec::new());
    let mut tell = |imported: &Imported| match imported {
        Imported::Kept { target, bytes, .. } => {
            sum.kept += 1;
            sum.bytes += bytes;
            lines.extend(args.verbose.then(|| format!("{target}   {}", output::size(*bytes))));
        }
        Imported::Known(target) => {
            sum.known += 1;
            lines.extend(args.verbose.then(|| format!("{target}   kept already")));
        }
        Imported::Skipped(path, reason) => {
            sum.skipped += 1;
            lines.push(format!("{}   left out: {reason}", path.display()));
        }
    };
    let done = import::import(&root, &args.directory, &origin, &mut tell);
    for line in &lines {
        output::line(&output::one_line(line))?;
    }
    done.context(format!("cannot import {}", args.directory.display()))?;
    let files = |number: u64| output::count(number, "file");
    let mut text = format!("Imported {}, {}", files(sum.kept), output::size(sum.bytes));
    if sum.known > 0 {
        text.push_str(&format!("; {} kept already", files(sum.known)));
    }
    if sum.skipped > 0 {
        text.push_str(&format!("; {} left out", files(sum.skipped)));
    }
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}
