//! `boatyard fsck`

use std::process::ExitCode;
use std::time::Duration;

use boatyard_content::BlobInfo;
use boatyard_content::fsck::{self, BrokenManifest, DamagedBlob, FsckReport};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::report::{Context as _, FAILED, Result};
use crate::world::World;

/// Read and hash every blob, and look for what each image needs.
///
/// A damaged blob is moved to ROOT/quarantine, so that pushing, pulling or building it again puts
/// it right. Ends with 1 where something is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave damaged blobs where they are
    #[arg(long)]
    no_quarantine: bool,
}

/// Checks.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let progress = Progress::new();
    let report = fsck::check(&root, !args.no_quarantine, &mut |blob| progress.seen(blob));
    progress.bar.finish_and_clear();
    let report = report.context(format!("cannot check {}", root.path().display()))?;
    tell(&report, !args.no_quarantine)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// A line that counts on a terminal, and nothing elsewhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Progress {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template(
            "{spinner} checking: {decimal_bytes} {decimal_bytes_per_sec} {msg}",
        );
        // The template is a constant that is known to be one.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar }
    }

    fn seen(&self, blob: &BlobInfo) {
        self.bar.inc(blob.size);
        self.bar.set_message(blob.digest.short().to_owned());
    }
}

fn tell(report: &FsckReport, quarantine: bool) -> Result<()> {
    report.damaged.iter().try_for_each(|blob| output::line(&damaged(blob)))?;
    report.broken.iter().try_for_each(|manifest| output::line(&broken(manifest)))?;
    output::line(&format!(
        "{} blobs, {}: {}",
        report.blobs,
        output::size(report.bytes),
        if report.is_clean() { "all is well".to_owned() } else { findings(report) }
    ))?;
    if !report.damaged.is_empty() && quarantine {
        output::line("Damaged blobs are in the quarantine; push, pull or build them again.")?;
    }
    Ok(())
}

fn findings(report: &FsckReport) -> String {
    format!("{} damaged, {} manifests not whole", report.damaged.len(), report.broken.len())
}

fn damaged(blob: &DamagedBlob) -> String {
    let DamagedBlob { blob, got } = blob;
    match got {
        Some(got) => {
            format!("damaged: {} ({}) has the digest {got}", blob.digest, output::size(blob.size))
        }
        None => format!("damaged: {} ({}) cannot be read", blob.digest, output::size(blob.size)),
    }
}

fn broken(manifest: &BrokenManifest) -> String {
    let tags: Vec<_> = manifest.tags.iter().map(ToString::to_string).collect();
    let named = if tags.is_empty() { String::new() } else { format!(" ({})", tags.join(", ")) };
    let missing: Vec<_> = manifest.missing.iter().map(ToString::to_string).collect();
    format!(
        "not whole: {} {}{named} lacks {}",
        manifest.repository,
        manifest.manifest,
        missing.join(", ")
    )
}
