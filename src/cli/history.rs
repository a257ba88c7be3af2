//! `boatyard history`

use std::process::ExitCode;

use boatyard_builder::image::Image;
use boatyard_oci::{Descriptor, Platform};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::format::FormatArgs;
use crate::images;
use crate::output;
use crate::report::Result;
use crate::world::World;

/// Show how an image was made: its steps, the last one first.
///
/// SIZE is that of a step's layer, compressed as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a name, or the beginning of an image ID
    image: String,
    /// Do not shorten commands
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    format: FormatArgs,
    /// Print only image IDs
    #[arg(short, long, conflicts_with_all = ["format", "json"])]
    quiet: bool,
    /// Which image of one for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

/// How much of a command is shown: docker's width.
const COMMAND_WIDTH: usize = 45;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    created_at: Option<Timestamp>,
    created_since: String,
    created_by: String,
    size: String,
    bytes: u64,
    comment: String,
}

/// Prints the history.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let found = images::find(&root, &args.image)?;
    let image = images::open(&root, found.target(), args.platform.as_ref())?;
    let rows = rows(&image, Timestamp::now());
    if args.quiet {
        let id = |row: &Row| if args.no_trunc { row.id.clone() } else { short(&row.id) };
        rows.iter().try_for_each(|row| output::line(&id(row)))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.format.is_json() {
        rows.iter().try_for_each(output::json_line)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = rows.into_iter().map(|row| cells(row, args.no_trunc)).collect();
    output::table(["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(image: &Image, now: Timestamp) -> Vec<Row> {
    let mut layers = image.manifest.layers.iter();
    let mut rows: Vec<Row> = Vec::new();
    for step in &image.config.value().history {
        let layer = if step.empty_layer { None } else { layers.next() };
        rows.push(Row {
            created_by: step.created_by.clone(),
            comment: step.comment.clone(),
            ..row(step.created, layer, now)
        });
    }
    // Some builders say nothing, or less than there is.
    rows.extend(layers.map(|layer| row(None, Some(layer), now)));
    rows.reverse();
    if let Some(last) = rows.first_mut() {
        last.id = image.id().to_string();
    }
    rows
}

fn row(created_at: Option<Timestamp>, layer: Option<&Descriptor>, now: Timestamp) -> Row {
    let bytes = layer.map(|layer| layer.size).unwrap_or_default();
    Row {
        id: "<missing>".to_owned(),
        created_at,
        created_since: output::ago(created_at, now),
        created_by: String::new(),
        size: output::size(bytes),
        bytes,
        comment: String::new(),
    }
}

fn cells(row: Row, whole: bool) -> [String; 5] {
    let command = output::one_line(&row.created_by);
    let (id, command) = match whole {
        true => (row.id, command),
        false => (short(&row.id), output::shorten(&command, COMMAND_WIDTH)),
    };
    [id, row.created_since, command, row.size, output::one_line(&row.comment)]
}

fn short(id: &str) -> String {
    match id.strip_prefix("sha256:") {
        Some(hex) => hex.chars().take(12).collect(),
        None => id.to_owned(),
    }
}
