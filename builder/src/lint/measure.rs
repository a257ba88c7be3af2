//! What findings cost, from the layers of the image that was built.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Finding;
use crate::contents::Table;
use crate::contents::efficiency::Efficiency;

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

/// Completes findings by what the layers of the image hold: `layers` the base first, and for each line
/// of the Dockerfile the number of its layer among them. What turns out not to be so is left out.
pub fn measure(
    findings: Vec<Finding>,
    layers: &[Arc<Table>],
    layer_of: &HashMap<usize, usize>,
    line_of: impl Fn(&Finding) -> usize,
) -> Vec<Finding> {
    let wants_removed = |finding: &Finding| finding.measure == Some(Measure::Removed);
    let efficiency = findings.iter().any(wants_removed).then(|| Efficiency::of(layers));
    let mut measured = Vec::with_capacity(findings.len());
    for mut finding in findings {
        let at = layer_of.get(&line_of(&finding)).copied();
        let Some((at, table)) = at.and_then(|at| Some((at, layers.get(at)?))) else {
            measured.extend(finding.is_sure.then_some(finding));
            continue;
        };
        let bytes = match &finding.measure {
            Some(Measure::Removed) => {
                let uses = efficiency.as_ref().and_then(|all| all.layers.get(at));
                let bytes = uses.map_or(0, |uses| uses.removed.bytes);
                if bytes < REMOVED_BYTES_MIN {
                    continue;
                }
                bytes
            }
            Some(Measure::Below(directory)) => below(table, directory),
            Some(Measure::Layer) => below(table, ""),
            None => {
                measured.push(finding);
                continue;
            }
        };
        if bytes > 0 {
            finding.bytes = Some(bytes);
            measured.push(finding);
        }
    }
    measured
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
