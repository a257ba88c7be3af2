//! Overlays of the program fuse-overlayfs, for kernels that let only root mount their own.
//!
//! We mount the file system, attached nowhere like every other, and the program gets the kernel's
//! end of it as its standard input, which libfuse takes for a mount point called `/dev/fd/0`. So
//! nothing has to be waited for at the start: what is asked too early waits itself. When the mount
//! is gone the kernel ends the conversation, and the program ends. Until then it may hold what was
//! written: see [`Daemon::finish`].
//!
//! Where it may make no devices, its whiteouts are files whose names start with `.wh.`, as in
//! archives, and it has its own words for opaqueness. [`rewrite`] turns all of that into the form
//! of [`Form::User`](crate::layer::dir::Form).

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags, statat};
use rustix::io::{Errno, retry_on_intr};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::overlay::{MountError, Overlay};
use crate::layer::dir::{Dir, ObjectKind};
use crate::layer::entry::DEPTH_MAX;

const PROGRAM: &str = "fuse-overlayfs";
const DEVICE: &str = "/dev/fuse";
/// What it says where the kernel ended the connection, since the mount is gone, a moment before it
/// was told: all that it was asked for was done by then.
const ENDED: &str = "reading device: Software caused connection abort";
/// How long the program may take to write what it has, once its mount is gone.
const FINISH_SECONDS: i64 = 60;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What the program, in its versions, calls a directory that hides what lies beneath.
const OPAQUE_XATTRS: [&[u8]; 3] =
    [b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"];

/// The program that serves a mount.
#[derive(Debug)]
pub(super) struct Daemon(Child);

/// Mounts an overlay, attached nowhere.
pub(super) fn mount(overlay: &Overlay<'_>) -> Result<(OwnedFd, Daemon), MountError> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| MountError::Open { path: DEVICE.into(), source: errno.into() })?;
    let mount = mount_device(&device)?;
    let child = Command::new(PROGRAM)
        .arg("-f")
        .arg("-o")
        .arg(options(overlay)?)
        .arg("/dev/fd/0")
        .stdin(device)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| MountError::Program(error.to_string()))?;
    let mut daemon = Daemon(child);
    // Whoever asks now waits for the answer, or for the program's end.
    match statat(&mount, ".", AtFlags::empty()) {
        Ok(_) => Ok((mount, daemon)),
        Err(errno) => {
            drop(mount);
            let said = daemon.end();
            let why = if said.is_empty() { std::io::Error::from(errno).to_string() } else { said };
            Err(MountError::Program(why))
        }
    }
}

fn mount_device(device: &OwnedFd) -> Result<OwnedFd, MountError> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).during("fsopen")?;
    let set = |key: &str, value: &str| fsconfig_set_string(context.as_fd(), key, value);
    set("source", PROGRAM).during("source")?;
    // What a mount shows as its kind, beside `fuse`.
    set("subtype", PROGRAM).during("subtype")?;
    set("fd", &device.as_raw_fd().to_string()).during("fd")?;
    set("rootmode", "40000").during("rootmode")?;
    set("user_id", "0").during("user_id")?;
    set("group_id", "0").during("group_id")?;
    for flag in ["default_permissions", "allow_other"] {
        fsconfig_set_flag(context.as_fd(), flag).during(flag)?;
    }
    fsconfig_create(context.as_fd()).during("create")?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .during("fsmount")
}

fn options(overlay: &Overlay<'_>) -> Result<std::ffi::OsString, MountError> {
    let mut options = b"lowerdir=".to_vec();
    for (index, lower) in overlay.lowers.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        options.extend(plain(lower)?);
    }
    options.extend(b",upperdir=");
    options.extend(plain(overlay.upper)?);
    options.extend(b",workdir=");
    options.extend(plain(overlay.work)?);
    // What a crash destroys is made again.
    options.extend(b",volatile");
    Ok(std::os::unix::ffi::OsStringExt::from_vec(options))
}

/// The program's options have no way to say these two characters.
fn plain(path: &Path) -> Result<&[u8], MountError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().any(|byte| b",:\\".contains(byte)) {
        let why = format!("{} has a comma, a colon or a backslash in it", path.display());
        return Err(MountError::Program(why));
    }
    Ok(bytes)
}

impl Daemon {
    /// Waits until the program has written everything and is gone. The mount must be gone.
    pub(super) fn finish(mut self) -> std::io::Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let process = pidfd_open(pid, PidfdFlags::empty())?;
            let mut watched = [PollFd::new(&process, PollFlags::IN)];
            let limit = Timespec { tv_sec: FINISH_SECONDS, tv_nsec: 0 };
            if retry_on_intr(|| poll(&mut watched, Some(&limit)))? == 0 {
                let why = format!("{PROGRAM} did not end within {FINISH_SECONDS} s");
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
            }
        }
        let status = self.0.wait()?;
        let said = self.said();
        if status.success() || said.contains(ENDED) {
            return Ok(());
        }
        Err(std::io::Error::other(format!("{PROGRAM}: {status}: {said}")))
    }

    /// Ends the program and returns what it said.
    fn end(&mut self) -> String {
        let _ = self.0.kill();
        let _ = self.0.wait();
        self.said()
    }

    fn said(&mut self) -> String {
        let mut said = Vec::new();
        if let Some(stderr) = self.0.stderr.take() {
            let _ = stderr.take(4096).read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).trim().replace('\n', "; ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It is gone already, unless something failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Turns what the program wrote into the form of a user's overlays.
pub(super) fn rewrite(upper: &Dir) -> rustix::io::Result<()> {
    rewrite_below(upper, 0)
}

fn rewrite_below(directory: &Dir, depth: usize) -> rustix::io::Result<()> {
    // What is deeper is for the cleaner to complain of.
    if depth > DEPTH_MAX {
        return Ok(());
    }
    let mtime = directory.own()?.mtime;
    let xattrs = directory.xattrs(b".")?;
    let mut is_opaque = OPAQUE_XATTRS.iter().any(|name| xattrs.contains_key(*name));
    let mut is_changed = false;
    for name in directory.names()? {
        let Some(object) = directory.stat(&name)? else { continue };
        if object.kind == ObjectKind::Directory {
            rewrite_below(&directory.subdir(&name)?, depth + 1)?;
            continue;
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { continue };
        if name != OPAQUE && object.size > 0 {
            continue;
        }
        directory.unlink(&name)?;
        is_changed = true;
        if name == OPAQUE {
            is_opaque = true;
        } else {
            directory.make_whiteout(hidden)?;
        }
    }
    if is_opaque {
        directory.set_opaque(b".")?;
    }
    if is_changed { directory.set_own_mtime(mtime) } else { Ok(()) }
}

trait During<T> {
    fn during(self, step: &'static str) -> Result<T, MountError>;
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, step: &'static str) -> Result<T, MountError> {
        self.map_err(|errno| MountError::Refused { step, source: errno.into() })
    }
}
