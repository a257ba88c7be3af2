//! Instructions that change the configuration and nothing else.

use boatyard_oci::image_config::{Empty, Healthcheck as ConfigHealthcheck};
use jiff::Timestamp;

use super::{StageState, Step, StepResult};
use crate::build::StepFailure;
use crate::dockerfile::expansion::ExpansionError;
use crate::dockerfile::instruction::{ArgItem, CommandLine, Healthcheck, KeyValue};
use crate::dockerfile::{InstructionKind, Spanned, expose, signal};
use crate::progress::StepEnd;

impl Step<'_> {
    /// Carries the instruction out.
    pub(super) fn carry_out(&self, state: &mut StageState, is_step: bool) -> StepResult<()> {
        if !is_step {
            return self.configure(state);
        }
        // A step begins once what it needs is there: it does not take the time of another stage.
        let from = self.copied_stage()?;
        let needed = self.needed()?;
        self.builder.steps.solve(&self.name, |id| {
            let end = match &self.planned.instruction.kind {
                InstructionKind::Run(run) => self.run(state, run, &needed, id),
                InstructionKind::Copy(copy) => self.copy(state, copy, from, id),
                InstructionKind::Add(add) => self.add(state, add, id),
                InstructionKind::Workdir(path) => self.workdir(state, path, id),
                _ => Ok(StepEnd::Done),
            }?;
            Ok(((), end))
        })
    }

    fn configure(&self, state: &mut StageState) -> StepResult<()> {
        // A metadata instruction has the time of the step before it.
        let at = self.metadata_time(state);
        match &self.planned.instruction.kind {
            InstructionKind::Env(pairs) => self.env(state, pairs, at),
            InstructionKind::Arg(items) => self.arg(state, items, at),
            InstructionKind::Label(pairs) => self.label(state, pairs, at),
            InstructionKind::User(user) => {
                let user = self.expand(state, user)?;
                state.tell(format!("USER {user}"), false, at);
                state.config.config.user = user;
                Ok(())
            }
            InstructionKind::Shell(shell) => {
                state.tell(format!("SHELL [{}]", shell.join(" ")), false, at);
                state.config.config.shell.clone_from(shell);
                Ok(())
            }
            InstructionKind::Cmd(line) => {
                let line = command(state, line);
                state.tell(format!("CMD {}", quoted(&line)), false, at);
                state.config.config.cmd = Some(line);
                state.config.config.args_escaped = true;
                state.cmd_is_set = true;
                Ok(())
            }
            InstructionKind::Entrypoint(line) => {
                let line = command(state, line);
                state.tell(format!("ENTRYPOINT {}", quoted(&line)), false, at);
                state.config.config.entrypoint = (!line.is_empty()).then_some(line);
                if !state.cmd_is_set {
                    state.config.config.cmd = None;
                }
                Ok(())
            }
            InstructionKind::Expose(words) => self.expose(state, words, at),
            InstructionKind::Volume(words) => self.volume(state, words, at),
            InstructionKind::StopSignal(word) => {
                let name = self.expand(state, word)?;
                signal::validate(&name).map_err(|error| {
                    StepFailure::new(self.error("cannot use this signal", word.span)).because(error)
                })?;
                state.tell(format!("STOPSIGNAL {name}"), false, at);
                state.config.config.stop_signal = Some(name);
                Ok(())
            }
            InstructionKind::Healthcheck(check) => {
                self.healthcheck(state, check, at);
                Ok(())
            }
            InstructionKind::OnBuild(trigger) => {
                state.config.config.on_build.push(trigger.text.clone());
                Ok(())
            }
            InstructionKind::Maintainer(name) => {
                state.tell(format!("MAINTAINER {}", name.value), false, at);
                state.config.author = Some(name.value.clone());
                Ok(())
            }
            InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_) => Ok(()),
        }
    }

    /// Returns the time of an instruction that makes no layer: that of the step before it.
    pub(super) fn metadata_time(&self, state: &StageState) -> Option<Timestamp> {
        let last = || state.config.history.iter().rev().find_map(|entry| entry.created);
        self.builder.epoch.or_else(last)
    }

    /// Expands a word.
    pub(super) fn expand(&self, state: &StageState, word: &Spanned<String>) -> StepResult<String> {
        let expanded = self
            .expander()
            .expand(&word.value, &state.environment)
            .map_err(|error| self.cannot_expand(word, &error))?;
        Ok(expanded.text)
    }

    fn cannot_expand(&self, word: &Spanned<String>, error: &ExpansionError) -> StepFailure {
        StepFailure::new(self.error(error.to_string(), word.span))
    }

    /// Sets variables. All words of one instruction see the environment before it.
    fn env(
        &self,
        state: &mut StageState,
        pairs: &[KeyValue],
        at: Option<Timestamp>,
    ) -> StepResult<()> {
        let mut text = String::from("ENV");
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (key, value) = (self.expand(state, &pair.key)?, self.expand(state, &pair.value)?);
            text.push_str(&format!(" {key}={value}"));
            expanded.push((key, value));
        }
        for (key, value) in expanded {
            state.environment.set(&key, &value);
            let pair = format!("{key}={value}");
            let env = &mut state.config.config.env;
            let same = |own: &&mut String| own.split('=').next() == Some(key.as_str());
            match env.iter_mut().find(same) {
                Some(own) => *own = pair,
                None => env.push(pair),
            }
        }
        state.tell(text, false, at);
        Ok(())
    }

    /// Declares arguments: each sees the ones before it, even in the same instruction.
    fn arg(
        &self,
        state: &mut StageState,
        items: &[ArgItem],
        at: Option<Timestamp>,
    ) -> StepResult<()> {
        let arguments = &self.builder.plan.arguments;
        let mut text = String::from("ARG");
        for item in items {
            let name = item.name.value.as_str();
            let value = match (arguments.given(name), &item.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(self.expand(state, default)?),
                (None, None) => arguments.global(name).map(str::to_owned),
            };
            text.push_str(&format!(" {name}"));
            if let Some(value) = &value {
                text.push_str(&format!("={value}"));
            }
            state.environment.declare(name, value.as_deref());
        }
        state.tell(text, false, at);
        Ok(())
    }

    fn label(
        &self,
        state: &mut StageState,
        pairs: &[KeyValue],
        at: Option<Timestamp>,
    ) -> StepResult<()> {
        let mut text = String::from("LABEL");
        for pair in pairs {
            let (key, value) = (self.expand(state, &pair.key)?, self.expand(state, &pair.value)?);
            text.push_str(&format!(" {key}={value}"));
            state.config.config.labels.insert(key, value);
        }
        state.tell(text, false, at);
        Ok(())
    }

    fn expose(
        &self,
        state: &mut StageState,
        words: &[Spanned<String>],
        at: Option<Timestamp>,
    ) -> StepResult<()> {
        let mut all = std::collections::BTreeSet::new();
        for word in words {
            let expanded = self
                .expander()
                .expand_words(&word.value, &state.environment)
                .map_err(|error| self.cannot_expand(word, &error))?;
            for text in expanded.words {
                let ports = expose::ports(&text)
                    .map_err(|error| StepFailure::new(self.error(error.to_string(), word.span)))?;
                all.extend(ports.ports);
            }
        }
        let list: Vec<&str> = all.iter().map(String::as_str).collect();
        state.tell(format!("EXPOSE [{}]", list.join(" ")), false, at);
        state.config.config.exposed_ports.extend(all.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }

    fn volume(
        &self,
        state: &mut StageState,
        words: &[Spanned<String>],
        at: Option<Timestamp>,
    ) -> StepResult<()> {
        let mut all = Vec::with_capacity(words.len());
        for word in words {
            let path = self.expand(state, word)?;
            if path.is_empty() {
                let problem = self.error("a volume cannot be an empty path", word.span);
                return Err(StepFailure::new(problem));
            }
            all.push(path);
        }
        state.tell(format!("VOLUME [{}]", all.join(" ")), false, at);
        state.config.config.volumes.extend(all.into_iter().map(|path| (path, Empty {})));
        Ok(())
    }

    fn healthcheck(&self, state: &mut StageState, check: &Healthcheck, at: Option<Timestamp>) {
        let nanoseconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let check = match check {
            Healthcheck::None => {
                ConfigHealthcheck { test: vec!["NONE".to_owned()], ..Default::default() }
            }
            Healthcheck::Check {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            } => {
                let mut test = match command {
                    CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                    CommandLine::Exec(args) => {
                        std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect()
                    }
                };
                test.shrink_to_fit();
                ConfigHealthcheck {
                    test,
                    interval: nanoseconds(*interval),
                    timeout: nanoseconds(*timeout),
                    start_period: nanoseconds(*start_period),
                    start_interval: nanoseconds(*start_interval),
                    retries: i64::from(*retries),
                }
            }
        };
        // Go's `%q` of BuildKit's structure, as `docker history` has always shown it.
        let text = format!(
            "HEALTHCHECK &{{{} \"{}\" \"{}\" \"{}\" \"{}\" {}}}",
            quoted(&check.test),
            go_duration(check.interval),
            go_duration(check.timeout),
            go_duration(check.start_period),
            go_duration(check.start_interval),
            quoted_rune(check.retries)
        );
        state.tell(text, false, at);
        state.config.config.healthcheck = Some(check);
    }
}

