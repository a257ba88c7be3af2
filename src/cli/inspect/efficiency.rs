//! `boatyard inspect --efficiency`: what each layer adds, and what of it is there in vain.

use std::sync::Arc;

use boatyard_builder::contents::efficiency::{Amount, Efficiency, LayerUse, Waste, WastedFile};
use boatyard_builder::contents::{Table, Tables};
use boatyard_builder::image::Image;
use boatyard_content::Root;
use boatyard_oci::{Descriptor, DiffId, Digest};
use serde::Serialize;

use crate::output;
use crate::report::{Context as _, Failure, Result};

/// How many wasted files people are shown, and how many programs.
const SHOWN_MAX: usize = 10;
const LISTED_MAX: usize = 1000;
/// How much of a step is shown.
const STEP_WIDTH: usize = 45;

/// All that there is to say of one image.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    image: String,
    id: Digest,
    /// Of the blobs.
    size: u64,
    /// Of all files in all layers.
    bytes: u64,
    wasted_bytes: u64,
    wasted_percent: f64,
    layers: Vec<LayerReport>,
    wasted: Vec<WastedReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayerReport {
    created_by: String,
    digest: Digest,
    diff_id: DiffId,
    size: u64,
    bytes: u64,
    added: Count,
    changed: Count,
    repeated: Count,
    removed: Count,
    wasted: Count,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Count {
    files: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WastedReport {
    path: String,
    bytes: u64,
    /// Counted from 1, the base first.
    layer: usize,
    by: usize,
    how: &'static str,
}

impl From<Amount> for Count {
    fn from(amount: Amount) -> Count {
        Count { files: amount.files, bytes: amount.bytes }
    }
}

/// Looks at an image. Layers whose contents are not known yet are read, not unpacked.
pub fn report(root: &Root, name: &str, image: &Image) -> Result<Report> {
    let known = Tables::open(root.path());
    let mut tables: Vec<Arc<Table>> = Vec::with_capacity(image.manifest.layers.len());
    for (blob, diff_id) in image.layers() {
        tables.push(table(root, &known, blob, diff_id)?);
    }
    let efficiency = Efficiency::of(&tables);
    let (bytes, wasted_bytes) = (efficiency.bytes(), efficiency.wasted_bytes());
    let wasted_percent = match bytes {
        0 => 0.0,
        bytes => (wasted_bytes as f64 * 1000.0 / bytes as f64).round() / 10.0,
    };
    let steps = steps(image);
    let layers = image.layers().zip(&efficiency.layers).zip(steps);
    Ok(Report {
        image: name.to_owned(),
        id: image.id().clone(),
        size: image.manifest.layers.iter().map(|layer| layer.size).sum(),
        bytes,
        wasted_bytes,
        wasted_percent,
        layers: layers.map(|((layer, uses), step)| layer_report(layer, uses, step)).collect(),
        wasted: efficiency.wasted.iter().take(LISTED_MAX).map(wasted_report).collect(),
    })
}

/// Returns a layer's table of contents, and makes it from the blob where there is none.
fn table(root: &Root, known: &Tables, blob: &Descriptor, diff_id: &DiffId) -> Result<Arc<Table>> {
    let failed = || format!("cannot read the layer {}", blob.digest);
    if let Some(table) = known.find(diff_id).context(failed())? {
        return Ok(table);
    }
    let found = root.store().open_blocking(&blob.digest).context(failed())?;
    let file = found.ok_or_else(|| {
        Failure::new(format!("the layer {} is not in the store", blob.digest))
            .hint("pulling or building the image again brings it back")
    })?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    known.scan(diff_id, file.into_file(), threads).context(failed())
}

/// Returns the step of each layer; nothing where the history does not say.
fn steps(image: &Image) -> impl Iterator<Item = String> {
    let history = image.config.value().history.iter().filter(|step| !step.empty_layer);
    let steps = history.map(|step| match step.created_by.as_str() {
        "" => step.comment.clone(),
        created_by => created_by.to_owned(),
    });
    steps.chain(std::iter::repeat(String::new()))
}

fn layer_report(
    (blob, diff_id): (&Descriptor, &DiffId),
    uses: &LayerUse,
    created_by: String,
) -> LayerReport {
    LayerReport {
        created_by,
        digest: blob.digest.clone(),
        diff_id: diff_id.clone(),
        size: blob.size,
        bytes: uses.bytes,
        added: uses.added.into(),
        changed: uses.changed.into(),
        repeated: uses.repeated.into(),
        removed: uses.removed.into(),
        wasted: uses.wasted.into(),
    }
}

fn wasted_report(file: &WastedFile) -> WastedReport {
    WastedReport {
        path: file.path.to_string(),
        bytes: file.bytes,
        layer: file.layer + 1,
        by: file.by + 1,
        how: match file.how {
            Waste::Deleted => "deleted",
            Waste::Replaced => "replaced",
            Waste::Repeated => "repeated",
        },
    }
}

/// Prints it for people.
pub fn print(report: &Report) -> Result<()> {
    output::line(&format!(
        "{}: {} in {}, {} of files, of which {} ({}%) are there in vain",
        report.image,
        output::size(report.size),
        output::count(report.layers.len() as u64, "layer"),
        output::size(report.bytes),
        output::size(report.wasted_bytes),
        report.wasted_percent,
    ))?;
    let head = ["LAYER", "STEP", "SIZE", "FILES", "ADDED", "CHANGED", "REMOVED", "WASTED"];
    let rows: Vec<_> = report.layers.iter().enumerate().map(cells).collect();
    output::line("")?;
    output::table(head, &rows)?;
    if report.wasted.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = report.wasted.iter().take(SHOWN_MAX).map(wasted_cells).collect();
    output::line("")?;
    output::table(["WASTED", "FILE", "LAYER", "WHY"], &rows)?;
    match report.wasted.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => output::line(&format!(
            "and {} more: --json lists them",
            output::count(more as u64, "file")
        )),
    }
}

fn cells((at, layer): (usize, &LayerReport)) -> [String; 8] {
    let count = |count: Count| match count.files {
        0 => "-".to_owned(),
        files => format!("{} in {files}", output::size(count.bytes)),
    };
    [
        (at + 1).to_string(),
        output::shorten(&output::one_line(&layer.created_by), STEP_WIDTH),
        output::size(layer.size),
        output::size(layer.bytes),
        count(layer.added),
        count(layer.changed),
        count(layer.removed),
        count(layer.wasted),
    ]
}

fn wasted_cells(file: &WastedReport) -> [String; 4] {
    let why = match file.how {
        "deleted" => format!("layer {} deletes it", file.by),
        "replaced" => format!("layer {} has another one", file.by),
        _ => format!("layer {} has the same bytes again", file.by),
    };
    [output::size(file.bytes), file.path.clone(), file.layer.to_string(), why]
}
