//! `boatyard backup`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boatyard_content::backup::{self, Backup, BackupError, BackupOptions, Taken};
use boatyard_content::local::adopt::Sharing;
use jiff::Timestamp;
use serde_json::json;

use crate::cli::format::Format;
use crate::output;
use crate::report::{Context as _, FAILED, Failure, Result};
use crate::world::World;

/// Back up repositories, users and packages into a directory, while everything runs.
///
/// The directory may be on another disk. Each run adds a snapshot and copies only the blobs that are
/// new; on a file system with reflinks they share their bytes. Caches are left out: mirrors, the cache
/// proxy's entries, the build cache. A run that was interrupted is run again, and goes on.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// The directory of the backup; made where there is none
    #[arg(value_name = "DIR", required = true)]
    directory: Option<PathBuf>,
    /// Also back up what can be fetched again: mirrors, the cache proxy, the build cache's layers
    #[arg(long)]
    with_cache: bool,
    /// Also back up the configuration file
    #[arg(long)]
    with_config: bool,
    /// Share bytes by hard links, where the backup lies on the same file system and that has no
    /// reflinks: no copy, and what damages a blob in its place damages both
    #[arg(long)]
    hard_link: bool,
    /// Print nothing but what failed
    #[arg(short, long)]
    quiet: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Prune(PruneArgs),
    Verify(VerifyArgs),
}

/// List the snapshots of a backup.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The directory of the backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print a table for people, or an object on each line for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Give up all snapshots but the newest, and the blobs that no other needs.
#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// The directory of the backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How many snapshots stay, one at least
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// Give up nothing, and say what would be
    #[arg(long)]
    dry_run: bool,
}

/// Read all of a backup again. Ends with 1 where a snapshot cannot be restored whole.
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The directory of the backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only this snapshot
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
}

/// Backs up, or looks after a backup.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    match &args.command {
        Some(Command::List(args)) => list(args),
        Some(Command::Prune(args)) => prune(args),
        Some(Command::Verify(args)) => verify(args),
        None => take(args, world),
    }
}

fn take(args: &Args, world: &World) -> Result<ExitCode> {
    let directory = args.directory.as_deref().unwrap_or(Path::new("."));
    let root = world.open_root()?;
    let what = format!("cannot back up {}", root.path().display());
    check_apart(root.path(), directory)?;
    let mut also = Vec::new();
    if let (true, Some(file)) = (args.with_config, world.config_file()) {
        let bytes = fs_err::read(file).context(&what)?;
        also.push(("boatyard.toml".to_owned(), bytes));
    }
    let sharing = if args.hard_link { Sharing::Links } else { Sharing::Reflinks };
    let options = BackupOptions { with_cache: args.with_cache, sharing, also };
    let backup = Backup::open_or_make(directory).map_err(|error| failure(&what, error))?;
    let taken = backup::take(&root, &backup, &options, &mut |_, _| {});
    let taken = taken.map_err(|error| failure(&what, error))?;
    if !args.quiet {
        tell(&taken)?;
    }
    if taken.lost.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for digest in &taken.lost {
        output::line(&format!("{digest} is missing or damaged here, and is not in the snapshot"))?;
    }
    output::line("`boatyard fsck --repair` says which images that breaks, and mends what it can.")?;
    Ok(ExitCode::from(FAILED))
}

/// A backup below the root would be in its own way, and goes with it.
fn check_apart(root: &Path, directory: &Path) -> Result<()> {
    let directory = std::path::absolute(directory).context("cannot find the backup")?;
    if !directory.starts_with(root) {
        return Ok(());
    }
    Err(Failure::usage(format!("{} lies in the root", directory.display()))
        .hint("name a directory elsewhere, best on another disk"))
}

fn tell(taken: &Taken) -> Result<()> {
    output::line(&format!(
        "Snapshot {}: {}, {}, {}",
        taken.name,
        many(taken.repositories, "repository", "repositories"),
        output::count(taken.tags, "tag"),
        output::count(taken.blobs, "blob"),
    ))?;
    output::line(&format!(
        "{} in {} new to the backup",
        output::size(taken.new_bytes),
        output::count(taken.new, "blob")
    ))
}

