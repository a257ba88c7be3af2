//! This process: who it is, what it may do, and where it runs.

use std::path::Path;

use super::{Finding, Section, read};

/// The capabilities by their numbers: linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Returns the kernel's name and version.
pub(super) fn kernel() -> String {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    format!("{} {} {}", text(uname.sysname()), text(uname.release()), text(uname.machine()))
}

/// Returns what made the container around us, if there is one.
pub(super) fn container() -> Option<&'static str> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Some("kubernetes")
    } else if Path::new("/run/.containerenv").exists() {
        Some("podman")
    } else if Path::new("/.dockerenv").exists() {
        Some("docker")
    } else if read("/run/systemd/container").is_some() || std::env::var_os("container").is_some() {
        Some("of another kind")
    } else {
        None
    }
}

/// Examines this process.
pub(super) fn examine() -> Section {
    let status = read("/proc/self/status").unwrap_or_default();
    let field = |name: &str| field(&status, name);
    let uid = rustix::process::geteuid();
    let user = if uid.is_root() { "root".to_owned() } else { format!("uid {}", uid.as_raw()) };
    let seccomp = match field("Seccomp") {
        Some("2") => "system calls are filtered",
        Some("1") => "system calls are all but forbidden",
        _ => "system calls are not filtered",
    };
    let privileges = match field("NoNewPrivs") {
        Some("1") => "forbidden: sudo and su fail in steps",
        _ => "allowed",
    };
    let held = field("CapEff").map_or_else(String::new, capabilities);
    Section {
        name: "This process",
        findings: vec![
            Finding::fact("user", user),
            Finding::fact("capabilities", held),
            Finding::fact("seccomp", seccomp),
            Finding::fact("set-uid programs", privileges),
            Finding::fact("security module", module()),
        ],
    }
}

fn module() -> String {
    match read("/proc/self/attr/current").map(|text| text.trim_end_matches('\0').to_owned()) {
        Some(label) if !label.is_empty() => label,
        _ => "none holds this process".to_owned(),
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// Names the capabilities of a mask as /proc writes it.
fn capabilities(mask: &str) -> String {
    let mask = u64::from_str_radix(mask, 16).unwrap_or_default();
    let held = |number: &usize| mask >> number & 1 == 1;
    let names: Vec<&str> = (0..CAPABILITIES.len()).filter(held).map(|n| CAPABILITIES[n]).collect();
    let missing = (0..CAPABILITIES.len()).filter(|number| !held(number));
    let missing: Vec<&str> = missing.map(|n| CAPABILITIES[n]).collect();
    match (names.len(), missing.len()) {
        (0, _) => "none".to_owned(),
        (_, 0) => "all".to_owned(),
        (some, few) if few < some => format!("all but {}", missing.join(" ")),
        _ => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_names() {
        assert_eq!(capabilities("0000000000000000"), "none");
        assert_eq!(capabilities("000001ffffffffff"), "all");
        assert_eq!(
            capabilities("00000000800405fb"),
            "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE \
             SYS_CHROOT SETFCAP"
        );
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Seccomp_filters:\t1\nSeccomp:\t2\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "NoNewPrivs"), None);
    }
}
