//! What the linter says of a Dockerfile, before anything is run.
//!
//! [`look`] is the one place where all rules come together, for `build`, `build --check` and `lint`
//! alike:
//!
//! - the rules that need only the text, which the parser has run ([`crate::dockerfile::lint`]);
//! - [`bases`]: what FROM says, of every stage;
//! - [`flow`]: what the instructions of the stages that are built say, with the variables as they
//!   are there;
//! - [`lessons`]: what costs bytes or time, though every builder takes it.
//!
//! It is pure, but for [`lessons`], which measures the build context. What an image says of itself
//! is asked of the caller; where that is not known, nothing is said that could be wrong.
//!
//! A [`Finding`] may have a [`Measure`]: what it costs can be told from the layers once they are
//! built, by [`measure`].

mod bases;
mod context;
mod flow;
mod lessons;
pub mod measure;
pub mod outline;
mod shell;
mod stages;

use std::path::Path;

use boatyard_oci::{ImageName, Platform};

use crate::context::ignore::Patterns;
use crate::dockerfile::lint::Checks;
use crate::dockerfile::{Diagnostic, Dockerfile, Instruction, Rule, Span, Warning};
use crate::plan::{Arguments, PlanOptions};

pub use context::Amount;
pub use measure::Measure;

/// What the linter looks at.
pub struct Question<'a> {
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// Target, arguments, platforms.
    pub options: &'a PlanOptions,
    /// All stages count, not only those that the target needs.
    pub all_stages: bool,
    /// Where the build context lies, where it is a directory, and what is left out of it.
    pub context: Option<(&'a Path, &'a Patterns)>,
    /// What images say of themselves.
    pub images: &'a Images<'a>,
}

/// Returns what is known of an image.
pub type Images<'a> = dyn Fn(&ImageName, &Platform) -> Option<ImageFacts> + 'a;

/// What the linter needs to know of an image.
#[derive(Clone, Debug, Default)]
pub struct ImageFacts {
    /// Its variables, each `NAME=value`.
    pub env: Vec<String>,
    /// It has a SHELL of its own.
    pub has_shell: bool,
    /// What it is for, if it says so.
    pub platform: Option<Platform>,
    /// Its ONBUILD triggers.
    pub triggers: Vec<Instruction>,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule, the place, the words.
    pub warning: Warning,
    /// What it costs, in bytes, where that is known.
    pub bytes: Option<u64>,
    /// How the layers tell what it costs.
    pub measure: Option<Measure>,
    /// The text alone shows it. Otherwise it is one only if the layers say so.
    pub is_sure: bool,
}

impl Finding {
    fn new(warning: Warning) -> Finding {
        Finding { warning, bytes: None, measure: None, is_sure: true }
    }

    /// Returns the finding in the form that [`crate::dockerfile::render`] draws.
    pub fn diagnostic(&self) -> Diagnostic {
        let note = self.bytes.map(|bytes| match self.warning.rule {
            Rule::CopyBeforeInstall | Rule::LargeContextDirectory => {
                format!("it copies {}", measure::Bytes(bytes))
            }
            _ => format!("it costs {} of the image", measure::Bytes(bytes)),
        });
        Diagnostic { note, ..self.warning.diagnostic() }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order of the text, each once.
    pub found: Vec<Finding>,
    /// Images of which nothing is known: rules that would have to know were not asked.
    pub unknown: Vec<ImageName>,
}

/// Looks at a Dockerfile.
///
/// # Errors
/// Where the target is not there, or a global argument cannot be expanded.
pub fn look(question: &Question<'_>) -> Result<Findings, Diagnostic> {
    let Question { dockerfile, options, .. } = question;
    let target = crate::plan::target(dockerfile, options)?;
    let arguments = Arguments::new(dockerfile, options, target)?;
    let mut linter = Linter {
        question,
        arguments: &arguments,
        findings: dockerfile.warnings.iter().cloned().map(Finding::new).collect(),
        unknown: Vec::new(),
    };
    let stages = stages::Stages::new(dockerfile, &arguments, options);
    linter.from(&stages);
    let wanted = if question.all_stages { stages.all() } else { stages.reachable(target) };
    linter.flow(&stages, &wanted);
    linter.lessons(&stages, target);
    let Linter { mut findings, mut unknown, .. } = linter;
    let source = &dockerfile.source;
    findings.sort_by_key(|finding| (finding.warning.span.start, finding.warning.rule));
    let mut seen = std::collections::HashSet::new();
    findings.retain(|finding| {
        let Warning { rule, span, message, .. } = &finding.warning;
        seen.insert((*rule, source.line_of(span.start), message.clone()))
    });
    unknown.sort();
    unknown.dedup();
    Ok(Findings { found: findings, unknown })
}

/// Collects what is found.
struct Linter<'a> {
    question: &'a Question<'a>,
    arguments: &'a Arguments,
    findings: Vec<Finding>,
    unknown: Vec<ImageName>,
}

impl Linter<'_> {
    /// Reports a warning, unless the Dockerfile or the comment above does not want to hear of it.
    fn report(&mut self, warning: Warning, comment: Option<&Checks>) {
        self.add(Finding::new(warning), comment);
    }

    fn add(&mut self, finding: Finding, comment: Option<&Checks>) {
        let checks = self.question.dockerfile.checks.merged(comment);
        if checks.allows(finding.warning.rule) {
            self.findings.push(finding);
        }
    }
}

/// Where an instruction stands, and what may be reported of it.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// What is marked instead of its words, for a trigger: its own text is in the base image.
    from: Option<Span>,
    span: Span,
    checks: Option<&'a Checks>,
}

impl Place<'_> {
    fn mark(&self, word: Span) -> Span {
        self.from.unwrap_or(word)
    }
}

#[cfg(test)]
mod tests;
