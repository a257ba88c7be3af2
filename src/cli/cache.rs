//! `boatyard cache`

mod travel;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use boatyard_builder::cache::{
    Amount, Cache, CacheMounts, Kept, KeptRecord, Limits, Pruned, Rules, What,
};
use boatyard_builder::snapshot::Layers;
use boatyard_content::gc::GcOptions;
use boatyard_content::{Lease, Root};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::format::FormatArgs;
use crate::isolation;
use crate::output;
use crate::quantity::{parse_amount, parse_duration};
use crate::report::{self, Context as _, Result};
use crate::world::World;

/// Show what builds keep to be reused, or remove it.
///
/// Nobody has to: at the end of a build, what is too much, too old, or too much for the free space
/// goes by itself. The configuration's [cache] says how much that is.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Prune(PruneArgs),
    Export(travel::ExportArgs),
    Import(travel::ImportArgs),
    Explain(travel::ExplainArgs),
}

/// List the steps whose results are kept, the one that was used last first.
///
/// SIZE is what removing a step's layer would free: nothing, as long as an image has that layer
/// too. Caches that steps mount are listed by their ids. Tables of contents and what is remembered
/// of build contexts are summed up.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Do not shorten keys and instructions
    #[arg(long)]
    no_trunc: bool,
}

/// Remove what builds keep, least recently used first.
///
/// What a running build relies on stays, and so does a layer that an image has too: that would free
/// nothing.
#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// Also forget steps whose layers an image has too
    #[arg(short, long)]
    all: bool,
    /// Only what was not used for so long, such as 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Only caches that steps mount: RUN --mount=type=cache
    #[arg(long)]
    mounts: bool,
    /// Stop as soon as no more than this is kept, such as 10GB or 5%
    #[arg(long, value_name = "SIZE", value_parser = parse_amount)]
    keep_size: Option<Amount>,
    /// Remove nothing, and say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// How much of an instruction is shown.
const INSTRUCTION_WIDTH: usize = 48;

