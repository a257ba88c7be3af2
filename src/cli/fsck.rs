//! `boatyard fsck`

use std::process::ExitCode;
use std::time::Duration;

use boatyard_access::RepositoryPattern;
use boatyard_builder::snapshot::Layers;
use boatyard_builder::snapshot::check::Checked;
use boatyard_content::entries::EntryKey;
use boatyard_content::fsck::{self, Broken, Finding, FsckOptions, FsckReport, How, Loss, Onlooker};
use boatyard_content::repository::Repository;
use boatyard_content::{BlobInfo, Lease, Root, quarantine};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::format::Format;
use crate::cli::runtime;
use crate::isolation;
use crate::output;
use crate::refill::Upstreams;
use crate::report::{Context as _, FAILED, Failure, Result};
use crate::world::World;

/// Read and hash every blob, and look for what each image needs.
///
/// It can run at any time, beside servers, builds and pushes. A damaged blob is moved to
/// ROOT/quarantine and served to nobody any more; pushing, pulling or building it again puts it
/// right, and so does --repair where it came from an upstream. Ends with 0 where all is well, or was
/// mended, and with 1 where something is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Mend what can be mended: fetch lost blobs again from the upstreams that they came from
    #[arg(long, conflicts_with = "no_quarantine")]
    repair: bool,
    /// Read manifests only, and look at the sizes of blobs
    #[arg(long)]
    quick: bool,
    /// Check only repositories of these names, such as team/** or docker.io/library/*
    #[arg(long, value_name = "PATTERN")]
    repository: Vec<RepositoryPattern>,
    /// Leave damaged blobs where they are
    #[arg(long)]
    no_quarantine: bool,
    /// Print lines for people, or an object for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Checks.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    // Unpacked layers belong to the ids of builds; who cannot become these has none.
    let sees_layers = !args.quick
        && args.repository.is_empty()
        && world.root_path().join("layers").is_dir()
        && isolation::become_root().is_ok();
    let root = world.open_root()?;
    let runtime = runtime()?;
    let upstreams = match args.repair {
        true => Some(Upstreams::open(world, &root, runtime.handle().clone())?),
        false => None,
    };
    let only = |repository: &Repository| is_wanted(&args.repository, repository);
    let options = FsckOptions {
        quick: args.quick,
        leave: args.no_quarantine,
        only: (!args.repository.is_empty()).then_some(&only),
        repair: upstreams.as_ref().map(|upstreams| upstreams as &dyn fsck::Refill),
        after: None,
    };
    let mut progress = Progress::new();
    let report = fsck::check(&root, &options, &mut progress);
    progress.bar.finish_and_clear();
    let report = report.context(format!("cannot check {}", root.path().display()))?;
    let layers = if sees_layers { check_layers(&root, args.repair)? } else { Checked::default() };
    let is_well = report.is_well() && layers.wrong.len() as u64 == layers.removed;
    if args.format == Format::Json {
        output::json(&object(&report, &layers))?;
    } else {
        for (diff_id, path) in &layers.wrong {
            let mended = if args.repair { "; mended: it is unpacked again" } else { "" };
            output::line(&format!(
                "wrong: the unpacked layer {diff_id} differs in {path}{mended}"
            ))?;
        }
        tell(&root, &report)?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Compares the unpacked layers of every view with what they were unpacked to.
fn check_layers(root: &Root, repair: bool) -> Result<Checked> {
    let failed = "cannot check the unpacked layers";
    let mut all = Checked::default();
    for layers in Layers::open_all(root.path(), &Lease::unheld()).context(failed)? {
        let checked = layers.check(root, repair).context(failed)?;
        all.layers += checked.layers;
        all.removed += checked.removed;
        all.wrong.extend(checked.wrong);
    }
    Ok(all)
}

/// Says whether a pattern names a repository, by its name alone or with its registry before it.
fn is_wanted(patterns: &[RepositoryPattern], repository: &Repository) -> bool {
    use boatyard_content::repository::Space;
    let host = match repository.space() {
        Some(Space::Mirror(host)) => Some(host),
        Some(Space::Images(host)) => Some(host.to_string()),
        Some(Space::Hosted) | None => None,
    };
    // A port is no part of a repository's name: it is left out.
    let host = host.map(|host| host.split(':').next().unwrap_or_default().to_owned());
    let titled = host.and_then(|host| format!("{host}/{}", repository.name()).parse().ok());
    let name = titled.as_ref();
    patterns.iter().any(|pattern| {
        pattern.matches(repository.name()) || name.is_some_and(|name| pattern.matches(name))
    })
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
}

impl Onlooker for Progress {
    fn read(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn seen(&mut self, blob: &BlobInfo) {
        self.bar.set_message(blob.digest.short().to_owned());
    }
}

fn tell(root: &Root, report: &FsckReport) -> Result<()> {
    for loss in &report.losses {
        loss_lines(loss).iter().try_for_each(|line| output::line(line))?;
    }
    for finding in &report.findings {
        output::line(&finding_line(finding))?;
    }
    output::line(&format!(
        "{} blobs, {}: {}",
        report.blobs,
        output::size(report.bytes),
        if report.is_clean() { "all is well".to_owned() } else { findings(report) }
    ))?;
    let lies = quarantine::list(root)
        .map_err(|error| Failure::new("cannot look into the quarantine").because(error))?;
    if !lies.is_empty() {
        let files = output::count(lies.len() as u64, "damaged file");
        let whole = |digest| root.store().stat_blocking(digest).is_ok_and(|found| found.is_some());
        let settled = lies.iter().filter(|lies| whole(&lies.digest)).count();
        output::line(&format!(
            "{files} in {}, {settled} of them of blobs that are whole again: nobody reads these, \
             delete them when you have seen them",
            root.layout().quarantine().display()
        ))?;
    }
    if !report.is_well() {
        output::line("Push, pull or build again what is lost, or try `boatyard fsck --repair`.")?;
    }
    Ok(())
}

fn findings(report: &FsckReport) -> String {
    let count = |losses: &dyn Fn(&&Loss) -> bool| report.losses.iter().filter(losses).count();
    let missing = count(&|loss| loss.how == How::Missing);
    let mended = count(&|loss| loss.mended.is_some())
        + report.findings.iter().filter(|finding| finding.mended.is_some()).count();
    let damaged = report.losses.len() - missing;
    let others = report.findings.len();
    format!("{damaged} damaged, {missing} missing, {others} other findings; {mended} mended")
}

/// Returns a loss, and below it what it breaks.
fn loss_lines(loss: &Loss) -> Vec<String> {
    let digest = &loss.digest;
    let how = match &loss.how {
        How::Wrong { got, size } => {
            format!("damaged: {digest} ({}) has the digest {got}", output::size(*size))
        }
        How::Unreadable => format!("damaged: {digest} cannot be read"),
        How::Missing => format!("missing: {digest}"),
    };
    let mut lines = vec![how];
    lines.extend(loss.breaks.iter().flat_map(images).map(|image| format!("  breaks {image}")));
    lines.extend(loss.entries.iter().map(|key| format!("  the cache proxy: entry {key}")));
    if loss.breaks.is_empty() {
        lines.extend(loss.holders.iter().map(|holder| format!("  {holder}")));
    }
    lines.extend(loss.mended.iter().map(|how| format!("  mended: {how}")));
    lines.extend(loss.trouble.iter().map(|why| format!("  not mended: {why}")));
    lines
}

/// Returns the names of what a loss breaks: `repository:tag`, or by digest where there is no tag.
fn images(broken: &Broken) -> Vec<String> {
    let key = broken.repository.key();
    if broken.tags.is_empty() {
        return vec![format!("{key}@{}", broken.manifest)];
    }
    broken.tags.iter().map(|tag| format!("{key}:{tag}")).collect()
}

fn finding_line(finding: &Finding) -> String {
    match &finding.mended {
        None => format!("wrong: {}", finding.what),
        Some(how) => format!("wrong: {}; mended: {how}", finding.what),
    }
}

/// Returns the report for programs.
fn object(report: &FsckReport, layers: &Checked) -> Value {
    let losses: Vec<Value> = report.losses.iter().map(loss_object).collect();
    let findings = report.findings.iter().map(|finding| {
        json!({
            "Kind": finding.what.kind(),
            "What": finding.what.to_string(),
            "Mended": finding.mended,
        })
    });
    json!({
        "Blobs": report.blobs,
        "Bytes": report.bytes,
        "IsClean": report.is_clean(),
        "IsWell": report.is_well(),
        "Losses": losses,
        "Layers": layers.wrong.iter().map(|(diff_id, _)| diff_id.to_string()).collect::<Vec<_>>(),
        "Findings": findings.collect::<Vec<_>>(),
    })
}

fn loss_object(loss: &Loss) -> Value {
    let (how, got) = match &loss.how {
        How::Wrong { got, .. } => ("damaged", Some(got)),
        How::Unreadable => ("unreadable", None),
        How::Missing => ("missing", None),
    };
    let entries: Vec<&str> = loss.entries.iter().map(EntryKey::as_str).collect();
    json!({
        "Digest": loss.digest,
        "How": how,
        "Got": got,
        "Quarantined": loss.quarantined,
        "Breaks": loss.breaks.iter().flat_map(images).collect::<Vec<_>>(),
        "Entries": entries,
        "Holders": loss.holders,
        "Mended": loss.mended,
        "Trouble": loss.trouble,
    })
}
