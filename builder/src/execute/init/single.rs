//! What a step needs where there is one user id: see [`seccomp::pretending`].

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr, write};

use crate::execute::failure::{During, Failure};
use crate::execute::{seccomp, sys};

/// apt becomes another user to fetch, and looks afterwards whether it did: it must not try. `/dev`
/// is ours, so that nothing stays in the layer.
pub(super) const APT_CONFIG: &str = "/dev/apt.conf";
const APT_CONFIG_NAME: &str = "apt.conf";
const APT_CONFIG_TEXT: &[u8] = b"APT::Sandbox::User \"root\";\n";
const APT_CONFIG_VARIABLE: &str = "APT_CONFIG";

/// Writes what tells programs into `/dev`.
pub(super) fn furnish(dev: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(dev, APT_CONFIG_NAME, flags, Mode::from_raw_mode(0o644))?;
    retry_on_intr(|| write(&file, APT_CONFIG_TEXT)).map(drop)
}

/// Has the calls pretended that this process, and what comes of it, will make.
pub(super) fn pretend(environment: &mut Vec<(String, String)>) -> Result<(), Failure> {
    if environment.iter().all(|(name, _)| name != APT_CONFIG_VARIABLE) {
        environment.push((APT_CONFIG_VARIABLE.to_owned(), APT_CONFIG.to_owned()));
    }
    sys::load_filter(&seccomp::pretending()).during("load", "the filter of pretended calls")
}
