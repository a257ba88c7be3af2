//! Rules that need only the text.

use super::{Checks, Rule, Warning};
use crate::dockerfile::Dockerfile;
use crate::dockerfile::instruction::{Instruction, InstructionKind, Stage};
use crate::dockerfile::span::Span;

const RESERVED_STAGE_NAMES: [&str; 2] = ["context", "scratch"];
const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const PUBLIC_WORDS: [&str; 3] = ["public", "file", "version"];

/// Says whether a variable of this name is likely to hold a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    has(&SECRET_WORDS) && !has(&PUBLIC_WORDS)
}

/// Returns what the rules find, `checks` and the comments above instructions permitting.
///
/// As in BuildKit, a comment above an instruction has no say about casing and the names of stages
/// as a whole.
#[must_use]
pub fn check(dockerfile: &Dockerfile, checks: &Checks) -> Vec<Warning> {
    let mut linter = Linter { checks, found: Vec::new() };
    linter.casing(dockerfile);
    linter.stage_names(dockerfile);
    for stage in &dockerfile.stages {
        linter.as_casing(stage);
        for instruction in &stage.instructions {
            linter.maintainer(instruction);
        }
    }
    linter.found
}

/// `InvalidDefinitionDescription`: the last comment above does not begin with a defined name.
pub(in crate::dockerfile) fn definition_description<'n>(
    instruction: &'static str,
    names: impl Iterator<Item = &'n str>,
    comments: &[String],
    span: Span,
) -> Option<Warning> {
    let comment = comments.last()?;
    let first = comment.split(' ').next().unwrap_or_default();
    let names: Vec<&str> = names.collect();
    if names.is_empty() || names.contains(&first) {
        return None;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let message =
        format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    Some(Warning::new(Rule::InvalidDefinitionDescription, span, span, message))
}

struct Linter<'a> {
    checks: &'a Checks,
    found: Vec<Warning>,
}

impl Linter<'_> {
    fn report(
        &mut self,
        rule: Rule,
        (span, context): (Span, Span),
        comment: Option<&Checks>,
        message: impl Into<String>,
    ) {
        if self.checks.merged(comment).allows(rule) {
            self.found.push(Warning::new(rule, span, context, message));
        }
    }

    /// All keywords should be of the case that most of them have.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let keywords = || {
            dockerfile.stages.iter().flat_map(|stage| {
                let rest = stage.instructions.iter().map(|it| (&it.keyword, it.span));
                std::iter::once((&stage.keyword, stage.span)).chain(rest)
            })
        };
        let is_lower = |text: &str| text == text.to_lowercase();
        let is_upper = |text: &str| text == text.to_uppercase();
        let lower = keywords().filter(|(word, _)| is_lower(&word.value)).count();
        let upper =
            keywords().filter(|(word, _)| is_upper(&word.value) && !is_lower(&word.value)).count();
        for (word, span) in keywords() {
            let (right, case) = if lower > upper {
                (is_lower(&word.value), "lowercase")
            } else {
                (is_upper(&word.value), "uppercase")
            };
            if !right {
                let message = format!(
                    "Command '{}' should match the case of the command majority ({case})",
                    word.value
                );
                let at = (word.span, span);
                self.report(Rule::ConsistentInstructionCasing, at, None, message);
            }
        }
    }

    fn stage_names(&mut self, dockerfile: &Dockerfile) {
        let mut seen: Vec<&str> = Vec::new();
        for stage in &dockerfile.stages {
            let Some(name) = &stage.name else { continue };
            let at = (name.span, stage.span);
            let comment = stage.checks.as_ref();
            let typed = dockerfile.source.slice(name.span).unwrap_or(&name.value);
            if typed != name.value {
                let message = format!("Stage name '{typed}' should be lowercase");
                self.report(Rule::StageNameCasing, at, comment, message);
            }
            if RESERVED_STAGE_NAMES.contains(&name.value.as_str()) {
                let message = format!(
                    "Stage name should not use the same name as reserved stage {:?}",
                    name.value
                );
                self.report(Rule::ReservedStageName, at, None, message);
            }
            if seen.contains(&name.value.as_str()) {
                let message =
                    format!("Duplicate stage name {:?}, stage names should be unique", name.value);
                self.report(Rule::DuplicateStageName, at, None, message);
            }
            seen.push(&name.value);
        }
    }

    fn maintainer(&mut self, instruction: &Instruction) {
        if matches!(instruction.kind, InstructionKind::Maintainer(_)) {
            let message = "Maintainer instruction is deprecated in favor of using label";
            let at = (instruction.keyword.span, instruction.span);
            let comment = instruction.checks.as_ref();
            self.report(Rule::MaintainerDeprecated, at, comment, message);
        }
    }

    /// `as` should be written as `from` is, unless that is of neither case itself.
    fn as_casing(&mut self, stage: &Stage) {
        if stage.name.is_none() {
            return;
        }
        let mut words = stage.text.split_whitespace().rev().skip(1);
        let Some(keyword) = words.next() else { return };
        let from = &stage.keyword.value;
        let matches = if *from == from.to_lowercase() {
            keyword == keyword.to_lowercase()
        } else if *from == from.to_uppercase() {
            keyword == keyword.to_uppercase()
        } else {
            true
        };
        if !matches {
            let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
            let at = (stage.span, stage.span);
            self.report(Rule::FromAsCasing, at, stage.checks.as_ref(), message);
        }
    }
}
