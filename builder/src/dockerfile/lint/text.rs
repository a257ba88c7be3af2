//! Rules that need only the text.

use std::collections::BTreeMap;

use super::{Checks, Rule, Warning};
use crate::dockerfile::Dockerfile;
use crate::dockerfile::instruction::{CommandLine, Instruction, InstructionKind, KeyValue, Stage};
use crate::dockerfile::span::{Span, Spanned};

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
#[must_use]
pub fn check(dockerfile: &Dockerfile, checks: &Checks) -> Vec<Warning> {
    let mut linter = Linter { checks, found: Vec::new() };
    linter.casing(dockerfile);
    linter.stage_names(dockerfile);
    for arg in &dockerfile.global_args {
        for item in &arg.items {
            linter.secret("ARG", &item.name, arg.span, arg.checks.as_ref());
        }
    }
    let mut inherited: BTreeMap<&str, Inherited> = BTreeMap::new();
    for stage in &dockerfile.stages {
        let base = inherited.get(stage.from.image.value.to_lowercase().as_str());
        let result = linter.stage(stage, base.copied().unwrap_or_default());
        if let Some(name) = &stage.name {
            inherited.insert(&name.value, result);
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
    Some(Warning::with(Rule::InvalidDefinitionDescription, span, span, message))
}

/// What a stage hands to those that begin with it.
#[derive(Debug, Clone, Copy, Default)]
struct Inherited {
    workdir_is_set: bool,
    shell_is_set: bool,
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
            self.found.push(Warning::with(rule, span, context, message));
        }
    }

    /// All keywords should be of the case that most of them have.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let keywords = || {
            dockerfile.stages.iter().flat_map(|stage| {
                let from = (&stage.keyword, stage.span, stage.checks.as_ref());
                let rest =
                    stage.instructions.iter().map(|it| (&it.keyword, it.span, it.checks.as_ref()));
                std::iter::once(from).chain(rest)
            })
        };
        let is_lower = |text: &str| text == text.to_lowercase();
        let is_upper = |text: &str| text == text.to_uppercase();
        let lower = keywords().filter(|(word, ..)| is_lower(&word.value)).count();
        let upper = keywords().filter(|(word, ..)| is_upper(&word.value)).count();
        for (word, span, comment) in keywords() {
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
                self.report(Rule::ConsistentInstructionCasing, at, comment, message);
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
                self.report(Rule::ReservedStageName, at, comment, message);
            }
            if seen.contains(&name.value.as_str()) {
                let message =
                    format!("Duplicate stage name {:?}, stage names should be unique", name.value);
                self.report(Rule::DuplicateStageName, at, comment, message);
            }
            seen.push(&name.value);
        }
    }

    fn stage(&mut self, stage: &Stage, mut state: Inherited) -> Inherited {
        self.as_casing(stage);
        self.platform(stage);
        let mut last: BTreeMap<&str, &Instruction> = BTreeMap::new();
        for instruction in &stage.instructions {
            let at = (instruction.span, instruction.span);
            let comment = instruction.checks.as_ref();
            let name = instruction.kind.name();
            if matches!(name, "CMD" | "ENTRYPOINT" | "HEALTHCHECK")
                && let Some(earlier) = last.insert(name, instruction)
            {
                // The earlier one is blamed, for it has no effect.
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because \
                     only the last one will be used"
                );
                let rule = Rule::MultipleInstructionsDisallowed;
                self.report(rule, (earlier.keyword.span, earlier.span), comment, message);
            }
            match &instruction.kind {
                InstructionKind::Shell(_) => state.shell_is_set = true,
                InstructionKind::Workdir(path) => {
                    self.workdir(path, at.1, comment, state.workdir_is_set);
                    state.workdir_is_set = true;
                }
                InstructionKind::Cmd(CommandLine::Shell(_))
                | InstructionKind::Entrypoint(CommandLine::Shell(_))
                    if !state.shell_is_set =>
                {
                    let message = format!(
                        "JSON arguments recommended for {name} to prevent unintended behavior \
                             related to OS signals"
                    );
                    self.report(Rule::JSONArgsRecommended, at, comment, message);
                }
                InstructionKind::Maintainer(_) => {
                    let message = "Maintainer instruction is deprecated in favor of using label";
                    let at = (instruction.keyword.span, instruction.span);
                    self.report(Rule::MaintainerDeprecated, at, comment, message);
                }
                InstructionKind::Env(pairs) => {
                    for pair in pairs {
                        self.secret("ENV", &pair.key, at.1, comment);
                    }
                    self.legacy(pairs, name, at.1, comment);
                }
                InstructionKind::Label(pairs) => self.legacy(pairs, name, at.1, comment),
                InstructionKind::Arg(items) => {
                    for item in items {
                        self.secret("ARG", &item.name, at.1, comment);
                    }
                }
                _ => {}
            }
        }
        state
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

    fn platform(&mut self, stage: &Stage) {
        let Some(platform) = &stage.from.platform else { return };
        let at = (platform.span, stage.span);
        let comment = stage.checks.as_ref();
        let value = platform.value.as_str();
        if matches!(value, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!(
                "Setting platform to predefined {value} in FROM is redundant as this is the \
                 default behavior"
            );
            self.report(Rule::RedundantTargetPlatform, at, comment, message);
        }
        // A stage that is named after its platform is meant for it.
        let named = |part: &str| {
            !part.is_empty() && stage.name.as_ref().is_some_and(|name| name.value.contains(part))
        };
        if !value.contains('$') && !value.split('/').take(2).any(named) {
            let message = format!("FROM --platform flag should not use constant value {value:?}");
            self.report(Rule::FromPlatformFlagConstDisallowed, at, comment, message);
        }
    }

    fn workdir(
        &mut self,
        path: &Spanned<String>,
        context: Span,
        comment: Option<&Checks>,
        is_set: bool,
    ) {
        // What a variable holds is not known here; most hold an absolute path.
        let relative = !path.value.trim_start_matches(['"', '\'']).starts_with(['/', '$']);
        if relative && !is_set {
            let message = format!(
                "Relative workdir {:?} can have unexpected results if the base image changes",
                path.value
            );
            self.report(Rule::WorkdirRelativePath, (path.span, context), comment, message);
        }
    }

    fn legacy(&mut self, pairs: &[KeyValue], name: &str, context: Span, comment: Option<&Checks>) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let message = format!(
                "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
            );
            let at = (pair.key.span.to(pair.value.span), context);
            self.report(Rule::LegacyKeyValueFormat, at, comment, message);
        }
    }

    fn secret(
        &mut self,
        instruction: &str,
        key: &Spanned<String>,
        context: Span,
        comment: Option<&Checks>,
    ) {
        if is_secret_name(&key.value) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {:?})",
                key.value
            );
            self.report(Rule::SecretsUsedInArgOrEnv, (key.span, context), comment, message);
        }
    }
}