/// Returns the arguments of a command.
fn command(state: &StageState, line: &CommandLine) -> Vec<String> {
    match line {
        CommandLine::Exec(args) => args.clone(),
        CommandLine::Shell(text) => {
            let mut args = state.shell();
            args.push(text.clone());
            args
        }
    }
}

/// Writes a list as Go's `%q` does: `["a" "b"]`. Scanners read the history in this form.
fn quoted(args: &[String]) -> String {
    let words: Vec<String> = args.iter().map(|arg| format!("{arg:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// Writes a number as Go's `%q` does: as the character that has it, `'\x03'` for 3.
fn quoted_rune(number: i64) -> String {
    let character = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    match character {
        '\x07' => r"'\a'".to_owned(),
        '\x08' => r"'\b'".to_owned(),
        '\t' => r"'\t'".to_owned(),
        '\n' => r"'\n'".to_owned(),
        '\x0b' => r"'\v'".to_owned(),
        '\x0c' => r"'\f'".to_owned(),
        '\r' => r"'\r'".to_owned(),
        '\'' | '\\' => format!("'\\{character}'"),
        '\0'..='\x1f' | '\x7f' => format!("'\\x{number:02x}'"),
        _ => format!("'{character}'"),
    }
}

/// Writes nanoseconds as Go does: `1m30s`, `500ms`, `0s`.
fn go_duration(nanoseconds: i64) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    if seconds == 0 {
        return match rest {
            0 => "0s".to_owned(),
            rest if rest % 1_000_000 == 0 => format!("{}ms", rest / 1_000_000),
            rest if rest % 1_000 == 0 => format!("{}µs", rest / 1_000),
            rest => format!("{rest}ns"),
        };
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = match rest {
        0 => String::new(),
        rest => format!(".{}", format!("{rest:09}").trim_end_matches('0')),
    };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_lists_and_durations_as_go_does() {
        let args = ["/bin/sh".to_owned(), "-c".to_owned(), "echo \"hi\"".to_owned()];
        assert_eq!(quoted(&args), r#"["/bin/sh" "-c" "echo \"hi\""]"#);
        assert_eq!(quoted(&[]), "[]");
        let table = [
            (0, "0s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (500_000_000, "500ms"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanoseconds, expected) in table {
            assert_eq!(go_duration(nanoseconds), expected);
        }
    }
}
