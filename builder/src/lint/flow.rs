//! What instructions say, with the variables as they are where they stand.

use std::collections::{BTreeMap, BTreeSet};

use super::stages::Stages;
use super::{ImageFacts, Linter, Place};
use crate::dockerfile::expansion::{Expanded, Expander};
use crate::dockerfile::instruction::{CommandLine, Copy, CopySource, KeyValue};
use crate::dockerfile::lint::{is_secret_name, planned};
use crate::dockerfile::{Instruction, InstructionKind, Rule, Span, Spanned, Warning, expose};
use crate::execute::environment::DEFAULT_PATH;
use crate::plan::Base;
use crate::stage::{Environment, is_elsewhere};

/// A stage after its instructions.
#[derive(Clone, Default)]
pub(super) struct State {
    environment: Environment,
    /// What the base image sets is not known: a variable may be its.
    is_guess: bool,
    has_shell: bool,
    workdir_is_set: bool,
    /// The ONBUILD triggers of the stage.
    triggers: Vec<Instruction>,
}

/// The last CMD, ENTRYPOINT and HEALTHCHECK of a stage.
type Last = BTreeMap<&'static str, (Span, Span)>;

impl Linter<'_> {
    /// Walks the stages that are wanted.
    pub(super) fn flow(&mut self, stages: &Stages<'_>, wanted: &BTreeSet<usize>) {
        let mut states: BTreeMap<usize, State> = BTreeMap::new();
        for &index in wanted {
            let state = self.stage(stages, index, &states);
            states.insert(index, state);
        }
    }

    fn stage(&mut self, stages: &Stages<'_>, index: usize, done: &BTreeMap<usize, State>) -> State {
        let stage = &stages.dockerfile.stages[index];
        let mut state = match &stages.bases[index] {
            Some(Base::Stage(base)) => done.get(base).cloned().unwrap_or_default(),
            Some(Base::Image(name)) => match (self.question.images)(name, &stages.platforms[index])
            {
                Some(facts) => self.of_image(facts, stages, index),
                None => {
                    self.unknown.push(name.clone());
                    State { is_guess: true, ..State::default() }
                }
            },
            Some(Base::Scratch) | None => State::default(),
        };
        state.environment.inherit(&[format!("PATH={DEFAULT_PATH}")]);
        let mut last = Last::new();
        let triggers = std::mem::take(&mut state.triggers);
        // What stands in the place of a stage is that stage: nothing begins with it here.
        let triggers = if stages.given(index).is_some() { Vec::new() } else { triggers };
        for trigger in triggers {
            let span = stage.span;
            let place = Place { from: Some(stage.from.image.span), span, checks: None };
            self.instruction(&mut state, &trigger, place, &mut last, Expander::new('\\'));
        }
        let expander = Expander::new(stages.dockerfile.directives.escape);
        for instruction in stages.instructions(index) {
            let checks = instruction.checks.as_ref();
            let place = Place { from: None, span: instruction.span, checks };
            self.instruction(&mut state, instruction, place, &mut last, expander);
        }
        state
    }

    fn of_image(&mut self, facts: ImageFacts, stages: &Stages<'_>, index: usize) -> State {
        let stage = &stages.dockerfile.stages[index];
        let wanted = &stages.platforms[index];
        if let Some(actual) = facts.platform.filter(|actual| {
            (&actual.os, &actual.architecture) != (&wanted.os, &wanted.architecture)
        }) {
            let warning = planned::invalid_base_image_platform(
                &stage.from.image,
                &wanted.to_string(),
                &actual.to_string(),
                stage.span,
            );
            self.report(warning, stage.checks.as_ref());
        }
        let mut environment = Environment::default();
        environment.inherit(&facts.env);
        State {
            environment,
            has_shell: facts.has_shell,
            triggers: facts.triggers,
            ..State::default()
        }
    }

    fn instruction(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
        place: Place<'_>,
        last: &mut Last,
        expander: Expander,
    ) {
        let mut walk = Walk { linter: self, state, place, expander };
        walk.once(instruction, last);
        match &instruction.kind {
            InstructionKind::Env(pairs) => walk.env(pairs),
            InstructionKind::Label(pairs) => {
                for pair in pairs {
                    walk.expand(&pair.key);
                    walk.expand(&pair.value);
                }
                walk.legacy(pairs, "LABEL");
            }
            InstructionKind::Arg(items) => {
                for item in items {
                    walk.secret("ARG", &item.name.value, item.name.span);
                    let name = item.name.value.as_str();
                    let given = walk.linter.arguments.given(name).map(str::to_owned);
                    let value = match (given, &item.default) {
                        (Some(value), _) => Some(value),
                        (None, Some(default)) => walk.expand(default),
                        (None, None) => walk.linter.arguments.global(name).map(str::to_owned),
                    };
                    walk.state.environment.declare(name, value.as_deref());
                }
            }
            InstructionKind::Workdir(word) => walk.workdir(word),
            InstructionKind::Shell(_) => walk.state.has_shell = true,
            InstructionKind::Cmd(CommandLine::Shell(_))
            | InstructionKind::Entrypoint(CommandLine::Shell(_))
                if !walk.state.has_shell =>
            {
                let message = format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to \
                     OS signals",
                    instruction.kind.name()
                );
                walk.report(Rule::JSONArgsRecommended, instruction.span, message);
            }
            InstructionKind::Expose(words) => walk.expose(words),
            InstructionKind::Volume(words) => {
                for word in words {
                    walk.expand(word);
                }
            }
            InstructionKind::User(word) | InstructionKind::StopSignal(word) => {
                walk.expand(word);
            }
            InstructionKind::Run(run) => {
                for mount in &run.mounts {
                    walk.expand(mount);
                }
            }
            InstructionKind::Copy(copy) => walk.copy(copy),
            InstructionKind::Add(add) => {
                let flags = [&add.chown, &add.chmod, &add.checksum];
                walk.flags(flags.into_iter().flatten());
                walk.sources(&add.sources, true, true);
                walk.expand(&add.destination);
            }
            InstructionKind::OnBuild(trigger) => {
                walk.state.triggers.push((*trigger.instruction).clone());
            }
            _ => {}
        }
    }
}

