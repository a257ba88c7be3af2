//! The book's lessons: what every builder takes, and what costs bytes or time.
//!
//! They are guesses from the text, made carefully: a step is blamed for what it certainly does. What
//! only the layers can tell is a candidate ([`Finding::is_sure`] is false) until they are measured.

use std::collections::BTreeSet;

use super::measure::Measure;
use super::shell::{commands, program};
use super::stages::Stages;
use super::{Finding, Linter, context};
use crate::dockerfile::instruction::{CopySource, Run};
use crate::dockerfile::{Instruction, InstructionKind, Rule, Warning};

/// Directories of a context that no image needs, and from how many bytes on they are worth a word.
const UNWANTED: [&str; 2] = [".git", "node_modules"];
const UNWANTED_BYTES_MIN: u64 = 10_000_000;

/// Places that hold nothing but what can be had again.
const CACHES: [&str; 10] = [
    "/var/lib/apt/lists",
    "/var/cache",
    "/var/log",
    "/tmp",
    "/var/tmp",
    "/root/.cache",
    "/root/.npm",
    "~/.cache",
    "~/.npm",
    "/usr/share/doc",
];

/// Packages that compile and that a program does not need to run.
const COMPILERS: [&str; 24] = [
    "build-essential",
    "build-base",
    "alpine-sdk",
    "gcc",
    "g++",
    "clang",
    "llvm",
    "make",
    "cmake",
    "ninja-build",
    "meson",
    "automake",
    "autoconf",
    "golang",
    "golang-go",
    "go",
    "rustc",
    "cargo",
    "rust",
    "gcc-c++",
    "musl-dev",
    "libc6-dev",
    "linux-headers",
    "python3-dev",
];

