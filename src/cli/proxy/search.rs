//! `boatyard proxy search`

use std::process::ExitCode;

use boatyard_cache_proxy::catalogue::{self, Listed, Pattern};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::format::FormatArgs;
use crate::output;
use crate::report::{Context as _, Result};
use crate::world::World;

/// List what is kept, by a part of its address or by a pattern.
///
/// A text is found anywhere in an address; with * or ?, the whole address has to match:
/// '*/pool/*.deb'.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The text or pattern; without it, everything
    #[arg(default_value = "", hide_default_value = true)]
    pattern: String,
    #[command(flatten)]
    format: FormatArgs,
}

/// Something that is kept.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    url: String,
    digest: String,
    bytes: u64,
    received_at: Timestamp,
    last_used_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_by: Option<String>,
}

/// Lists it.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let found = catalogue::find(&root, &Pattern::new(&args.pattern))
        .context("cannot list what the cache proxy keeps")?;
    let rows: Vec<Row> = found.iter().flat_map(rows).collect();
    if args.format.is_json() {
        for row in &rows {
            output::json_line(row)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let cells = |row: &Row| {
        let digest = row.digest.split(':').next_back().unwrap_or_default();
        [
            output::one_line(&row.url),
            digest.chars().take(12).collect(),
            output::size(row.bytes),
            output::ago(Some(row.received_at), now),
            output::ago(row.last_used_at, now),
        ]
    };
    let cells: Vec<_> = rows.iter().map(cells).collect();
    output::table(["URL", "DIGEST", "SIZE", "FETCHED", "USED"], &cells)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a row for each variant.
pub fn rows(listed: &Listed) -> Vec<Row> {
    let used = listed.used.and_then(|used| Timestamp::try_from(used).ok());
    let row = |entry: &boatyard_cache_proxy::Entry| Row {
        url: entry.target.to_string(),
        digest: entry.blob.to_string(),
        bytes: entry.size,
        received_at: entry.policy.received,
        last_used_at: used,
        verified_by: entry.verified.clone(),
    };
    listed.entries.iter().map(row).collect()
}