/// One instruction, and the state before it.
struct Walk<'w, 'a> {
    linter: &'w mut Linter<'a>,
    state: &'w mut State,
    place: Place<'w>,
    expander: Expander,
}

impl Walk<'_, '_> {
    fn report(&mut self, rule: Rule, word: Span, message: impl Into<String>) {
        let warning = Warning::new(rule, self.place.mark(word), self.place.span, message);
        self.linter.report(warning, self.place.checks);
    }

    /// Expands a word, and says which variables nobody declared.
    fn expand(&mut self, word: &Spanned<String>) -> Option<String> {
        let expanded = self.expander.expand(&word.value, &self.state.environment).ok()?;
        Some(self.undefined(expanded, word.span))
    }

    fn undefined(&mut self, expanded: Expanded, word: Span) -> String {
        self.undefined_names(&expanded.unset, word);
        expanded.text
    }

    fn undefined_names(&mut self, unset: &BTreeSet<String>, word: Span) {
        for name in unset {
            let environment = &self.state.environment;
            if self.state.is_guess || environment.is_argument(name) {
                continue;
            }
            let (at, span) = (self.place.mark(word), self.place.span);
            let warning = planned::undefined_variable(name, environment.names(), at, span);
            self.linter.report(warning, self.place.checks);
        }
    }