impl Linter<'_> {
    pub(super) fn lessons(&mut self, stages: &Stages<'_>, target: usize) {
        let in_image = stages.in_image(target);
        let all: Vec<usize> = match self.question.all_stages {
            true => stages.all().into_iter().collect(),
            false => stages.reachable(target).into_iter().collect(),
        };
        for index in all {
            self.copy_before_install(stages, index);
            self.large_directories(stages, index);
        }
        let mut seen = Seen::default();
        for index in in_image {
            for instruction in stages.instructions(index) {
                if let InstructionKind::Run(run) = &instruction.kind {
                    self.clean_up(instruction, run, &seen);
                    self.apt_lists(instruction, run);
                    self.compilers(instruction, run);
                }
                seen.note(instruction);
            }
        }
    }

    /// A step deletes what is not its own.
    fn clean_up(&mut self, instruction: &Instruction, run: &Run, seen: &Seen) {
        let commands = commands(run);
        let deletes: Vec<&Vec<String>> =
            commands.iter().filter(|command| is_clean_up(command)).collect();
        if deletes.is_empty() || !run.mounts.is_empty() {
            return;
        }
        let does_nothing_else = commands.iter().all(|command| {
            is_clean_up(command)
                || matches!(program(command).0, "set" | "true" | ":" | "echo" | "cd" | "sync")
        });
        let is_sure = does_nothing_else && deletes.iter().any(|command| seen.knows(command));
        let message = "This step deletes files of earlier steps, which keep every byte of them";
        self.lesson(
            Rule::CleanupFreesNothing,
            instruction,
            message.to_owned(),
            is_sure,
            Some(Measure::Removed),
        );
    }

    fn apt_lists(&mut self, instruction: &Instruction, run: &Run) {
        let commands = commands(run);
        let updates = commands.iter().any(|command| {
            let (name, words) = program(command);
            matches!(name, "apt-get" | "apt" | "aptitude") && words.first() == Some(&"update")
        });
        let cleans = commands.iter().any(|command| {
            matches!(program(command).0, "rm" | "find")
                && command.iter().any(|word| is_within(word, "/var/lib/apt"))
        });
        let mounted = run.mounts.iter().any(|mount| mount.value.contains("/var/lib/apt"));
        if !updates || cleans || mounted {
            return;
        }
        let message = "The lists that apt-get update fetches stay in the layer of this step";
        let measure = Measure::Below("var/lib/apt/lists".to_owned());
        let rule = Rule::AptListsLeftBehind;
        self.lesson(rule, instruction, message.to_owned(), true, Some(measure));
    }

    fn compilers(&mut self, instruction: &Instruction, run: &Run) {
        let mut found = BTreeSet::new();
        let commands = commands(run);
        for command in &commands {
            let (name, words) = program(command);
            let installs = match name {
                "apt-get" | "apt" | "dnf" | "yum" | "microdnf" | "zypper" => {
                    words.first() == Some(&"install")
                }
                "apk" => words.first() == Some(&"add"),
                _ => false,
            };
            if installs {
                let package =
                    |word: &&str| COMPILERS.contains(&word.split('=').next().unwrap_or(word));
                found.extend(words.iter().skip(1).copied().filter(package));
            }
        }
        let removes = |command: &Vec<String>| {
            let (name, words) = program(command);
            let verb = words.first().copied().unwrap_or_default();
            match name {
                "apt-get" | "apt" | "dnf" | "yum" | "microdnf" | "zypper" => {
                    matches!(verb, "purge" | "remove" | "autoremove")
                }
                "apk" => verb == "del",
                _ => false,
            }
        };
        if found.is_empty() || commands.iter().any(removes) {
            return;
        }
        let names = found.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("What compiles stays in the image: {names}");
        self.lesson(Rule::CompilerInFinalStage, instruction, message, true, Some(Measure::Layer));
    }

    /// Everything is copied, and only then the dependencies are installed.
    fn copy_before_install(&mut self, stages: &Stages<'_>, index: usize) {
        let mut copied: Option<&Instruction> = None;
        for instruction in stages.instructions(index) {
            match &instruction.kind {
                _ if takes_everything(instruction) => {
                    copied.get_or_insert(instruction);
                }
                InstructionKind::Run(run) => {
                    let Some(copy) = copied else { continue };
                    let installs = commands(run).into_iter().find_map(|command| installs(&command));
                    let Some(installs) = installs else { continue };
                    let line = self.question.dockerfile.source.line_of(instruction.span.start);
                    let mut message = format!(
                        "Every change of any file that this copies makes `{installs}` run again \
                         (line {line})"
                    );
                    let mut bytes = None;
                    if let Some((root, ignored)) = self.question.context {
                        let amount = context::measure(root, "", ignored);
                        message += &format!(", and it copies {amount}");
                        bytes = Some(amount.bytes);
                    }
                    let warning = warning(Rule::CopyBeforeInstall, copy, message);
                    let finding = Finding { bytes, ..Finding::new(warning) };
                    self.add(finding, copy.checks.as_ref());
                    return;
                }
                _ => {}
            }
        }
    }

    /// What is copied holds a directory that no image needs.
    fn large_directories(&mut self, stages: &Stages<'_>, index: usize) {
        let Some((root, ignored)) = self.question.context else { return };
        let instructions = stages.instructions(index);
        let Some(copy) = instructions.iter().find(|it| takes_everything(it)) else { return };
        for name in UNWANTED {
            if ignored.matches(name, true) && !ignored.has_exceptions() {
                continue;
            }
            let amount = context::measure(root, name, ignored);
            if amount.bytes < UNWANTED_BYTES_MIN {
                continue;
            }
            let message = format!("This copies `{name}` of the context: {amount}");
            let warning = warning(Rule::LargeContextDirectory, copy, message);
            let finding = Finding { bytes: Some(amount.bytes), ..Finding::new(warning) };
            self.add(finding, copy.checks.as_ref());
        }
    }

    fn lesson(
        &mut self,
        rule: Rule,
        instruction: &Instruction,
        message: String,
        is_sure: bool,
        measure: Option<Measure>,
    ) {
        let warning = warning(rule, instruction, message);
        let finding = Finding { measure, is_sure, ..Finding::new(warning) };
        self.add(finding, instruction.checks.as_ref());
    }
}

