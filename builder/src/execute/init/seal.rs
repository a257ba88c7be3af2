//! Keeps the helper's executable out of a step's reach.
//!
//! `/proc/1/exe` in a step, or `/proc/self/exe` of a program that is a link to it, leads to the
//! file that the helper runs from, past all that hides the host's files. Root in a step could
//! overwrite it (CVE-2019-5736). So the helper executes itself once more from a detached,
//! read-only bind mount of that file: what the link leads to then lies on that mount, opening it
//! for writing fails with EROFS, and a mount in no namespace cannot be made writable from one.
//! Compared with a sealed copy in memory, this copies nothing and shares the page cache.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, openat, readlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::execute::failure::{During, Failure};
use crate::execute::sys;

const EXECUTABLE: &str = "/proc/self/exe";

/// Returns if this process runs from a read-only mount, and else starts it anew from one.
pub(super) fn seal() -> Result<(), Failure> {
    let executable = openat(CWD, EXECUTABLE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during("open", EXECUTABLE)?;
    if is_read_only(&executable).during("examine", EXECUTABLE)? {
        return Ok(());
    }
    let sealed = read_only_mount(&executable).during("seal", EXECUTABLE)?;
    // The check above must hold in the next life, or this would go on for ever.
    if !is_read_only(&sealed).during("examine", EXECUTABLE)? {
        return Err(Errno::ROFS).during("seal", EXECUTABLE);
    }
    restart(&sealed)
}

fn is_read_only(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn read_only_mount(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = match open_tree(file, "", flags) {
        // A process that entered a mount namespace still runs from a mount of the old one.
        Err(Errno::INVAL) => open_tree(same_file(file)?, "", flags)?,
        other => other?,
    };
    sys::set_mount_attributes(mount.as_fd(), libc::MOUNT_ATTR_RDONLY)?;
    Ok(mount)
}

/// Opens the executable by its name in this mount namespace.
fn same_file(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = readlinkat(CWD, EXECUTABLE, Vec::new())?;
    let named = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let (one, other) = (fstat(file)?, fstat(&named)?);
    // Another version may have been installed meanwhile.
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) {
        Ok(named)
    } else {
        Err(Errno::STALE)
    }
}

fn restart(executable: &OwnedFd) -> Result<(), Failure> {
    let string = |text: OsString| CString::new(text.into_vec()).map_err(|_| Errno::INVAL);
    let arguments: Result<Vec<CString>, Errno> = std::env::args_os().map(string).collect();
    let arguments = arguments.during("restart", EXECUTABLE)?;
    let program = format!("/proc/self/fd/{}", executable.as_raw_fd());
    let program = string(OsString::from(program)).during("restart", EXECUTABLE)?;
    Err(sys::execute(&program, &arguments, &[])).during("restart", EXECUTABLE)
}
