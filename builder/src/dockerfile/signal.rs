//! Signals of STOPSIGNAL, after expansion: a name with or without `SIG`, or a number.

use super::suggest;

/// The names that Linux knows, without `SIG`.
const NAMES: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    "UNUSED",
];
/// The largest signal number of Linux.
const NUMBER_MAX: u32 = 64;
/// Real-time signals that can be named from `RTMIN` up and from `RTMAX` down.
const ABOVE_RTMIN_MAX: u32 = 15;
const BELOW_RTMAX_MAX: u32 = 14;

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal `{signal}`")]
pub struct SignalError {
    /// The text.
    pub signal: String,
    /// The name that is probably meant.
    pub near: Option<&'static str>,
}

/// Checks a signal; the image's configuration keeps it as it was written.
///
/// # Errors
///
/// If Linux has no such signal.
pub fn validate(signal: &str) -> Result<(), SignalError> {
    if let Ok(number) = signal.parse::<u32>()
        && (1..=NUMBER_MAX).contains(&number)
    {
        return Ok(());
    }
    let upper = signal.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if NAMES.contains(&name) || real_time(name) {
        return Ok(());
    }
    Err(SignalError { signal: signal.to_owned(), near: suggest::nearest(name, NAMES, true) })
}

fn real_time(name: &str) -> bool {
    let within = |prefix: &str, max: u32| {
        let number = name.strip_prefix(prefix).and_then(|number| number.parse::<u32>().ok());
        number.is_some_and(|number| (1..=max).contains(&number))
    };
    within("RTMIN+", ABOVE_RTMIN_MAX) || within("RTMAX-", BELOW_RTMAX_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_linux_are_signals() {
        for signal in ["TERM", "SIGTERM", "sigkill", "9", "64", "SIGRTMIN+3", "RTMAX-14"] {
            assert_eq!(validate(signal), Ok(()), "{signal}");
        }
        for signal in ["", "0", "-9", "65", "SIG", "SIGSIGTERM", "RTMIN+16", "RTMAX-15", "NOPE"] {
            assert!(validate(signal).is_err(), "{signal}");
        }
        assert_eq!(validate("SIGTREM").unwrap_err().near, Some("TERM"));
    }
}
