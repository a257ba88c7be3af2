//! What steps may use: `--memory`, `--cpus` and their kin, `--timeout`.

use std::time::Duration;

use boatyard_builder::execute::Limits;

use super::{Args, bytes};
use crate::report::{Failure, Result};

/// Less memory than this does not start a shell; docker has the same bound.
const MEMORY_MIN: u64 = 6 << 20;
/// The period that `--cpus` is counted over, in microseconds.
const CPU_PERIOD_US: u32 = 100_000;
/// The smallest quota that the kernel takes, in microseconds.
const CPU_QUOTA_US_MIN: u32 = 1_000;

/// Reads the limits of a step as a whole.
pub(super) fn limits(args: &Args) -> Result<Limits> {
    let memory = args.memory.as_deref().map(bytes).transpose()?;
    if memory.is_some_and(|memory| memory < MEMORY_MIN) {
        return Err(Failure::usage("--memory cannot be less than 6m"));
    }
    Ok(Limits {
        memory,
        memory_swap: memory_swap(args, memory)?,
        cpu_shares: args.cpu_shares,
        cpu_period_us: args.cpu_period,
        cpu_quota_us: match &args.cpus {
            Some(cpus) => Some(quota(cpus)?),
            None => args.cpu_quota,
        },
        cpuset_cpus: args.cpuset_cpus.as_deref().map(cpuset).transpose()?,
        pids: args.pids_limit,
    })
}

fn memory_swap(args: &Args, memory: Option<u64>) -> Result<Option<u64>> {
    let Some(text) = &args.memory_swap else { return Ok(None) };
    let Some(memory) = memory else {
        return Err(Failure::usage("--memory-swap needs --memory, which it includes"));
    };
    match text.as_str() {
        "-1" => Ok(Some(u64::MAX)),
        text => match bytes(text)? {
            both if both < memory => {
                Err(Failure::usage("--memory-swap cannot be less than --memory, which it includes"))
            }
            both => Ok(Some(both)),
        },
    }
}

/// Reads a number of CPUs as the time of a period.
fn quota(text: &str) -> Result<u64> {
    let wrong =
        || Failure::usage(format!("cannot use --cpus {text}: write a number, such as 2 or 1.5"));
    let cpus: f64 = text.parse().map_err(|_| wrong())?;
    let quota = (cpus * f64::from(CPU_PERIOD_US)).round();
    if !(f64::from(CPU_QUOTA_US_MIN)..=f64::from(u32::MAX)).contains(&quota) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    Ok(quota as u64)
}

/// Checks a list of CPUs for its form; whether there are such the kernel knows.
fn cpuset(text: &str) -> Result<String> {
    let number = |text: &str| text.parse::<u16>().ok();
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, z)| a <= z),
        None => number(text).is_some(),
    };
    if text.split(',').all(range) {
        return Ok(text.to_owned());
    }
    Err(Failure::usage(format!("cannot use --cpuset-cpus {text}: write a list, such as 0-2,7")))
}

/// Reads a duration such as `90s`, `10m` or `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let read = text.parse::<jiff::SignedDuration>().ok();
    let read = read.and_then(|duration| Duration::try_from(duration).ok());
    read.filter(|duration| !duration.is_zero()).ok_or_else(|| {
        Failure::usage(format!("cannot use --timeout {text}: write a time, such as 90s or 1h30m"))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn read(options: &str) -> Result<Limits> {
        let words = ["build", "."].into_iter().chain(options.split_whitespace());
        limits(&Command::try_parse_from(words).unwrap().args)
    }

    #[test]
    fn reads_dockers_forms() {
        let limits = read("-m 64m --memory-swap 1g --cpus 1.5 -c 512 --cpuset-cpus 0-2,7").unwrap();
        assert_eq!(
            limits,
            Limits {
                memory: Some(64 << 20),
                memory_swap: Some(1 << 30),
                cpu_shares: Some(512),
                cpu_period_us: None,
                cpu_quota_us: Some(150_000),
                cpuset_cpus: Some("0-2,7".to_owned()),
                pids: None,
            }
        );
        let swap = read("--memory 64m --memory-swap -1").unwrap().memory_swap;
        assert_eq!(swap, Some(u64::MAX));
        let limits = read("--cpu-quota 50000 --cpu-period 25000 --pids-limit 100").unwrap();
        assert_eq!(limits.cpu_quota_us.zip(limits.cpu_period_us), Some((50_000, 25_000)));
        assert_eq!(limits.pids, Some(100));
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn refuses_what_cannot_be() {
        for bad in [
            "--memory 1m",
            "--memory lots",
            "--memory-swap 1g",
            "--memory 64m --memory-swap 32m",
            "--cpus 0",
            "--cpus many",
            "--cpus NaN",
            "--cpuset-cpus 2-0",
            "--cpuset-cpus all",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_durations() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in ["", "0s", "-5s", "90", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
