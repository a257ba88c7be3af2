//! `boatyard restore`

use std::path::PathBuf;
use std::process::ExitCode;

use boatyard_content::backup::{self, Backup, RestoreOptions, Restored};

use crate::cli::backup::{failure, many};
use crate::output;
use crate::report::{Context as _, FAILED, Result};
use crate::world::World;

/// Restore a backup into an empty root.
///
/// Every blob is read and compared. A root that is in use is refused. A restore that was interrupted
/// is run again, and goes on; until it has come to its end nobody else can use the root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of the backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The snapshot, as `boatyard backup list` names it [default: the newest]
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    /// Add to a root that has something in it, also while it is in use: what is there stays
    #[arg(long)]
    into_existing: bool,
    /// Write the configuration that was backed up into this file
    #[arg(long, value_name = "FILE")]
    config_to: Option<PathBuf>,
}

/// Restores.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let what = format!("cannot restore {}", args.directory.display());
    let failed = |error| failure(&what, error);
    let backup = Backup::open(&args.directory).map_err(failed)?;
    let name = backup.find(args.snapshot.as_deref()).map_err(failed)?;
    let root = if args.into_existing { world.open_root()? } else { world.open_root_alone()? };
    let options = RestoreOptions { into_existing: args.into_existing };
    let restored = backup::restore(&backup, &name, &root, &options, &mut |_| {});
    let restored = restored.map_err(failed)?;
    if let Some(file) = &args.config_to {
        for (_, bytes) in &restored.also {
            fs_err::write(file, bytes).context("cannot write the configuration")?;
        }
    }
    tell(args, &restored, name.as_str())
}

fn tell(args: &Args, restored: &Restored, name: &str) -> Result<ExitCode> {
    output::line(&format!(
        "Restored snapshot {name}: {}, {}, {} ({} new here)",
        many(restored.repositories, "repository", "repositories"),
        output::count(restored.tags, "tag"),
        output::count(restored.blobs, "blob"),
        restored.new
    ))?;
    for tag in &restored.kept {
        output::line(&format!("{tag} points elsewhere here, and stays so"))?;
    }
    if !restored.also.is_empty() && args.config_to.is_none() {
        output::line("The backup has a configuration, too: --config-to FILE writes it.")?;
    }
    for digest in &restored.lost {
        output::line(&format!("lost: the backup does not have {digest}"))?;
    }
    for image in &restored.left_out {
        output::line(&format!("left out, for it lacks something: {image}"))?;
    }
    let is_whole = restored.lost.is_empty() && restored.left_out.is_empty();
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
