//! `--explain`: why steps ran, after the build.

use boatyard_builder::solve::Explanation;

use super::options::ExplainFormat;
use crate::report::{self, Context as _, Result};

/// Tells on standard error why each step ran.
pub fn tell(explanations: &[Explanation], format: ExplainFormat) -> Result<()> {
    match format {
        ExplainFormat::Text => {
            for explanation in explanations {
                report::note(&explanation.to_string());
            }
            if explanations.is_empty() {
                report::note("no step ran: all were cached");
            }
        }
        ExplainFormat::Json => {
            for explanation in explanations {
                report::note(&serde_json::to_string(explanation).context("cannot write JSON")?);
            }
        }
    }
    Ok(())
}
