//! `boatyard doctor`

use std::fmt;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use boatyard_builder::execute::{InitCommand, Rung};
use serde::Serialize;

use crate::output;
use crate::report::{FAILED, Result};
use crate::world::World;

mod cgroups;
mod isolation;
mod place;
mod process;
mod tools;
mod users;

/// Say what this machine lets builds do, why not more, and what to install or switch on.
///
/// Everything is tried, not guessed: namespaces and mounts are made in processes of their own,
/// files in the root. Ends with 1 where no build is possible.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Examines this machine.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let examination = Examination::of(world);
    if args.json {
        output::json(&examination)?;
    } else {
        let style = if std::io::stdout().is_terminal() { Style::Colours } else { Style::Plain };
        output::bytes(examination.text(style).as_bytes())?;
    }
    Ok(if examination.possible { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What was found.
#[derive(Debug, Serialize)]
struct Examination {
    version: &'static str,
    kernel: String,
    container: Option<&'static str>,
    /// Whether a build can run.
    possible: bool,
    /// How its steps would be isolated.
    isolation: Option<&'static str>,
    sections: Vec<Section>,
}

/// Findings about one thing.
#[derive(Debug, Serialize)]
struct Section {
    name: &'static str,
    findings: Vec<Finding>,
}

/// One fact.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What a fact means for builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Good,
    /// Something is lost without it.
    Missing,
    /// No build is possible like this.
    Bad,
    /// Neither good nor bad.
    Fact,
}

impl Finding {
    fn new(name: &'static str, state: State, text: impl Into<String>) -> Finding {
        Finding { name, state, text: text.into(), remedy: None }
    }

    fn good(name: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(name, State::Good, text)
    }

    fn fact(name: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(name, State::Fact, text)
    }

    fn missing(name: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(name, State::Missing, text)
    }

    fn bad(name: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(name, State::Bad, text)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }
}

impl Examination {
    fn of(world: &World) -> Examination {
        let container = process::container();
        let init = InitCommand::of_this_program();
        let (rung, isolation) = isolation::examine(&init, container);
        let (fit, place) = place::examine(world.root_path());
        let needs_userns = !matches!(rung, Some(Rung::Full));
        let mut sections = vec![isolation, place, process::examine()];
        if needs_userns {
            sections.push(users::examine());
        }
        sections.extend([tools::examine(needs_userns), cgroups::examine()]);
        Examination {
            version: env!("CARGO_PKG_VERSION"),
            kernel: process::kernel(),
            container,
            possible: rung.is_some() && fit,
            isolation: rung.map(Rung::name),
            sections,
        }
    }

    fn text(&self, style: Style) -> String {
        let place = match self.container {
            Some(container) => format!(", in a container ({container})"),
            None => String::new(),
        };
        let mut text = format!("Boatyard {} on {}{place}\n", self.version, self.kernel);
        let verdict = match (self.possible, self.isolation) {
            (true, Some(isolation)) => {
                style.good(&format!("Builds work here, with --isolation={isolation}."))
            }
            _ => style.bad("Builds do not work here."),
        };
        text.push_str(&format!("{verdict}\n"));
        for section in &self.sections {
            text.push_str(&format!("\n{}\n", style.heading(section.name)));
            for finding in &section.findings {
                text.push_str(&finding.text(style));
            }
        }
        text
    }
}

/// How wide the column of names is.
const NAME_WIDTH: usize = 16;

impl Finding {
    fn text(&self, style: Style) -> String {
        let mark = match self.state {
            State::Good => style.good("✓"),
            State::Missing => style.missing("–"),
            State::Bad => style.bad("✗"),
            State::Fact => " ".to_owned(),
        };
        let mut text = format!("  {mark} {:NAME_WIDTH$} {}\n", self.name, self.text);
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("    {:NAME_WIDTH$} → {remedy}\n", ""));
        }
        text
    }
}

/// Whether there are colours.
#[derive(Clone, Copy)]
enum Style {
    Plain,
    Colours,
}

impl Style {
    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        match self {
            Style::Plain => text.to_string(),
            Style::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn missing(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }
}

/// Reads a small file of the kernel's; `None` where there is none.
fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Returns an error with its causes, in one line.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let own = cause.to_string();
        if !text.ends_with(&own) {
            text = format!("{text}: {own}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_page() {
        let examination = Examination {
            version: "1.0",
            kernel: "Linux 6.1 x86_64".to_owned(),
            container: Some("docker"),
            possible: true,
            isolation: Some("chroot"),
            sections: vec![Section {
                name: "Isolation of steps",
                findings: vec![
                    Finding::missing("full", "this process lacks CAP_SYS_ADMIN").remedy("do this"),
                    Finding::good("chroot", "works"),
                ],
            }],
        };
        assert_eq!(
            examination.text(Style::Plain),
            "Boatyard 1.0 on Linux 6.1 x86_64, in a container (docker)\n\
             Builds work here, with --isolation=chroot.\n\
             \n\
             Isolation of steps\n\
             \x20 – full             this process lacks CAP_SYS_ADMIN\n\
             \x20                    → do this\n\
             \x20 ✓ chroot           works\n"
        );
    }
}
