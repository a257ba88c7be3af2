//! Control groups: what limits of memory, processors and processes rely on.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{Finding, Section, read};

const MOUNT: &str = "/sys/fs/cgroup";

/// Examines the hierarchy that this process is in.
pub(super) fn examine() -> Section {
    let controllers = read(&format!("{MOUNT}/cgroup.controllers"));
    let findings = match controllers {
        Some(controllers) => vec![
            Finding::good("version", "2"),
            Finding::fact("controllers", controllers),
            delegated(),
        ],
        None if Path::new(MOUNT).join("memory").exists() => vec![
            Finding::fact("version", "1"),
            writable(&format!("{MOUNT}/memory"), "limits of steps"),
        ],
        None => vec![Finding::missing("version", "none is mounted: limits of steps do not hold")],
    };
    Section { name: "Control groups", findings }
}

fn delegated() -> Finding {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    writable(&format!("{MOUNT}{own}"), "limits of steps")
}

fn writable(directory: &str, name: &'static str) -> Finding {
    match accessat(CWD, directory, Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => Finding::good(name, "possible"),
        Err(errno) => {
            let why = std::io::Error::from(errno);
            Finding::missing(name, format!("not possible: {directory}: {why}"))
                .remedy("systemd-run --user --scope -p Delegate=yes, or a container's own cgroups")
        }
    }
}
