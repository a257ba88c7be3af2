//! `boatyard gc`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use boatyard_builder::cache::Cache;
use boatyard_builder::snapshot::Layers;
use boatyard_content::gc::{self, GcError, GcOptions, GcReport};
use boatyard_content::{Lease, Root};

use crate::isolation;
use crate::output;
use crate::quantity::parse_duration;
use crate::report::{self, Context as _, Failure, Result};
use crate::world::World;

/// Delete blobs that nothing refers to any more, and unpacked layers that no build used lately.
///
/// It can run at any time, beside servers, builds and pushes: what they rely on stays, and so does
/// for an hour what a client was told of. Unpacked layers are a cache: a build that needs one
/// again unpacks it again. What builds keep to be reused is no garbage: see `boatyard cache`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Delete nothing, and say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// How long a blob stays that a client was told of, such as 30m, 2h or 1d [default: what the
    /// configuration says, else 1h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    /// How long an unpacked layer stays that no build uses [default: what the configuration says,
    /// else 2d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    layers: Option<Duration>,
    /// List what is deleted
    #[arg(short, long)]
    verbose: bool,
}

/// Collects.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    isolation::become_root()?;
    let grace = args.grace.unwrap_or_else(|| world.config.gc.grace());
    if grace.is_zero() && !args.dry_run {
        report::warn(
            "with --grace 0 a push that is under way on a server of this root can fail: a client \
             may have been told of a blob that is deleted now",
        );
    }
    let root = world.open_root()?;
    let layers = sweep_layers(world, &root, args)?;
    let options = GcOptions { grace, dry_run: args.dry_run, ..GcOptions::default() };
    let report = gc::collect(&root, &options).map_err(|error| {
        let running = matches!(error, GcError::Running);
        let failure = Failure::new("cannot collect").because(error);
        if running { failure.hint("it does the same work: wait for it") } else { failure }
    })?;
    if args.verbose {
        for blob in &report.freed {
            output::line(&format!("{} {}", blob.digest, output::size(blob.size)))?;
        }
    }
    tell(&report, args.dry_run)?;
    if layers > 0 {
        let would = if args.dry_run { "would be" } else { "were" };
        output::line(&format!("{} {would} removed", output::count(layers, "unpacked layer")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes unpacked layers that nobody used lately, and what ended builds left behind.
fn sweep_layers(world: &World, root: &Arc<Root>, args: &Args) -> Result<u64> {
    let failed = "cannot remove unpacked layers";
    let unused = args.layers.unwrap_or_else(|| world.config.gc.layers());
    let layers = Layers::open_all(root.path(), &Lease::unheld()).context(failed)?;
    if !args.dry_run {
        let swept = layers.iter().try_for_each(Layers::sweep_active);
        swept.context("cannot remove what ended builds left behind")?;
    }
    Cache::open(root).sweep_unpacked(&layers, unused, args.dry_run).context(failed)
}

fn tell(report: &GcReport, dry_run: bool) -> Result<()> {
    let (would, freed) = if dry_run { ("Would free", "would be") } else { ("Freed", "were") };
    output::line(&format!(
        "{would} {} in {}",
        output::size(report.freed_bytes()),
        output::count(report.freed.len() as u64, "blob")
    ))?;
    let kept = format!(
        "{} in {} stay",
        output::size(report.kept_bytes),
        output::count(report.kept, "blob")
    );
    match report.kept_for_now {
        0 => output::line(&kept)?,
        now => output::line(&format!("{kept}, {now} of them only for now: young, or in use"))?,
    }
    if report.unlinked > 0 {
        let links = output::count(report.unlinked, "link");
        output::line(&format!("{links} of unfinished pushes {freed} removed"))?;
    }
    if report.abandoned > 0 {
        let transfers = output::count(report.abandoned, "unfinished transfer");
        output::line(&format!("{transfers} {freed} given up"))?;
    }
    Ok(())
}
