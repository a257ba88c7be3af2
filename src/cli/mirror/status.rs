//! `boatyard mirror status`

use std::process::ExitCode;
use std::time::SystemTime;

use boatyard_content::Root;
use boatyard_registry::Mirror;
use boatyard_registry::mirror::evict;
use serde::Serialize;

use crate::cli::format::Format;
use crate::cli::runtime;
use crate::report::{Context as _, Result};
use crate::world::World;
use crate::{mirrors, output};

/// Say of each mirror whether its upstream answers, and how much is kept of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a table for people, or an object on each line for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    upstream: String,
    /// `yes`, `offline` as it is configured, or why not.
    reachable: String,
    repositories: usize,
    blobs: usize,
    bytes: u64,
    bytes_max: Option<u64>,
}

/// Asks and prints.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let mirrors = mirrors::open(world, &root, &mirrors::transfers(&root))?;
    let runtime = runtime()?;
    let mut rows = Vec::new();
    for mirror in mirrors.all() {
        let reachable = match mirror.is_offline() {
            true => "offline".to_owned(),
            false => match runtime.block_on(mirror.reach()) {
                Ok(()) => "yes".to_owned(),
                Err(error) => format!("no: {}", last_cause(&error)),
            },
        };
        rows.push(row(&root, mirror, reachable)?);
    }
    if args.format == Format::Json {
        rows.iter().try_for_each(output::json_line)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 7]> = rows.into_iter().map(Row::cells).collect();
    output::table(
        ["NAME", "UPSTREAM", "REACHABLE", "REPOSITORIES", "BLOBS", "SIZE", "LIMIT"],
        &rows,
    )?;
    Ok(ExitCode::SUCCESS)
}

fn row(root: &Root, mirror: &Mirror, reachable: String) -> Result<Row> {
    let failed = || format!("cannot tell what is kept of {}", mirror.host());
    let repositories = root.repositories().names(&mirror.space(), None, usize::MAX);
    let (blobs, _) = evict::kept(root, &mirror.space(), SystemTime::now()).context(failed())?;
    Ok(Row {
        name: mirror.name().to_owned(),
        upstream: mirror.host().to_string(),
        reachable,
        repositories: repositories.context(failed())?.len(),
        blobs: blobs.len(),
        bytes: blobs.iter().map(|blob| blob.size).sum(),
        bytes_max: mirror.bytes_max(),
    })
}

impl Row {
    fn cells(self) -> [String; 7] {
        [
            self.name,
            self.upstream,
            self.reachable,
            self.repositories.to_string(),
            self.blobs.to_string(),
            output::size(self.bytes),
            self.bytes_max.map_or_else(|| "none".to_owned(), output::size),
        ]
    }
}

/// Returns the innermost reason, which is the one that tells two failures apart.
fn last_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