/// Returns a number with what it counts, where more of it is another word.
pub(super) fn many(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn list(args: &ListArgs) -> Result<ExitCode> {
    let what = "cannot list the snapshots";
    let backup = Backup::open(&args.directory).map_err(|error| failure(what, error))?;
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    for name in backup.snapshots().map_err(|error| failure(what, error))? {
        match backup.describe(&name) {
            Ok(snapshot) if args.format == Format::Json => output::json_line(&json!({
                "Name": name.as_str(),
                "TakenAt": snapshot.head.taken,
                "Root": snapshot.head.root,
                "WithCache": snapshot.head.with_cache,
                "Repositories": snapshot.repositories,
                "Tags": snapshot.tags,
                "Blobs": snapshot.blobs,
                "Bytes": snapshot.bytes,
            }))?,
            Ok(snapshot) => rows.push([
                name.to_string(),
                output::ago(Some(snapshot.head.taken), Timestamp::now()),
                snapshot.repositories.to_string(),
                snapshot.tags.to_string(),
                snapshot.blobs.to_string(),
                output::size(snapshot.bytes),
            ]),
            Err(error) => broken.push(error),
        }
    }
    if args.format == Format::Table {
        let head = ["SNAPSHOT", "TAKEN", "REPOSITORIES", "TAGS", "BLOBS", "SIZE"];
        output::table(head, &rows)?;
    }
    match broken.into_iter().next() {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(failure("a snapshot cannot be read", error)),
    }
}

fn prune(args: &PruneArgs) -> Result<ExitCode> {
    let what = "cannot prune the backup";
    let backup = Backup::open_to_change(&args.directory).map_err(|error| failure(what, error))?;
    let pruned = backup::prune(&backup, args.keep as usize, args.dry_run)
        .map_err(|error| failure(what, error))?;
    let would = if args.dry_run { "Would give up" } else { "Gave up" };
    for name in &pruned.snapshots {
        output::line(&format!("{would} snapshot {name}"))?;
    }
    let (bytes, blobs) = (output::size(pruned.bytes), output::count(pruned.blobs, "blob"));
    output::line(&format!("{would} {bytes} in {blobs}"))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let what = "cannot verify the backup";
    let failed = |error| failure(what, error);
    let backup = Backup::open_to_change(&args.directory).map_err(failed)?;
    let only = args.snapshot.as_deref().map(|name| backup.find(Some(name))).transpose();
    let only = only.map_err(failed)?;
    let verified = backup::verify(&backup, only.as_ref(), &mut |_| {}).map_err(failed)?;
    for digest in &verified.lost {
        output::line(&format!("lost: {digest}"))?;
    }
    for (name, problem) in &verified.broken {
        output::line(&format!("snapshot {name} cannot be restored whole: {problem}"))?;
    }
    output::line(&format!(
        "{}, {}: {} whole, {} broken",
        output::count(verified.blobs, "blob"),
        output::size(verified.bytes),
        output::count(verified.whole.len() as u64, "snapshot"),
        verified.broken.len()
    ))?;
    if verified.broken.is_empty() && verified.lost.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    output::line("Back up again: what the root still has is brought anew.")?;
    Ok(ExitCode::from(FAILED))
}

/// Returns the failure of what was done with a backup, with what may help.
pub(super) fn failure(what: &str, error: BackupError) -> Failure {
    let hint = match &error {
        BackupError::Foreign { .. } => Some("name an empty directory, or a new one"),
        BackupError::Nothing { .. } => Some("`boatyard backup DIR` makes one"),
        BackupError::Busy { .. } => Some("try again when it is done"),
        BackupError::NoSnapshot { .. } => Some("`boatyard backup list DIR` lists the snapshots"),
        BackupError::Snapshot { .. } => {
            Some("restore another one: `boatyard backup list DIR` lists them")
        }
        BackupError::Occupied { .. } => {
            Some("name an empty root with --root, or add to this one with --into-existing")
        }
        BackupError::Restoring { .. } => {
            Some("restore that one to the end, or delete the directory and begin anew")
        }
        _ => None,
    };
    let failure = Failure::new(what).because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