/// Lists or prunes.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    if let Command::Explain(args) = &args.command {
        travel::explain(args, world)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Export(_) | Command::Import(_) = &args.command {
        // Layers are read and checked as builds do.
        let world = &world.with_rung(isolation::isolate(world.config.build.isolation)?);
        let root = world.open_root()?;
        match &args.command {
            Command::Export(args) => travel::export(args, world, &root)?,
            Command::Import(args) => travel::import(args, world, &root)?,
            _ => {}
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mounts = CacheMounts::below(world.root_path());
    if !mounts.is_empty().context("cannot list the build cache")? {
        // What steps keep there is closed to an ordinary user.
        isolation::become_root()?;
    }
    let root = world.open_root()?;
    match &args.command {
        Command::List(args) => list(args, &root)?,
        Command::Prune(args) => prune(args, world, &root)?,
        Command::Export(_) | Command::Import(_) | Command::Explain(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Prunes the cache to the configured limits, at the end of a build. That it failed is only worth a
/// warning: the build is done.
pub fn enforce(world: &World, root: &Arc<Root>) {
    let config = &world.config;
    let limits = Limits {
        max_size: config.cache.max_size,
        max_age: config.cache.max_age,
        min_free: config.cache.min_free,
        unpacked_age: config.gc.layers(),
        gc: GcOptions { grace: config.gc.grace(), ..GcOptions::default() },
    };
    boatyard_builder::logs::prune(root.path(), limits.max_age, std::time::SystemTime::now());
    let enforced = layers(root).and_then(|layers| {
        Cache::open(root).enforce(&layers, &limits).context("cannot prune the build cache")
    });
    if let Err(failure) = enforced {
        report::warn(failure.to_string().trim_start_matches("error: "));
    }
}

fn layers(root: &Root) -> Result<Vec<Layers>> {
    Layers::open_all(root.path(), &Lease::unheld()).context("cannot open the unpacked layers")
}

/// One line of the list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    /// `step`, `layer`, `mount`, `fetched`, `contents` or `contexts`.
    kind: &'static str,
    dockerfile: String,
    line: u32,
    stage: String,
    instruction: String,
    layer: String,
    size: String,
    bytes: u64,
    created_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    in_use: bool,
    /// An image has the layer too.
    shared: bool,
}

fn list(args: &ListArgs, root: &Arc<Root>) -> Result<()> {
    let usage = Cache::open(root).usage().context("cannot list the build cache")?;
    let total = usage.bytes();
    let mut rows: Vec<Row> = usage.kept.iter().flat_map(rows_of).collect();
    rows.sort_by(|a, b| b.last_used_at.cmp(&a.last_used_at).then_with(|| a.id.cmp(&b.id)));
    rows.extend(sum(&usage.kept, "contents", "tables of contents", is_contents));
    rows.extend(sum(&usage.kept, "contexts", "what is remembered of contexts", is_stat));
    if args.format.is_json() {
        return rows.iter().try_for_each(output::json_line);
    }
    let now = Timestamp::now();
    let rows: Vec<_> = rows.iter().map(|row| cells(row, now, args.no_trunc)).collect();
    output::table(["KEY", "STAGE", "STEP", "SIZE", "CREATED", "LAST USED", "HELD"], &rows)?;
    output::line(&format!("Total: {}", output::size(total)))
}

/// Returns a line for each record; the layer's bytes count for the first.
fn rows_of(kept: &Kept) -> Vec<Row> {
    let (what, layer) = match &kept.what {
        What::Layer(diff_id) => (None, diff_id.to_string()),
        What::Fetched(from) => (Some(from), String::new()),
        What::Mount(_) => (None, String::new()),
        What::Contents(_) | What::Stat(_) => return Vec::new(),
    };
    let row = |id: String, kind, bytes| Row {
        id,
        kind,
        dockerfile: String::new(),
        line: 0,
        stage: String::new(),
        instruction: String::new(),
        layer: layer.clone(),
        size: output::size(bytes),
        bytes,
        created_at: None,
        last_used_at: Timestamp::try_from(kept.used).ok(),
        in_use: kept.is_in_use,
        shared: kept.is_shared,
    };
    if let What::Mount(name) = &kept.what {
        return vec![Row {
            instruction: name_of(kept),
            created_at: kept.about.as_ref().map(|about| about.created),
            ..row(name.clone(), "mount", kept.bytes)
        }];
    }
    if let Some(from) = what {
        return vec![Row {
            instruction: format!("fetched from {from}"),
            ..row(String::new(), "fetched", kept.bytes)
        }];
    }
    if kept.records.is_empty() {
        let hex = layer.split_once(':').map_or("", |(_, hex)| hex);
        return vec![Row {
            instruction: "a layer that no step names".to_owned(),
            ..row(hex.to_owned(), "layer", kept.bytes)
        }];
    }
    let step = |(at, KeptRecord { key, record, used, .. }): (usize, &KeptRecord)| Row {
        dockerfile: record.dockerfile.clone(),
        line: record.line,
        stage: record.stage.clone(),
        instruction: record.text.clone(),
        created_at: Some(record.created),
        last_used_at: Timestamp::try_from(*used).ok(),
        ..row(key.to_string(), "step", if at == 0 { kept.bytes } else { 0 })
    };
    kept.records.iter().enumerate().map(step).collect()
}

/// Returns what a cache is called that steps mount.
fn name_of(kept: &Kept) -> String {
    match &kept.about {
        Some(about) => format!("cache {}", about.id),
        None => "a cache whose description is damaged".to_owned(),
    }
}

fn is_contents(kept: &&Kept) -> bool {
    matches!(kept.what, What::Contents(_))
}

fn is_stat(kept: &&Kept) -> bool {
    matches!(kept.what, What::Stat(_))
}

/// Returns one line for all things of a kind.
fn sum(
    kept: &[Kept],
    kind: &'static str,
    name: &str,
    is_meant: impl Fn(&&Kept) -> bool,
) -> Option<Row> {
    let meant: Vec<&Kept> = kept.iter().filter(is_meant).collect();
    let bytes = meant.iter().map(|kept| kept.bytes).sum();
    let used = meant.iter().map(|kept| kept.used).max()?;
    Some(Row {
        id: String::new(),
        kind,
        dockerfile: String::new(),
        line: 0,
        stage: String::new(),
        instruction: format!("{name}: {}", meant.len()),
        layer: String::new(),
        size: output::size(bytes),
        bytes,
        created_at: None,
        last_used_at: Timestamp::try_from(used).ok(),
        in_use: false,
        shared: false,
    })
}

fn cells(row: &Row, now: Timestamp, whole: bool) -> [String; 7] {
    let held = match (row.in_use, row.shared) {
        (true, true) => "in use, image",
        (true, false) => "in use",
        (false, true) => "image",
        (false, false) => "",
    };
    let instruction = output::one_line(&row.instruction);
    let (id, instruction) = match whole {
        true => (row.id.clone(), instruction),
        false => {
            (row.id.chars().take(12).collect(), output::shorten(&instruction, INSTRUCTION_WIDTH))
        }
    };
    [
        id,
        row.stage.clone(),
        instruction,
        row.size.clone(),
        row.created_at.map(|at| output::ago(Some(at), now)).unwrap_or_default(),
        output::ago(row.last_used_at, now),
        held.to_owned(),
    ]
}

fn prune(args: &PruneArgs, world: &World, root: &Arc<Root>) -> Result<()> {
    let failed = "cannot prune the build cache";
    let cache = Cache::open(root);
    let keep_bytes = args.keep_size.map(|size| cache.bytes_of(size)).transpose();
    let rules = Rules {
        all: args.all,
        older_than: args.older_than,
        keep_bytes: keep_bytes.context(failed)?,
        only_mounts: args.mounts,
    };
    let gc =
        GcOptions { grace: world.config.gc.grace(), dry_run: args.dry_run, ..GcOptions::default() };
    let pruned = cache.prune(&layers(root)?, &rules, &gc).context(failed)?;
    tell(&pruned, args.dry_run, gc.grace)
}

fn tell(pruned: &Pruned, dry_run: bool, grace: Duration) -> Result<()> {
    for kept in &pruned.removed {
        let id = match (&kept.what, kept.records.first()) {
            (_, Some(record)) => record.key.short(),
            (What::Layer(diff_id) | What::Contents(diff_id), None) => {
                diff_id.digest().short().to_owned()
            }
            (What::Stat(_) | What::Fetched(_), None) => String::new(),
            (What::Mount(name), None) => name.chars().take(12).collect(),
        };
        let name = match (&kept.what, kept.records.first()) {
            (_, Some(record)) => output::one_line(&record.record.text),
            (What::Layer(_), None) => "a layer that no step names".to_owned(),
            (What::Contents(_), None) => "a table of contents".to_owned(),
            (What::Stat(_), None) => "what is remembered of a context".to_owned(),
            (What::Mount(_), None) => name_of(kept),
            (What::Fetched(from), None) => format!("what was fetched from {from}"),
        };
        let name = output::shorten(&name, INSTRUCTION_WIDTH);
        output::line(&format!("{id:12}   {name}   {}", output::size(kept.bytes)))?;
    }
    let would = if dry_run { "Would free" } else { "Freed" };
    output::line(&format!("{would} {}", output::size(pruned.freed_bytes)))?;
    if pruned.waiting_bytes > 0 {
        output::line(&format!(
            "{} more are younger than {}, the grace period of blobs: `boatyard gc` frees them then, \
             and so does a later build",
            output::size(pruned.waiting_bytes),
            output::span(grace).to_lowercase(),
        ))?;
    }
    Ok(())
}
