//! `boatyard proxy stats`

use std::process::ExitCode;

use jiff::Timestamp;

use crate::output;
use crate::proxy::record::{Recorded, Row};
use crate::report::Result;
use crate::world::World;

/// Show what was served: hits, misses and bytes saved, by ecosystem, upstream and client.
///
/// A hit is an answer from what is kept, or from a transfer that another request began. The server
/// writes its counts every two seconds; they go on after a restart.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the tallies.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let mut recorded = Recorded::read(world.root_path());
    // Those who take most first; the sum before all, and kinds together.
    let order = |row: &Row| ["all", "ecosystem", "upstream"].iter().position(|by| *by == row.by);
    recorded.tallies.sort_by_key(|row| (order(row).unwrap_or(9), std::cmp::Reverse(row.bytes)));
    if args.json {
        recorded.decisions.clear();
        output::json(&recorded)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(since) = recorded.since else {
        output::line("Nothing was served yet.")?;
        return Ok(ExitCode::SUCCESS);
    };
    let head = ["BY", "NAME", "HITS", "MISSES", "HIT RATE", "SENT", "SAVED"];
    let rows: Vec<_> = recorded.tallies.iter().map(cells).collect();
    output::table(head, &rows)?;
    output::line(&format!("Counted since {}.", output::ago(Some(since), Timestamp::now())))?;
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &Row) -> [String; 7] {
    let asked = row.hits + row.misses;
    let rate = (row.hits * 100).checked_div(asked).unwrap_or_default();
    [
        row.by.clone(),
        output::one_line(&row.name),
        row.hits.to_string(),
        row.misses.to_string(),
        format!("{rate}%"),
        output::size(row.bytes),
        output::size(row.bytes_saved),
    ]
}
