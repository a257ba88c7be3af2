//! How a command ended, for programs and for people.

use std::fmt;

/// How a command ended. Its text completes "the command failed: …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this code; 0 is success.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It failed after the kernel killed a process of it, for want of memory within its limit.
    OutOfMemory {
        /// The limit, in bytes.
        limit: u64,
    },
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
            Outcome::OutOfMemory { limit } => write!(f, "out of memory (limit {})", Bytes(limit)),
            Outcome::TimedOut => f.write_str("timed out: it took longer than it may"),
            Outcome::Cancelled => f.write_str("it was cancelled"),
        }
    }
}

/// A size in the largest unit that leaves no rest, as `--memory` takes it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.0;
        let mut units = ["bytes", "KB", "MB", "GB"].into_iter();
        let mut unit = units.next().unwrap_or_default();
        while number > 0
            && number.is_multiple_of(1024)
            && let Some(larger) = units.next()
        {
            (number, unit) = (number / 1024, larger);
        }
        write!(f, "{number} {unit}")
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
            (Outcome::OutOfMemory { limit: 64 << 20 }, "out of memory (limit 64 MB)"),
            (Outcome::OutOfMemory { limit: 3 << 30 }, "out of memory (limit 3 GB)"),
            (Outcome::OutOfMemory { limit: 7_000_001 }, "out of memory (limit 7000001 bytes)"),
            (Outcome::TimedOut, "timed out: it took longer than it may"),
            (Outcome::Cancelled, "it was cancelled"),
        ] {
            assert_eq!(outcome.to_string(), expected);
        }
    }
}
