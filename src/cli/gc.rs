//! `boatyard gc`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use boatyard_builder::cache::Cache;
use boatyard_builder::snapshot::Layers;
use boatyard_content::gc::{self, GcError, GcOptions, GcReport};
use boatyard_content::{Lease, Root};
use boatyard_oci::Digest;
use jiff::Timestamp;

use crate::isolation;
use crate::output;
use crate::quantity::parse_duration;
use crate::report::{self, Context as _, FAILED, Failure, Result};
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
    /// Delete nothing, and say what keeps this blob
    #[arg(long, value_name = "DIGEST", conflicts_with_all = ["dry_run", "layers", "verbose"])]
    why: Option<Digest>,
}

/// Collects.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    isolation::become_root()?;
    let grace = args.grace.unwrap_or_else(|| world.config.gc.grace());
    if grace.is_zero() && !args.dry_run && args.why.is_none() {
        report::warn(
            "with --grace 0 a push that is under way on a server of this root can fail: a client \
             may have been told of a blob that is deleted now",
        );
    }
    let root = world.open_root()?;
    if let Some(digest) = &args.why {
        return why(&root, digest, grace);
    }
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

/// Says what keeps a blob. Ends with 1 where it is not there.
fn why(root: &Root, digest: &Digest, grace: Duration) -> Result<ExitCode> {
    let why = gc::why(root, digest, grace).context("cannot tell what is held")?;
    let Some(blob) = &why.blob else {
        output::line(&format!("{digest} is not here"))?;
        let held = why.holders.iter().map(|holder| format!("  {holder}, and so lacks it"));
        held.into_iter().try_for_each(|line| output::line(&line))?;
        return Ok(ExitCode::from(FAILED));
    };
    let size = output::size(blob.size);
    if why.is_garbage() {
        output::line(&format!("{digest} ({size}) is garbage: the next collection deletes it"))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("{digest} ({size}) stays:"))?;
    why.holders.iter().try_for_each(|holder| output::line(&format!("  {holder}")))?;
    why.leased.iter().try_for_each(|member| output::line(&format!("  in use by {member}")))?;
    if let Some(until) = why.young_until.and_then(|until| Timestamp::try_from(until).ok()) {
        output::line(&format!("  somebody was told of it: it stays until {until:.0} at least"))?;
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
