//! What findings cost, from the layers of the image that was built.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Finding;
use crate::contents::Table;
use crate::contents::efficiency::Efficiency;
use crate::layer::Kind;

/// How layers tell what a finding costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The files of lower layers that the step's layer removes.
    Removed,
    /// The files below a directory in the step's layer.
    Below(String),
    /// All files of the step's layer.
    Layer,
}

/// What is removed and smaller than this is no clean-up.
const REMOVED_BYTES_MIN: u64 = 64 << 10;

/// The layers of an image, the base first; each table is read when it is asked for.
pub struct Layers<'a> {
    /// How many there are.
    pub count: usize,
    /// Returns the table of one, if it was recorded.
    pub table: &'a dyn Fn(usize) -> Option<Arc<Table>>,
    /// The number of the layer that an instruction made, by its line.
    pub of_line: &'a HashMap<usize, usize>,
}

impl Layers<'_> {
    fn efficiency(&self) -> Option<Efficiency> {
        let tables: Option<Vec<_>> = (0..self.count).map(self.table).collect();
        Some(Efficiency::of(&tables?))
    }
}

/// Completes findings by what the layers of the image hold. What turns out not to be so is left
/// out; where nothing can be measured, what is sure stays.
pub fn measure(
    findings: Vec<Finding>,
    layers: &Layers<'_>,
    line_of: impl Fn(&Finding) -> usize,
) -> Vec<Finding> {
    let efficiency = OnceCell::new();
    let mut measured = Vec::with_capacity(findings.len());
    for mut finding in findings {
        let at = layers.of_line.get(&line_of(&finding)).copied();
        let table = at.and_then(|at| Some((at, (layers.table)(at)?)));
        let bytes = match (&finding.measure, table) {
            (Some(Measure::Removed), Some((at, table))) => {
                // Most steps remove nothing: then no other layer is looked at.
                let uses = match removes(&table) {
                    true => efficiency.get_or_init(|| layers.efficiency()).as_ref(),
                    false => continue,
                };
                let removed = uses.and_then(|all| Some(all.layers.get(at)?.removed.bytes));
                if removed.is_some_and(|bytes| bytes < REMOVED_BYTES_MIN) {
                    continue;
                }
                removed
            }
            (Some(Measure::Below(directory)), Some((_, table))) => Some(below(&table, directory)),
            (Some(Measure::Layer), Some((_, table))) => Some(below(&table, "")),
            _ => None,
        };
        match bytes {
            Some(0) => {}
            None => measured.extend(finding.is_sure.then_some(finding)),
            bytes => {
                finding.bytes = bytes;
                measured.push(finding);
            }
        }
    }
    measured
}

/// Says whether a layer removes anything of those below it.
fn removes(table: &Table) -> bool {
    table.root().is_opaque()
        || table.rows().any(|(_, row)| row.kind() == Kind::Whiteout || row.is_opaque())
}

/// A number of bytes in the largest unit that fits.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut units) = (self.0 as f64, ["kB", "MB", "GB", "TB"].into_iter());
        let mut unit = "bytes";
        while value >= 999.5
            && let Some(larger) = units.next()
        {
            (value, unit) = (value / 1000.0, larger);
        }
        let places = if unit == "bytes" || value >= 99.95 { 0 } else { 1 };
        write!(f, "{value:.places$} {unit}")
    }
}

fn below(table: &Table, directory: &str) -> u64 {
    let is_below = |path: &str| {
        let rest = path.trim_start_matches('/').strip_prefix(directory);
        rest.is_some_and(|rest| directory.is_empty() || rest.is_empty() || rest.starts_with('/'))
    };
    let rows =
        table.rows().filter(|(path, row)| !row.is_directory() && is_below(&path.to_string()));
    rows.map(|(_, row)| row.size()).sum()
}