fn warning(rule: Rule, instruction: &Instruction, message: String) -> Warning {
    Warning::new(rule, instruction.keyword.span, instruction.span, message)
}

/// Says whether a COPY or ADD takes all of the context.
fn takes_everything(instruction: &Instruction) -> bool {
    let sources = match &instruction.kind {
        InstructionKind::Copy(copy) if copy.from.is_none() => &copy.sources,
        InstructionKind::Add(add) => &add.sources,
        _ => return false,
    };
    sources.iter().any(|source| match source {
        CopySource::Path(word) => matches!(word.value.as_str(), "." | "./" | "/" | "*" | "./*"),
        CopySource::Heredoc(_) => false,
    })
}

/// Returns the command, if it installs what a file of the project lists.
fn installs(command: &[String]) -> Option<String> {
    let (name, words) = program(command);
    let first = words.first().copied().unwrap_or_default();
    let second = words.get(1).copied().unwrap_or_default();
    let is_install = match name {
        "npm" => matches!(first, "install" | "ci" | "i") && second.is_empty(),
        "pnpm" => matches!(first, "install" | "i"),
        "yarn" => matches!(first, "" | "install"),
        "bundle" | "composer" | "poetry" | "pipenv" => first == "install",
        "pip" | "pip3" => {
            first == "install"
                && command.iter().any(|word| word.starts_with("-r") || word == "--requirement")
        }
        "uv" => first == "sync",
        "go" => first == "mod" && second == "download",
        "cargo" => first == "fetch",
        "mvn" => first.starts_with("dependency:"),
        "dotnet" => first == "restore",
        "mix" => first == "deps.get",
        _ => false,
    };
    let shown = command.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(" ");
    is_install.then_some(shown)
}

/// Says whether a command does nothing but delete.
fn is_clean_up(command: &[String]) -> bool {
    let (name, words) = program(command);
    let first = words.first().copied().unwrap_or_default();
    match name {
        "rm" | "rmdir" | "unlink" => true,
        "find" => command.iter().any(|word| word == "-delete"),
        "apt-get" | "apt" => {
            matches!(first, "clean" | "autoclean" | "purge" | "remove" | "autoremove")
        }
        "yum" | "dnf" | "microdnf" | "zypper" => matches!(first, "clean" | "remove" | "autoremove"),
        "apk" => matches!(first, "del"),
        "npm" | "yarn" | "pip" | "pip3" => first == "cache",
        _ => false,
    }
}

fn is_within(word: &str, directory: &str) -> bool {
    word.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What earlier instructions of the image name.
#[derive(Default)]
struct Seen {
    words: BTreeSet<String>,
    /// Something was run: package managers may have left something.
    runs: bool,
}

impl Seen {
    fn note(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            InstructionKind::Run(run) => {
                self.runs = true;
                let words = commands(run).into_iter().flatten();
                self.words.extend(words.map(|word| path_of(&word).to_owned()));
            }
            InstructionKind::Copy(copy) => {
                self.words.insert(path_of(&copy.destination.value).to_owned());
            }
            InstructionKind::Add(add) => {
                self.words.insert(path_of(&add.destination.value).to_owned());
            }
            _ => {}
        }
    }

    /// Says whether a clean-up is certainly of what earlier instructions made.
    fn knows(&self, command: &[String]) -> bool {
        let (name, words) = program(command);
        match name {
            "rm" | "rmdir" | "unlink" | "find" => words.iter().any(|word| {
                let path = path_of(word);
                path.len() > 1
                    && (self.words.contains(path)
                        || self.runs && CACHES.iter().any(|cache| is_within(path, cache)))
            }),
            _ => self.runs,
        }
    }
}

/// Returns a word as the path that it may be: `of=/large` and `/large/*` are `/large`.
fn path_of(word: &str) -> &str {
    let word = match word.split_once('=') {
        Some((name, path)) if path.starts_with('/') && !name.starts_with('/') => path,
        _ => word,
    };
    let word = word.trim_start_matches('>');
    word.trim_end_matches('*').trim_end_matches('/')
}