    /// Of several CMD, ENTRYPOINT or HEALTHCHECK, only the last counts: the earlier one is blamed.
    fn once(&mut self, instruction: &Instruction, last: &mut Last) {
        let name = instruction.kind.name();
        if !matches!(name, "CMD" | "ENTRYPOINT" | "HEALTHCHECK") {
            return;
        }
        let here = (self.place.mark(instruction.keyword.span), self.place.span);
        if let Some((keyword, span)) = last.insert(name, here) {
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only \
                 the last one will be used"
            );
            let rule = Rule::MultipleInstructionsDisallowed;
            let warning = Warning::new(rule, keyword, span, message);
            self.linter.report(warning, self.place.checks);
        }
    }

    fn env(&mut self, pairs: &[KeyValue]) {
        let mut set = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (key, value) = (self.expand(&pair.key), self.expand(&pair.value));
            if let (Some(key), Some(value)) = (key, value) {
                self.secret("ENV", &key, pair.key.span);
                set.push((key, value));
            }
        }
        self.legacy(pairs, "ENV");
        // All words of one instruction see the environment before it.
        for (key, value) in set {
            self.state.environment.set(&key, &value);
        }
    }

    fn legacy(&mut self, pairs: &[KeyValue], name: &str) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let message = format!(
                "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
            );
            self.report(Rule::LegacyKeyValueFormat, pair.key.span.to(pair.value.span), message);
        }
    }

    fn secret(&mut self, instruction: &str, key: &str, word: Span) {
        if is_secret_name(key) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {key:?})"
            );
            self.report(Rule::SecretsUsedInArgOrEnv, word, message);
        }
    }

    fn workdir(&mut self, word: &Spanned<String>) {
        let path = self.expand(word);
        let is_set = std::mem::replace(&mut self.state.workdir_is_set, true);
        if let Some(path) = path.filter(|path| !is_set && !path.starts_with('/')) {
            // A variable that may be the base image's may hold an absolute path.
            if self.state.is_guess && word.value.contains('$') {
                return;
            }
            let message = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            self.report(Rule::WorkdirRelativePath, word.span, message);
        }
    }

    fn expose(&mut self, words: &[Spanned<String>]) {
        for word in words {
            let expanded = self.expander.expand_words(&word.value, &self.state.environment);
            let Ok(expanded) = expanded else { continue };
            self.undefined_names(&expanded.unset, word.span);
            for text in expanded.words {
                let Ok(ports) = expose::ports(&text) else { continue };
                let (at, span) = (self.place.mark(word.span), self.place.span);
                for warning in planned::exposed(&text, &ports, at, span) {
                    self.linter.report(warning, self.place.checks);
                }
            }
        }
    }

    fn copy(&mut self, copy: &Copy) {
        self.flags([&copy.chown, &copy.chmod].into_iter().flatten());
        self.sources(&copy.sources, copy.from.is_none(), false);
        self.expand(&copy.destination);
    }

    fn flags<'f>(&mut self, words: impl Iterator<Item = &'f Spanned<String>>) {
        for word in words {
            self.expand(word);
        }
    }

    fn sources(&mut self, sources: &[CopySource], from_context: bool, is_add: bool) {
        for source in sources {
            match source {
                CopySource::Path(word) => {
                    let Some(path) = self.expand(word) else { continue };
                    if from_context {
                        self.ignored(&Spanned::new(path, word.span), is_add);
                    }
                }
                CopySource::Heredoc(heredoc) if heredoc.expand => {
                    let body = heredoc.body();
                    let expanded = self.expander.expand_raw(&body, &self.state.environment);
                    if let Ok(expanded) = expanded {
                        self.undefined(expanded, self.place.span);
                    }
                }
                CopySource::Heredoc(_) => {}
            }
        }
    }

    fn ignored(&mut self, source: &Spanned<String>, is_add: bool) {
        let Some((_, patterns)) = self.linter.question.context else { return };
        if is_add && is_elsewhere(&source.value) {
            return;
        }
        let (at, span) = (self.place.mark(source.span), self.place.span);
        let source = Spanned::new(source.value.clone(), at);
        if let Some(warning) = planned::copy_ignored_file(is_add, &source, patterns, span) {
            self.linter.report(warning, self.place.checks);
        }
    }
}
