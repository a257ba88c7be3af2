//! What steps may use: `--memory`, `--cpus` and their kin, `--timeout`.

use std::time::Duration;

use boatyard_builder::execute::Limits;

use crate::report::{Failure, Result};

/// Limits of what is run: the steps of a build, or a command in an image.
#[derive(Debug, Default, clap::Args)]
pub struct LimitArgs {
    /// The memory that a step may use, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// The memory and swap together; -1 for as much swap as there is [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// The CPUs' worth of time that a step may use, such as 1.5
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<String>,
    /// A step's share of CPU time that others want, too: 1024 is the usual
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(2..))]
    cpu_shares: Option<u64>,
    /// The CPU time of a step in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1_000..))]
    cpu_quota: Option<u64>,
    /// The period of --cpu-quota, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    cpu_period: Option<u64>,
    /// The CPUs that steps run on, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The number of processes and threads that a step may have
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
}

/// Less memory than this does not start a shell; docker has the same bound.
const MEMORY_MIN: u64 = 6 << 20;
/// The period that `--cpus` is counted over, in microseconds.
const CPU_PERIOD_US: u32 = 100_000;
/// The smallest quota that the kernel takes, in microseconds.
const CPU_QUOTA_US_MIN: u32 = 1_000;

impl LimitArgs {
    /// Reads the limits of a step as a whole.
    pub fn read(&self) -> Result<Limits> {
        let memory = self.memory.as_deref().map(bytes).transpose()?;
        if memory.is_some_and(|memory| memory < MEMORY_MIN) {
            return Err(Failure::usage("--memory cannot be less than 6m"));
        }
        Ok(Limits {
            memory,
            memory_swap: memory_swap(self, memory)?,
            cpu_shares: self.cpu_shares,
            cpu_period_us: self.cpu_period,
            cpu_quota_us: match &self.cpus {
                Some(cpus) => Some(quota(cpus)?),
                None => self.cpu_quota,
            },
            cpuset_cpus: self.cpuset_cpus.as_deref().map(cpuset).transpose()?,
            pids: self.pids_limit,
        })
    }
}

/// Reads a number of bytes: `64m`, `1g`, `1048576`.
pub fn bytes(text: &str) -> Result<u64> {
    let wrong = || Failure::usage(format!("`{text}` is not a size: write 67108864, 64m or 1g"));
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 1_u64 << 10),
        Some('m') => (&lower[..lower.len() - 1], 1 << 20),
        Some('g') => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

fn memory_swap(args: &LimitArgs, memory: Option<u64>) -> Result<Option<u64>> {
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
pub fn duration(text: &str) -> Result<Duration> {
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
        args: LimitArgs,
    }

    fn read(options: &str) -> Result<Limits> {
        let words = ["build"].into_iter().chain(options.split_whitespace());
        Command::try_parse_from(words).unwrap().args.read()
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
