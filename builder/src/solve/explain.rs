//! Why a step ran.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::cache::{Difference, Record};

/// Why a step ran, though earlier builds ran some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The step as progress names it, such as `[build 2/5] RUN make`.
    pub step: String,
    /// The line on which its instruction begins.
    pub line: u32,
    /// Why it ran.
    #[serde(flatten)]
    pub why: Why,
}

/// A reason to run a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Why {
    /// `--no-cache` or `--no-cache-filter`.
    NotReused,
    /// Nothing like it ran before.
    First,
    /// It ran before, but what it made is gone.
    Lost,
    /// Something differs from the most similar step that ran before.
    Differs {
        /// That step.
        earlier: Earlier,
        /// What differs.
        differences: Vec<Difference>,
    },
}

/// A step that ran before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// Its stage.
    pub stage: String,
    /// Its line.
    pub line: u32,
    /// Its instruction.
    pub instruction: String,
    /// When it ran.
    pub created: Timestamp,
}

impl From<&Record> for Earlier {
    fn from(record: &Record) -> Earlier {
        Earlier {
            stage: record.stage.clone(),
            line: record.line,
            instruction: record.text.clone(),
            created: record.created,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}) ran: ", self.step, self.line)?;
        match &self.why {
            Why::NotReused => f.write_str("earlier results were not to be used"),
            Why::First => f.write_str("no earlier build ran this step"),
            Why::Lost => f.write_str("an earlier build ran it, but its layer is gone"),
            Why::Differs { earlier, differences } => {
                write!(f, "it differs from the step of {:.0}", earlier.created)?;
                differences.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
            }
        }
    }
}
