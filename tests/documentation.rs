//! The documents say what the command does: every command and option is described, every example of
//! a configuration is one, every message that is quoted is printed, every link leads somewhere.

#![expect(clippy::unwrap_used, reason = "a check that cannot be made has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DOCUMENTS: [&str; 16] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/guide.md",
    "docs/access.md",
    "docs/reference.md",
    "docs/configuration.md",
    "docs/running.md",
    "docs/registry.md",
    "docs/packages.md",
    "docs/dockerfile.md",
    "docs/storage.md",
    "docs/lint.md",
    "docs/differences.md",
    "docs/decisions.md",
    "docs/glossary.md",
];

#[test]
fn every_command_and_option_is_in_the_reference() {
    let reference = read("docs/reference.md");
    let readme = read("README.md");
    let mut missing = Vec::new();
    for command in commands() {
        if !readme.contains(&format!("`{command}`")) {
            missing.push(format!("README.md: {command}"));
        }
        let Some(section) = section(&reference, &command) else {
            missing.push(format!("docs/reference.md: a section for {command}"));
            continue;
        };
        for option in options_of(&command) {
            if !section.contains(&option) {
                missing.push(format!("docs/reference.md, {command}: {option}"));
            }
        }
    }
    assert!(missing.is_empty(), "these are not described:\n{}", missing.join("\n"));
}

#[test]
fn every_option_in_the_reference_is_one() {
    let reference = read("docs/reference.md");
    let mut unknown = Vec::new();
    for command in commands() {
        let known: BTreeSet<String> =
            options_of(&command).into_iter().chain(global_options()).collect();
        let usage = section(&reference, &command).unwrap_or_default();
        let usage = usage.lines().filter(|line| is_usage_of(line, &command) || is_row(line));
        let siblings: BTreeSet<String> =
            siblings(&reference, &command).iter().flat_map(|sibling| options_of(sibling)).collect();
        for option in usage.flat_map(long_options) {
            if !known.contains(&option) && !siblings.contains(&option) {
                unknown.push(format!("{command}: {option}"));
            }
        }
    }
    assert!(unknown.is_empty(), "these do not exist:\n{}", unknown.join("\n"));
}

#[test]
fn the_page_of_the_configuration_is_the_codes() {
    let printed = boatyard(&["config", "reference"]);
    let is_same = read("docs/configuration.md").as_bytes() == printed.stdout;
    assert!(is_same, "run `boatyard config reference > docs/configuration.md`");
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let readme = read("README.md");
    let example = fenced(&readme, "toml").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("boatyard.toml");
    fs_err::write(&config, example).unwrap();
    let root = directory.path().join("root");
    let output = boatyard(&["images", "--config", path(&config), "--root", path(&root)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_refused_is_refused_in_these_words() {
    let page = read("docs/dockerfile.md");
    let table = page.split("## What is refused").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut refused = 0;
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let message = cells[2].trim_matches('`');
        // The first of several forms is the one whose message is shown.
        let form = cells[1].split('`').nth(1).unwrap();
        let text = format!("FROM scratch\n{}\n", completed(form));
        let output = build(&text);
        assert!(output.contains(message), "{text}{output}");
        refused += 1;
    }
    assert!(refused >= 3, "the table is there");
    let shown = fenced(table, "text").next().unwrap();
    let instruction = shown.lines().find(|line| line.contains("3 | ")).unwrap();
    let instruction = instruction.split("3 | ").nth(1).unwrap();
    assert_eq!(build(&format!("FROM scratch\n\n{instruction}\n")).trim_end(), shown.trim_end());
}

#[test]
fn every_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let beside = workspace().join(document).parent().unwrap().join(file);
            if !link.contains("://") && !beside.exists() {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Returns the commands that `boatyard --help` lists.
fn commands() -> Vec<String> {
    listed(&help(&["--help"]))
}

/// Returns the commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let list = list.split("\n\n").next().unwrap_or_default();
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    // A description that goes on in the next line is indented further than a name.
    let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    list.lines().filter(is_command).map(first).collect()
}

/// Returns the long options of a command, and of the commands below it.
fn options_of(command: &str) -> Vec<String> {
    let below = listed(&help(&[command, "--help"]));
    let below = below.iter().flat_map(|below| options(&[command, below, "--help"]));
    options(&[command, "--help"]).into_iter().chain(below).collect()
}

/// Returns the long options that a help text defines, but for those that all commands have.
fn options(args: &[&str]) -> Vec<String> {
    let global = global_options();
    let help = help(args);
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let defined = lines.filter_map(|line| long_options(line).next());
    defined.filter(|option| !global.contains(option)).collect()
}

fn global_options() -> Vec<String> {
    ["--root", "--config", "--snapshots", "--help", "--version"].map(str::to_owned).into()
}

fn long_options(text: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
    let words = text.split(move |c: char| !is_part(c));
    words.filter(|word| word.len() > 3 && word.starts_with("--")).map(str::to_owned)
}

/// Returns the section whose heading names a command, alone or among others.
fn section<'a>(reference: &'a str, command: &str) -> Option<&'a str> {
    let sections = reference.split("\n## ").skip(1);
    let names = |section: &&str| headings(section).contains(&command);
    sections.into_iter().find(names)
}

fn headings(section: &str) -> Vec<&str> {
    section.lines().next().unwrap_or_default().split(", ").collect()
}

/// Returns the commands that share a section with this one.
fn siblings(reference: &str, command: &str) -> Vec<String> {
    let section = section(reference, command).unwrap_or_default();
    headings(section).into_iter().map(str::to_owned).collect()
}

fn is_usage_of(line: &str, command: &str) -> bool {
    line.starts_with(&format!("    boatyard {command}")) || line.starts_with("          ")
}

/// Says whether a line is a row of a table of options.
fn is_row(line: &str) -> bool {
    line.starts_with("| `-")
}

/// Makes an instruction of a form that lacks values and arguments.
fn completed(form: &str) -> String {
    let form = match form {
        "COPY --exclude" => "COPY --exclude=x",
        "ADD --checksum" => {
            "ADD --checksum=sha256:\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        }
        url if url.starts_with("ADD https://") => "ADD https://files.example/x",
        form => form,
    };
    let arguments = match form.split(' ').next() {
        Some("RUN") => " true",
        Some("ADD") if form.contains("://") => " /",
        _ => " a /",
    };
    format!("{form}{arguments}")
}

/// Builds a Dockerfile that cannot be built, and returns what was said.
fn build(dockerfile: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs_err::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
    let root = directory.path().join("root");
    let context = path(directory.path());
    let output = boatyard(&["--root", path(&root), "build", "--progress", "quiet", context]);
    assert!(!output.status.success());
    let prefix = format!("{context}/");
    String::from_utf8_lossy(&output.stderr).replace(&prefix, "")
}

fn help(args: &[&str]) -> String {
    let output = boatyard(args);
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn boatyard(args: &[&str]) -> Output {
    // Settings of whoever runs the tests do not count.
    let mut command = Command::new(env!("CARGO_BIN_EXE_boatyard"));
    for name in ["BOATYARD_ROOT", "BOATYARD_CONFIG", "BOATYARD_LOG", "BOATYARD_PROGRESS"] {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

/// Returns the code blocks of one language.
fn fenced<'a>(text: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(document: &str) -> String {
    fs_err::read_to_string(workspace().join(document)).unwrap()
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
