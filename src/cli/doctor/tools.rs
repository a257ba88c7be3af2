//! Programs and features that make more possible.

use std::path::{Path, PathBuf};

use super::{Finding, Section, read};

/// Examines what snapshots and networks can use.
pub(super) fn examine(needs_userns: bool) -> Section {
    let mut findings = vec![overlay()];
    if needs_userns {
        findings.push(match (find("fuse-overlayfs"), Path::new("/dev/fuse").exists()) {
            (Some(_), true) => Finding::good("fuse-overlayfs", "there"),
            (Some(_), false) => Finding::missing("fuse-overlayfs", "/dev/fuse is not there")
                .remedy("in a container: --device /dev/fuse"),
            (None, _) => Finding::fact(
                "fuse-overlayfs",
                "not installed; needed only where the kernel mounts no overlay for users",
            ),
        });
    }
    findings.push(match find("pasta") {
        Some(_) => Finding::good("pasta", "there"),
        None => Finding::fact("pasta", "not installed: steps of ordinary users share this network")
            .remedy("install passt"),
    });
    findings.push(match find("nft") {
        Some(_) => Finding::good("nft", "there"),
        None => Finding::fact("nft", "not installed").remedy("install nftables"),
    });
    Section { name: "Kernel and programs", findings }
}

fn overlay() -> Finding {
    let known = read("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return Finding::good("overlayfs", "the kernel has it");
    }
    Finding::missing("overlayfs", "not loaded: snapshots are copies, unless mounting loads it")
        .remedy("modprobe overlay")
}

/// Finds a program as a shell would, and where administrators' programs are.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path);
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    directories.chain(more).map(|directory| directory.join(program)).find(|path| path.is_file())
}
