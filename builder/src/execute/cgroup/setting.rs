//! What is written where for a limit: the files of v1 and of v2.

use super::hierarchy::Version;
use crate::execute::spec::Limits;

/// A value for a file of a leaf.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
    /// The limit holds without it, on a kernel that does not have the file.
    pub(super) optional: bool,
}

/// The period over which CPU time is counted, in microseconds, where none is given.
const CPU_PERIOD_US: u64 = 100_000;

/// Returns the controllers that it takes.
pub(super) fn controllers(limits: &Limits) -> Vec<&'static str> {
    let mut controllers: Vec<&str> =
        settings(limits, Version::Two).iter().map(|setting| setting.controller).collect();
    controllers.dedup();
    controllers
}

/// What a controller limits, for people.
pub(super) fn name(controller: &str) -> &'static str {
    match controller {
        "memory" => "memory",
        "cpu" => "CPU time",
        "cpuset" => "CPUs",
        _ => "number of processes",
    }
}

/// Returns what to write, in order.
pub(super) fn settings(limits: &Limits, version: Version) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |controller, file, value: String| {
        settings.push(Setting { controller, file, value, optional: file.contains("sw") });
    };
    if let Some(memory) = limits.memory {
        // As docker has it: unless told, as much swap as memory.
        let both = limits.memory_swap.unwrap_or(memory.saturating_mul(2));
        match version {
            Version::One => {
                set("memory", "memory.limit_in_bytes", memory.to_string());
                set("memory", "memory.memsw.limit_in_bytes", unlimited(both, "-1"));
            }
            Version::Two => {
                set("memory", "memory.max", memory.to_string());
                let swap = if both == u64::MAX { both } else { both.saturating_sub(memory) };
                set("memory", "memory.swap.max", unlimited(swap, "max"));
            }
        }
    }
    if let Some(shares) = limits.cpu_shares {
        match version {
            Version::One => set("cpu", "cpu.shares", shares.to_string()),
            Version::Two => set("cpu", "cpu.weight", weight(shares).to_string()),
        }
    }
    if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
        let period = limits.cpu_period_us.unwrap_or(CPU_PERIOD_US);
        let quota = limits.cpu_quota_us;
        match version {
            Version::One => {
                set("cpu", "cpu.cfs_period_us", period.to_string());
                let quota = quota.map_or("-1".to_owned(), |quota| quota.to_string());
                set("cpu", "cpu.cfs_quota_us", quota);
            }
            Version::Two => {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                set("cpu", "cpu.max", format!("{quota} {period}"));
            }
        }
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        set("cpuset", "cpuset.cpus", cpus.clone());
    }
    if let Some(pids) = limits.pids {
        // One more, for the reaper, of which the step knows nothing.
        set("pids", "pids.max", pids.saturating_add(1).to_string());
    }
    settings
}

fn unlimited(value: u64, word: &str) -> String {
    if value == u64::MAX { word.to_owned() } else { value.to_string() }
}

/// The weight of v2 (1 to 10,000) for the shares of v1 (2 to 262,144), as runtimes convert it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &Limits, version: Version) -> Vec<String> {
        let settings = settings(limits, version);
        settings.iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect()
    }

    #[test]
    fn each_version_has_its_own_words() {
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: None,
            cpu_shares: Some(1024),
            cpu_period_us: None,
            cpu_quota_us: Some(150_000),
            cpuset_cpus: Some("0-1".to_owned()),
            pids: Some(100),
        };
        assert_eq!(
            written(&limits, Version::One),
            [
                "memory.limit_in_bytes 67108864",
                "memory.memsw.limit_in_bytes 134217728",
                "cpu.shares 1024",
                "cpu.cfs_period_us 100000",
                "cpu.cfs_quota_us 150000",
                "cpuset.cpus 0-1",
                "pids.max 101",
            ]
        );
        assert_eq!(
            written(&limits, Version::Two),
            [
                "memory.max 67108864",
                "memory.swap.max 67108864",
                "cpu.weight 39",
                "cpu.max 150000 100000",
                "cpuset.cpus 0-1",
                "pids.max 101",
            ]
        );
        assert_eq!(controllers(&limits), ["memory", "cpu", "cpuset", "pids"]);
    }

    #[test]
    fn swap_is_counted_with_memory_in_v1_and_alone_in_v2() {
        for (both, one, two) in [
            (Some(1000), "memory.memsw.limit_in_bytes 1000", "memory.swap.max 0"),
            (Some(1500), "memory.memsw.limit_in_bytes 1500", "memory.swap.max 500"),
            (Some(u64::MAX), "memory.memsw.limit_in_bytes -1", "memory.swap.max max"),
            (None, "memory.memsw.limit_in_bytes 2000", "memory.swap.max 1000"),
        ] {
            let limits = Limits { memory: Some(1000), memory_swap: both, ..Limits::default() };
            assert_eq!(written(&limits, Version::One)[1], one);
            assert_eq!(written(&limits, Version::Two)[1], two);
        }
    }
}
