//! `/dev` of a step: a file system in memory with the devices that every program may use.

use std::os::fd::OwnedFd;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, fstat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mounts::{INERT, Tree, beneath, bind, file_system, move_onto};
use crate::execute::failure::{During, Failure};
use crate::execute::spec::Security;

/// Name, major and minor number.
pub(in crate::execute) const CHARACTER_DEVICES: [(&str, u32, u32); 6] = [
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

pub(in crate::execute) const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts `/dev` and what is in it.
///
/// On a sandboxed step's `/dev`, as in its root, device files are names without a device: it may
/// make one of the host's disk, as packages do for images of machines, but opening it fails. Those
/// that work are files of the [`Devices`], each mounted by itself, so nothing can be put beside it.
pub(super) fn mount(tree: &Tree<'_>, shm_size: u64) -> Result<Devices, Failure> {
    let devices = Devices::make(tree)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let options = [("mode", "755"), ("size", "65536k")];
    let attributes = attributes | tree.no_devices();
    let dev = tree.place_kernel("/dev", "tmpfs", file_system("tmpfs", &options, attributes))?;
    devices.fill(&dev, tree.security)?;

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
    Ok(devices)
}

/// Device files that work, on a file system that the step never sees as a whole.
pub(super) struct Devices(OwnedFd);

impl Devices {
    fn make(tree: &Tree<'_>) -> Result<Devices, Failure> {
        const MAKE: &str = "make";
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let nodes = file_system("tmpfs", &[("mode", "755")], attributes);
        let nodes = nodes.during(MAKE, "a file system in memory")?;
        let attach = move_onto(&nodes, &tree.scratch_directory("devices").during(MAKE, "/dev")?);
        attach.during("mount", "a file system in memory")?;
        for (name, major, minor) in CHARACTER_DEVICES {
            let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
            match mknodat(&nodes, name, kind, mode, makedev(major, minor)) {
                // In a user namespace nobody makes devices.
                Err(Errno::PERM) => return Devices::of_host().during("open", "/dev"),
                made => made.during(MAKE, &format!("/dev/{name}"))?,
            }
        }
        Ok(Devices(nodes))
    }

    /// Takes the host's own.
    fn of_host() -> Result<Devices, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, "/dev", flags, Mode::empty()).map(Devices)
    }

    fn fill(&self, dev: &OwnedFd, security: Security) -> Result<(), Failure> {
        for (name, major, minor) in CHARACTER_DEVICES {
            let path = format!("/dev/{name}");
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(dev, name, flags, Mode::empty()).during("make", &path)?;
            let device = self.device(name, major, minor).during("make", &path)?;
            let target = beneath(dev, name).during("make", &path)?;
            move_onto(&device, &target).during("mount at", &path)?;
        }
        for (name, target) in LINKS {
            symlinkat(target, dev, name).during("make", &format!("/dev/{name}"))?;
        }
        match security {
            Security::Sandboxed => Ok(()),
            Security::Insecure => match fill_insecure(dev) {
                // In a user namespace an insecure step does what its user may do on the host.
                Err(Errno::PERM) => Ok(()),
                filled => filled.during("make the devices in", "/dev"),
            },
        }
    }

    /// Returns a mount of `/dev/null`.
    pub(super) fn null(&self) -> Result<OwnedFd, Errno> {
        let [(name, major, minor), ..] = CHARACTER_DEVICES;
        self.device(name, major, minor)
    }

    /// Returns a mount of one device, after a look at what it is.
    fn device(&self, name: &str, major: u32, minor: u32) -> Result<OwnedFd, Errno> {
        let no_programs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = bind(&self.0, name, no_programs)?;
        let found = fstat(&mount)?;
        // CVE-2025-31133, CVE-2025-52565: what lies under that name may be something else.
        let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
        match is_device && found.st_rdev == makedev(major, minor) {
            true => Ok(mount),
            false => Err(Errno::NODEV),
        }
    }
}

fn fill_insecure(dev: &OwnedFd) -> Result<(), Errno> {
    let root = Mode::from_raw_mode(0o600);
    let node = |name: &str, kind, device| mknodat(dev, name, kind, root, device);
    for (name, major, minor) in INSECURE_CHARACTER_DEVICES {
        node(name, FileType::CharacterDevice, makedev(major, minor))?;
    }
    for number in 0..LOOP_DEVICES {
        node(&format!("loop{number}"), FileType::BlockDevice, makedev(LOOP_MAJOR, number))?;
    }
    Ok(())
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
