//! What a build shows while it runs, as people know it from BuildKit.
//!
//! The builder tells a [`Progress`](boatyard_builder::progress::Progress); [`open`] returns the one
//! that prints to standard error in the mode that was asked for: a live view ([`tty`]), lines
//! ([`plain`]), objects ([`json`]) or next to nothing ([`quiet`]). Each mode is a
//! [`Renderer`](renderer::Renderer): a state machine without clock, thread or file, which turns
//! events and moments into bytes; so its tests are exact. The [`Reporter`] owns the rest: the
//! clock, the locks, the stream, and a thread that ticks ten times a second.
//!
//! What a build returns on standard output, such as an image's digest, is not printed here, and
//! neither is the error that ends it: `report` does that, after [`Reporter::finish`].

mod json;
mod lines;
mod log;
mod picture;
mod plain;
mod quiet;
mod renderer;
mod reporter;
mod text;
mod tty;

use std::io::IsTerminal as _;

use rustix::termios::tcgetwinsize;

use picture::Size;
pub use reporter::Reporter;

/// How the progress of a build is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// `tty` on a terminal, `plain` elsewhere
    #[default]
    Auto,
    /// A live view of the steps
    Tty,
    /// Lines, for logs
    Plain,
    /// One JSON object per line, for programs
    #[value(alias = "rawjson")]
    Json,
    /// Nothing but the log of a step that failed
    Quiet,
}

/// What decides between the modes and their colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment {
    /// Standard error is a terminal.
    pub terminal: bool,
    /// `CI` is set, and not to `false` or `0`: a log is kept, even if it looks like a terminal.
    pub ci: bool,
    /// `NO_COLOR` is set and not empty (no-color.org).
    pub no_color: bool,
    /// `TERM` is `dumb`: the cursor cannot move.
    pub dumb: bool,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn read() -> Environment {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Environment {
            terminal: std::io::stderr().is_terminal(),
            ci: set("CI").is_some_and(|value| value != "false" && value != "0"),
            no_color: set("NO_COLOR").is_some(),
            dumb: set("TERM").is_some_and(|value| value == "dumb"),
        }
    }

    /// Returns the mode that is meant: never [`ProgressMode::Auto`].
    fn decide(self, mode: ProgressMode) -> ProgressMode {
        match mode {
            ProgressMode::Auto if self.terminal && !self.ci && !self.no_color && !self.dumb => {
                ProgressMode::Tty
            }
            ProgressMode::Auto => ProgressMode::Plain,
            chosen => chosen,
        }
    }
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did what was asked.
    Done,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// What is said last.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How the build ended.
    pub ending: Ending,
    /// Lines for a person, such as the names of the image; may be empty.
    pub text: String,
}

/// Begins to show a build on standard error.
///
/// Give the reporter to the builder, then call [`Reporter::finish`] before anything else is
/// printed there.
pub fn open(mode: ProgressMode, environment: Environment) -> Reporter {
    let renderer: Box<dyn renderer::Renderer> = match environment.decide(mode) {
        ProgressMode::Tty => Box::new(tty::Tty::new(!environment.no_color, Box::new(size))),
        ProgressMode::Auto | ProgressMode::Plain => Box::new(plain::Plain::default()),
        ProgressMode::Json => Box::new(json::Json::default()),
        ProgressMode::Quiet => Box::new(quiet::Quiet::default()),
    };
    Reporter::new(renderer, Box::new(std::io::stderr()), Box::new(renderer::SystemClock::start()))
}

/// Returns the size of the terminal, which may change at any time.
fn size() -> Size {
    match tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            Size { rows: size.ws_row.into(), columns: size.ws_col.into() }
        }
        // A serial line, or no terminal at all: what terminals have been since the VT100.
        _ => Size { rows: 24, columns: 80 },
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn modes_have_the_names_that_people_know() {
        for (name, mode) in [
            ("auto", ProgressMode::Auto),
            ("tty", ProgressMode::Tty),
            ("plain", ProgressMode::Plain),
            ("json", ProgressMode::Json),
            ("rawjson", ProgressMode::Json),
            ("quiet", ProgressMode::Quiet),
        ] {
            assert_eq!(ProgressMode::from_str(name, false), Ok(mode));
        }
        assert!(ProgressMode::from_str("fancy", false).is_err());
    }

    #[test]
    fn auto_is_a_view_only_where_one_can_be_seen() {
        let terminal = Environment { terminal: true, ..Environment::default() };
        for (environment, mode) in [
            (terminal, ProgressMode::Tty),
            (Environment::default(), ProgressMode::Plain),
            (Environment { ci: true, ..terminal }, ProgressMode::Plain),
            (Environment { no_color: true, ..terminal }, ProgressMode::Plain),
            (Environment { dumb: true, ..terminal }, ProgressMode::Plain),
        ] {
            assert_eq!(environment.decide(ProgressMode::Auto), mode, "{environment:?}");
        }
        assert_eq!(Environment::default().decide(ProgressMode::Tty), ProgressMode::Tty);
    }
}
