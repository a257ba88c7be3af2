//! `boatyard df`

use std::process::ExitCode;

use boatyard_content::usage::{self, Group, Held, Sum, Usage};
use serde::Serialize;

use crate::cli::format::FormatArgs;
use crate::isolation;
use crate::output;
use crate::report::{Context as _, Result};
use crate::world::World;

/// How many repositories are listed where nobody asks for all.
const LISTED: usize = 10;

/// Show what takes the space: registry, mirrors, images, build cache, cache proxy.
///
/// A blob is kept once, however many need it. ALONE is what nobody else needs: what giving it up
/// would free.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List all repositories, and not only the largest
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// Measures and prints.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    isolation::become_root()?;
    let root = world.open_root()?;
    let usage = usage::measure(&root).context("cannot measure what is kept")?;
    let disk = rustix::fs::statvfs(root.path()).ok();
    let report = Report::of(&usage, disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)));
    if args.format.is_json() {
        output::json(&report)?;
    } else {
        print(&report, args.verbose)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    blobs: Row,
    unreferenced: Row,
    holders: Vec<Row>,
    repositories: Vec<Row>,
    directories: Vec<Row>,
    total_bytes: u64,
    free_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    name: String,
    count: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    alone_bytes: Option<u64>,
}

impl Row {
    fn of(name: impl Into<String>, sum: Sum) -> Row {
        Row { name: name.into(), count: sum.count, bytes: sum.bytes, alone_bytes: None }
    }

    fn held(name: impl Into<String>, held: &Held) -> Row {
        Row { alone_bytes: Some(held.alone.bytes), ..Row::of(name, held.all) }
    }
}

impl Report {
    fn of(usage: &Usage, free_bytes: Option<u64>) -> Report {
        let holders = usage.groups.iter().map(|(group, held)| Row::held(group_name(group), held));
        let mut repositories: Vec<Row> =
            usage.repositories.iter().map(|(key, held)| Row::held(key.as_str(), held)).collect();
        repositories
            .sort_by(|one, other| other.bytes.cmp(&one.bytes).then(one.name.cmp(&other.name)));
        let directories = usage.directories.iter().filter(|(_, sum)| sum.count > 0);
        let directories: Vec<Row> =
            directories.map(|(name, sum)| Row::of(directory_name(name), *sum)).collect();
        Report {
            blobs: Row::of("blobs", usage.blobs),
            unreferenced: Row::of("unreferenced", usage.unheld),
            holders: holders.collect(),
            repositories,
            total_bytes: usage.blobs.bytes
                + directories.iter().map(|directory| directory.bytes).sum::<u64>(),
            directories,
            free_bytes,
        }
    }
}

fn group_name(group: &Group) -> String {
    match group {
        Group::Hosted => "registry".to_owned(),
        Group::Mirror(upstream) => format!("mirror of {upstream}"),
        Group::Images => "images of this machine".to_owned(),
        Group::BuildCache => "build cache".to_owned(),
        Group::Proxy => "cache proxy".to_owned(),
        Group::Packages => "private packages".to_owned(),
    }
}

fn directory_name(name: &str) -> &str {
    match name {
        "layers" => "unpacked layers",
        "active" => "steps that run",
        "contents" => "tables of layers",
        "cache" => "records of builds",
        "ingest" => "unfinished transfers",
        "logs" => "logs",
        name => name,
    }
}

fn print(report: &Report, all: bool) -> Result<()> {
    let cells = |row: &Row| {
        let alone = row.alone_bytes.map_or_else(|| "-".to_owned(), output::size);
        [row.name.clone(), row.count.to_string(), output::size(row.bytes), alone]
    };
    let rows: Vec<_> = report
        .holders
        .iter()
        .chain(Some(&report.unreferenced).filter(|row| row.count > 0))
        .chain(&report.directories)
        .map(cells)
        .collect();
    output::table(["WHAT", "NUMBER", "SIZE", "ALONE"], &rows)?;
    if !report.repositories.is_empty() {
        let listed = if all { report.repositories.len() } else { LISTED };
        let rows: Vec<_> = report.repositories.iter().take(listed).map(cells).collect();
        output::line("")?;
        output::table(["REPOSITORY", "BLOBS", "SIZE", "ALONE"], &rows)?;
        if report.repositories.len() > listed {
            let more = (report.repositories.len() - listed) as u64;
            output::line(&format!("and {}: --verbose lists all", output::count(more, "more")))?;
        }
    }
    let free = report
        .free_bytes
        .map_or_else(String::new, |free| format!(", {} free on its disk", output::size(free)));
    output::line("")?;
    output::line(&format!(
        "{} in all, {} of it in {}{free}",
        output::size(report.total_bytes),
        output::size(report.blobs.bytes),
        output::count(report.blobs.count, "blob"),
    ))
}
