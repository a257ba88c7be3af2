//! Errors as text for a person: what happened, why, and what to do.
//!
//! ```text
//! error: cannot push localhost:5000/app:1
//!   cause: localhost:5000 refused the connection
//! hint: is the registry running? `boatyard serve` starts one
//! ```
//!
//! An error is printed once, here; its sources first, hints last.

#![expect(clippy::print_stderr, reason = "this is where errors are printed")]

use std::error::Error;
use std::fmt;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use rustix::io::Errno;

/// The exit codes of the command. A failed step of a build ends with [`FAILED`], as docker's does.
pub const FAILED: u8 = 1;
/// The exit code for arguments or a configuration that cannot be used: clap's.
pub const USAGE: u8 = 2;

/// What a command could not do: the deed, the reason, and what may help.
#[derive(Debug)]
pub struct Failure {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hints: Vec<String>,
    code: u8,
    /// Already formatted, such as a marked line of a Dockerfile.
    verbatim: bool,
}

/// What every command returns.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Returns a failure without a deeper reason.
    pub fn new(what: impl fmt::Display) -> Failure {
        Failure {
            what: what.to_string(),
            source: None,
            hints: Vec::new(),
            code: FAILED,
            verbatim: false,
        }
    }

    /// Returns a failure that is printed as it stands.
    pub fn verbatim(text: impl Into<String>) -> Failure {
        Failure { verbatim: true, ..Failure::new(text.into()) }
    }

    /// Returns a failure of the arguments or the configuration.
    pub fn usage(what: impl fmt::Display) -> Failure {
        Failure { code: USAGE, ..Failure::new(what) }
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        self.source = Some(source.into());
        self
    }

    /// Adds what may help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// Sets the exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }
}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// Names the deed.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::new(what).because(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verbatim {
            write!(f, "{}", self.what.trim_end())?;
        } else {
            write!(f, "error: {}", self.what)?;
        }
        let mut source = self.source.as_deref().map(|source| source as &dyn Error);
        let mut last = self.what.clone();
        while let Some(cause) = source {
            let text = cause.to_string();
            // A transparent error says what its source says.
            if text != last {
                write!(f, "\n  cause: {}", text.replace('\n', "\n         "))?;
            }
            last = text;
            source = cause.source();
        }
        let source = self.source.as_deref().map(|source| source as &dyn Error);
        let advice = source.and_then(advice);
        for hint in self.hints.iter().map(String::as_str).chain(advice) {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Returns the advice that goes with an error of the operating system, wherever it came from.
pub fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut source = Some(error);
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let errno = || Some(std::io::Error::from(*cause.downcast_ref::<Errno>()?).kind());
        if let Some(kind) = io.or_else(errno) {
            match kind {
                std::io::ErrorKind::StorageFull => {
                    return Some(
                        "the disk is full: `boatyard gc` frees what nothing refers to, \
                         and --root names another place",
                    );
                }
                std::io::ErrorKind::ReadOnlyFilesystem => {
                    return Some("the file system is read-only: --root names another place");
                }
                _ => {}
            }
        }
        source = cause.source();
    }
    None
}

/// Prints a failure and returns the exit code.
pub fn failure(failure: &Failure) -> ExitCode {
    let text = failure.to_string();
    if std::io::stderr().is_terminal() {
        let text = text
            .replacen("error:", "\x1b[1;31merror:\x1b[0m", 1)
            .replace("\nhint:", "\n\x1b[1;36mhint:\x1b[0m");
        eprintln!("{text}");
    } else {
        eprintln!("{text}");
    }
    ExitCode::from(failure.code)
}

/// Prints a warning.
pub fn warn(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[1;33mwarning:\x1b[0m {text}");
    } else {
        eprintln!("warning: {text}");
    }
}

/// Prints a line about what is going on, where it does not mix with output.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints a question; the answer comes on the same line.
pub fn prompt(question: &str) {
    eprint!("{question}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_why_and_what_to_do() {
        let inner = std::io::Error::new(std::io::ErrorKind::StorageFull, "No space left");
        let failure = Failure::new("cannot pull app").because(inner).hint("free some space");
        assert_eq!(
            failure.to_string(),
            "error: cannot pull app\n  cause: No space left\nhint: free some space\nhint: the \
             disk is full: `boatyard gc` frees what nothing refers to, and --root names another \
             place"
        );
    }
}
