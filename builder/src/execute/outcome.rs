//! How a command ended, for programs and for people.

use std::fmt;

/// How a command ended. Its text completes "the command failed: …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this code; 0 is success.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It ran longer than it may.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

/// What a shell adds to the number of the signal that ended its command.
const SHELL_SIGNAL: i32 = 128;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Outcome::Exited(code) => {
                write!(f, "exit code: {code}")?;
                match signal_name(code - SHELL_SIGNAL) {
                    Some(name) => {
                        write!(f, " ({SHELL_SIGNAL} + {name}{})", hint(code - SHELL_SIGNAL))
                    }
                    None => Ok(()),
                }
            }
            Outcome::Signaled(number) => match signal_name(number) {
                Some(name) => write!(f, "ended by signal {name}{}", hint(number)),
                None => write!(f, "ended by signal {number}"),
            },
            Outcome::TimedOut => f.write_str("it took longer than it may"),
            Outcome::Cancelled => f.write_str("it was cancelled"),
        }
    }
}

/// What to think of first when a signal ended a command that nobody meant to end.
fn hint(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => ", which the kernel sends when memory runs out",
        libc::SIGILL => ", such as for a CPU that lacks an instruction",
        _ => "",
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_signal() {
        for (outcome, expected) in [
            (Outcome::Exited(0), "exit code: 0"),
            (Outcome::Exited(127), "exit code: 127"),
            (Outcome::Exited(143), "exit code: 143 (128 + SIGTERM)"),
            (
                Outcome::Exited(137),
                "exit code: 137 (128 + SIGKILL, which the kernel sends when memory runs out)",
            ),
            (Outcome::Exited(255), "exit code: 255"),
            (Outcome::Signaled(11), "ended by signal SIGSEGV"),
            (
                Outcome::Signaled(9),
                "ended by signal SIGKILL, which the kernel sends when memory runs out",
            ),
            (Outcome::Signaled(40), "ended by signal 40"),
            (Outcome::TimedOut, "it took longer than it may"),
            (Outcome::Cancelled, "it was cancelled"),
        ] {
            assert_eq!(outcome.to_string(), expected);
        }
    }
}
