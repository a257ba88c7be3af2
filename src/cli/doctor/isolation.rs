//! The rungs of the ladder: each is tried.

use boatyard_builder::execute::{ExecuteError, InitCommand, Rung};

use super::{Finding, Section, in_one_line, read};

/// Tries every rung, and returns the best that holds.
pub(super) fn examine(init: &InitCommand, container: Option<&str>) -> (Option<Rung>, Section) {
    let tried = Rung::ALL.map(|rung| (rung, rung.try_out(init)));
    let best = tried.iter().find(|(_, result)| result.is_ok()).map(|(rung, _)| *rung);
    let findings = tried.iter().map(|(rung, result)| finding(*rung, result, best, container));
    (best, Section { name: "Isolation of steps, the best first", findings: findings.collect() })
}

fn finding(
    rung: Rung,
    result: &Result<(), ExecuteError>,
    best: Option<Rung>,
    container: Option<&str>,
) -> Finding {
    match result {
        Ok(()) => Finding::good(rung.name(), meaning(rung)),
        Err(error) if best.is_none() => {
            Finding::bad(rung.name(), in_one_line(error)).remedy(remedy(rung, container))
        }
        // Nobody misses what is worse than what there is.
        Err(error) if best > Some(rung) => Finding::fact(rung.name(), in_one_line(error)),
        Err(error) => {
            Finding::missing(rung.name(), in_one_line(error)).remedy(remedy(rung, container))
        }
    }
}

fn meaning(rung: Rung) -> &'static str {
    match rung {
        Rung::Full => "processes, files and network of its own, as root",
        Rung::Userns => "processes, files and network of its own, in a user namespace",
        Rung::Chroot => "files of its own; no /proc; the processes and the network from here",
    }
}

fn remedy(rung: Rung, container: Option<&str>) -> String {
    let open = match container {
        Some("podman") => "podman run --security-opt unmask=ALL",
        Some("kubernetes") => {
            "in the pod's securityContext: procMount: Unmasked, seccompProfile: Unconfined"
        }
        _ => {
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined"
        }
    };
    match (rung, container) {
        (Rung::Full, None) => "run it as root (sudo)".to_owned(),
        (Rung::Full, Some(_)) => "a container with all rights (--privileged)".to_owned(),
        (Rung::Userns, Some(_)) => open.to_owned(),
        (Rung::Userns, None) => switch().to_owned(),
        (Rung::Chroot, Some(_)) => {
            "run the container as root, with its default capabilities".to_owned()
        }
        (Rung::Chroot, None) => "run it as root (sudo)".to_owned(),
    }
}

/// Returns which of the kernel's switches may be in the way of user namespaces.
fn switch() -> &'static str {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "sysctl user.max_user_namespaces=15000"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "something restricts this process: a filter for system calls, or a security module"
    }
}
