//! `/dev` of a step: a file system in memory with the devices that every program may use.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mounts::{INERT, Tree, beneath, bind, file_system, move_onto};
use crate::execute::failure::{During, Failure};
use crate::execute::spec::Security;

/// Name, major and minor number.
const CHARACTER_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// What building file systems and nested containers takes, with [`Security::Insecure`] only.
const INSECURE_CHARACTER_DEVICES: [(&str, u32, u32); 2] =
    [("fuse", 10, 229), ("loop-control", 10, 237)];
const LOOP_MAJOR: u32 = 7;
const LOOP_DEVICES: u32 = 8;

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts `/dev` and what is in it, and returns the file system of `/dev` itself.
pub(super) fn mount(tree: &Tree<'_>, shm_size: u64) -> Result<OwnedFd, Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let options = [("mode", "755"), ("size", "65536k")];
    let dev = tree.place_kernel("/dev", "tmpfs", file_system("tmpfs", &options, attributes))?;
    fill(&dev, tree.security).during("make the devices in", "/dev")?;

    let no_programs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let shm_size = shm_size.to_string();
    let shm = [("mode", "1777"), ("size", shm_size.as_str())];
    for (name, mount) in [
        ("pts", terminals(no_programs)),
        ("shm", file_system("tmpfs", &shm, INERT)),
        ("mqueue", file_system("mqueue", &[], INERT)),
    ] {
        inner(&dev, name, mount).during("mount at", &format!("/dev/{name}"))?;
    }
    Ok(dev)
}

fn fill(dev: &OwnedFd, security: Security) -> Result<(), Errno> {
    let everybody = Mode::from_raw_mode(0o666);
    let node = |name: &str, kind, mode, device| mknodat(dev, name, kind, mode, device);
    for (name, major, minor) in CHARACTER_DEVICES {
        match node(name, FileType::CharacterDevice, everybody, makedev(major, minor)) {
            // In a user namespace nobody makes devices.
            Err(Errno::PERM) => borrow(dev, name)?,
            other => other?,
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    if security == Security::Sandboxed {
        return Ok(());
    }
    let root = Mode::from_raw_mode(0o600);
    for (name, major, minor) in INSECURE_CHARACTER_DEVICES {
        node(name, FileType::CharacterDevice, root, makedev(major, minor))?;
    }
    for number in 0..LOOP_DEVICES {
        let device = makedev(LOOP_MAJOR, number);
        node(&format!("loop{number}"), FileType::BlockDevice, root, device)?;
    }
    Ok(())
}

/// Binds the host's own device.
fn borrow(dev: &OwnedFd, name: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    drop(openat(dev, name, flags, Mode::from_raw_mode(0o666))?);
    let host = openat(CWD, "/dev", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let no_programs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    move_onto(&bind(&host, name, no_programs)?, &beneath(dev, name)?)
}

/// Makes the file system of terminals, which belong to the group tty: 5 everywhere.
fn terminals(attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match file_system("devpts", &options, attributes) {
        // In a namespace of one id there is no such group.
        Err(Errno::INVAL) => file_system("devpts", &options[..2], attributes),
        other => other,
    }
}

fn inner(dev: &OwnedFd, name: &str, mount: Result<OwnedFd, Errno>) -> Result<(), Errno> {
    let mount = match mount {
        // A kernel without message queues has no use for their directory.
        Err(Errno::NODEV) if name == "mqueue" => return Ok(()),
        other => other?,
    };
    mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    move_onto(&mount, &beneath(dev, name)?)
}
