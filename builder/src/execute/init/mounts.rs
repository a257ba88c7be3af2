//! The file tree of a step: the image, and over it what a program expects of a running system.
//!
//! The mounts are made in a mount namespace that goes away with the step, so nothing has to be
//! unmounted. Everything is reached by descriptor: what we mounted ourselves by the descriptor
//! that mounting gave us, what is in the image through [`rootfs`]. No path of the image is ever
//! resolved by the host's root, and once a file system of ours is mounted, no path is resolved
//! through the image to reach it: masks land on our procfs, not on what an image put at `/proc`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, FsWord, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, mkdirat,
    openat2, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::devices::{self, Devices};
use super::{files, own};
use crate::execute::cgroup::Leaf;
use crate::execute::failure::{During, Failure};
use crate::execute::rootfs::{self, Kind};
use crate::execute::spec::{Security, Spec};
use crate::execute::sys;
use crate::execute::wire::{self, Report, Request};
use crate::ids;

/// What of procfs tells about, or acts upon, the host: hidden.
const MASKED_PROC: [&str; 9] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];
/// What of sysfs is hidden.
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
/// What of procfs can be read but not written.
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// What sysfs says that it is, from linux/magic.h.
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// For a file system that holds neither programs nor devices.
pub(in crate::execute) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A file system of ours beside the root, gone after [`enter`], for what is to be bound into it.
const SCRATCH_ROOT: &str = "root";
const SCRATCH_EMPTY: &str = "empty";

/// Makes the step's file tree and makes it the root of this process.
pub(super) fn enter(
    request: &Request,
    spec: &mut Spec,
    leaf: Option<&Leaf>,
) -> Result<(), Failure> {
    let tree = Tree::attach(request, spec.security)?;
    // First, so that a link of the image from there into /proc hits the image's own /proc.
    files::bind(&tree, spec)?;
    let devices = devices::mount(&tree, spec.shm_size)?;
    tree.mount_proc(&devices)?;
    let sys = tree.mount_sys(&devices)?;
    tree.mount_cgroups(&sys, leaf, &devices).during("mount cgroups at", "/sys/fs/cgroup")?;
    own::mount(&tree, &spec.mounts, &request.sources)?;
    let owner = (!tree.has_one_id).then_some((spec.user.uid, spec.user.gid));
    // A working directory that is made here belongs to the layer, so nobody is told.
    rootfs::make(tree.root, &spec.cwd, Kind::Directory, owner, &mut |_| Ok(()))
        .during("make the working directory", &spec.cwd)?;
    pivot(tree.root).during("change the root to", "the image")?;
    if spec.read_only {
        let read_only = MountFlags::BIND | MountFlags::RDONLY;
        mount_remount("/", read_only, "").during("make read-only", "the image")?;
    }
    Ok(())
}

/// The root of a step while it is furnished.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    scratch: OwnedFd,
    socket: BorrowedFd<'a>,
    pub(super) security: Security,
    /// Whether there is nobody but root. Known before the host's `/proc` is covered.
    pub(super) has_one_id: bool,
}

/// The step's `/sys`.
struct Sys {
    root: OwnedFd,
    /// It is the host's, bound read-only, and not one of its own.
    borrowed: bool,
}

impl<'a> Tree<'a> {
    fn attach(request: &'a Request, security: Security) -> Result<Tree<'a>, Failure> {
        // From here on nothing that we mount or unmount is seen outside, nor the reverse.
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .during("make private", "the mounts")?;
        let has_one_id = ids::is_single();
        let scratch = file_system("tmpfs", &[("mode", "755")], INERT)
            .during("make", "a file system in memory")?;
        // Any directory would do: it is the host's /proc in this namespace only, and in a moment
        // out of reach. This one we know to exist.
        move_mount(&scratch, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .during("mount", "a file system in memory")?;
        for name in [SCRATCH_ROOT, SCRATCH_EMPTY] {
            mkdirat(&scratch, name, Mode::from_raw_mode(0o555)).during("make", "the root")?;
        }
        let root = request.rootfs.as_fd();
        if security == Security::Sandboxed {
            // What an image has of device files, or a step makes, opens nothing.
            sys::set_mount_attributes(root, libc::MOUNT_ATTR_NODEV)
                .during("keep devices out of", "the image")?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(root, "", &scratch, SCRATCH_ROOT, flags).during("mount", "the image")?;
        Ok(Tree { root, scratch, socket: request.socket.as_fd(), security, has_one_id })
    }

    /// The scratch file system, to put files in and bind them from there.
    pub(super) fn scratch(&self) -> BorrowedFd<'_> {
        self.scratch.as_fd()
    }

    /// Makes a directory in the scratch file system, and returns where it is.
    pub(super) fn scratch_directory(&self, name: &str) -> Result<OwnedFd, Errno> {
        mkdirat(&self.scratch, name, Mode::from_raw_mode(0o555))?;
        beneath(&self.scratch, name)
    }

    /// The attribute of whatever a sandboxed step can write to: device files there open nothing.
    pub(super) fn no_devices(&self) -> MountAttrFlags {
        match self.security {
            Security::Sandboxed => MountAttrFlags::MOUNT_ATTR_NODEV,
            Security::Insecure => MountAttrFlags::empty(),
        }
    }

    /// Mounts `mount` at `path` in the image; links are followed there, what is missing is made.
    pub(super) fn place(&self, mount: &OwnedFd, path: &str, kind: Kind) -> Result<(), Failure> {
        move_onto(mount, &self.target(path, kind)?).during("mount at", path)
    }

    /// Mounts what the step asks for.
    ///
    /// Not over the kernel's interfaces, wherever a link of the image leads (CVE-2019-19921,
    /// CVE-2023-28642): what a step finds there are the kernel's answers, masked as they are.
    pub(super) fn place_own(&self, mount: &OwnedFd, path: &str, kind: Kind) -> Result<(), Failure> {
        let target = self.target(path, kind)?;
        let system = fstatfs(&target).during("examine", path)?.f_type;
        if [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&system) {
            return Err(Errno::BUSY).during("mount over the kernel's", path);
        }
        move_onto(mount, &target).during("mount at", path)
    }

    /// Returns where `path` is in the image, making what is missing.
    fn target(&self, path: &str, kind: Kind) -> Result<OwnedFd, Failure> {
        let mut tell = |made| wire::send(self.socket, &Report::Made(made));
        let target = rootfs::make(self.root, path, kind, None, &mut tell)
            .during("make the mount point", path)?;
        let found = FileType::from_raw_mode(fstat(&target).during("examine", path)?.st_mode);
        if (found == FileType::Directory) != (kind == Kind::Directory) {
            return Err(Failure::Kind {
                path: path.to_owned(),
                found: name(found).to_owned(),
                wanted: name(match kind {
                    Kind::Directory => FileType::Directory,
                    Kind::File => FileType::RegularFile,
                })
                .to_owned(),
            });
        }
        Ok(target)
    }

    /// Mounts a file system of the kernel at `path`, which no link may lead to.
    ///
    /// Other paths of ours start with these: they must mean in the image what they mean to us.
    pub(super) fn place_kernel(
        &self,
        path: &str,
        kernel: &str,
        mount: Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd, Failure> {
        let operation = format!("mount {kernel} at");
        let mount = mount.during(&operation, path)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match openat2(self.root, path, flags, Mode::empty(), resolve) {
            Err(Errno::LOOP) => Err(Failure::Kind {
                path: path.to_owned(),
                found: name(FileType::Symlink).to_owned(),
                wanted: name(FileType::Directory).to_owned(),
            }),
            Ok(_) | Err(Errno::NOENT) => {
                self.place(&mount, path, Kind::Directory)?;
                Ok(mount)
            }
            Err(errno) => Err(errno).during(&operation, path),
        }
    }

    fn mount_proc(&self, devices: &Devices) -> Result<(), Failure> {
        let proc = self.place_kernel("/proc", "proc", file_system("proc", &[], INERT))?;
        if self.security == Security::Insecure {
            return Ok(());
        }
        for path in READ_ONLY_PROC {
            make_read_only(&proc, path).during("make read-only", &format!("/proc/{path}"))?;
        }
        for path in MASKED_PROC {
            self.mask(&proc, path, devices).during("mask", &format!("/proc/{path}"))?;
        }
        Ok(())
    }

    /// Attributes of the kernel's interfaces to what is not the step's own.
    fn interface(&self) -> MountAttrFlags {
        match self.security {
            Security::Sandboxed => INERT | MountAttrFlags::MOUNT_ATTR_RDONLY,
            Security::Insecure => INERT,
        }
    }

    fn mount_sys(&self, devices: &Devices) -> Result<Sys, Failure> {
        let (sysfs, borrowed) = match file_system("sysfs", &[], self.interface()) {
            // It shows a network, and this user may not have the host's.
            Err(Errno::PERM) => (bind_tree("/sys", self.interface()), true),
            other => (other, false),
        };
        let sys = Sys { root: self.place_kernel("/sys", "sysfs", sysfs)?, borrowed };
        if self.security == Security::Insecure {
            return Ok(sys);
        }
        for path in MASKED_SYS {
            self.mask(&sys.root, path, devices).during("mask", &format!("/sys/{path}"))?;
        }
        Ok(sys)
    }

    /// Shows the step its cgroups: of v1 those that limit it, or else those of v2.
    fn mount_cgroups(
        &self,
        sys: &Sys,
        leaf: Option<&Leaf>,
        devices: &Devices,
    ) -> Result<(), Errno> {
        // Not every kernel has the place.
        let Ok(target) = beneath(&sys.root, "fs/cgroup") else { return Ok(()) };
        let mut old = leaf.into_iter().flat_map(Leaf::old_hierarchies).peekable();
        if old.peek().is_none() {
            // Where the machine is all of v1 this may be denied: the directory is then empty.
            return match file_system("cgroup2", &[], self.interface()) {
                Ok(unified) => move_onto(&unified, &target),
                // What shows there is the host's.
                Err(_) if sys.borrowed => self.mask(&sys.root, "fs/cgroup", devices),
                Err(_) => Ok(()),
            };
        }
        let all = file_system("tmpfs", &[("mode", "755")], INERT)?;
        move_onto(&all, &target)?;
        for controllers in old {
            let name = controllers.join(",");
            let options: Vec<(&str, &str)> =
                controllers.iter().map(|controller| (controller.as_str(), "")).collect();
            mkdirat(&all, &name, Mode::from_raw_mode(0o555))?;
            let hierarchy = file_system("cgroup", &options, self.interface())?;
            move_onto(&hierarchy, &beneath(&all, &name)?)?;
            // `cpu` and `cpuacct` are often one, and programs look for each.
            for controller in controllers.iter().filter(|controller| **controller != name) {
                symlinkat(&name, &all, controller)?;
            }
        }
        sys::set_mount_attributes(all.as_fd(), u64::from(self.interface().bits()))
    }

    /// Hides a directory of a file system of ours under an empty one, a file under `/dev/null`.
    fn mask(&self, parent: &OwnedFd, path: &str, devices: &Devices) -> Result<(), Errno> {
        let target = match same_system(parent, path) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let mask = match FileType::from_raw_mode(fstat(&target)?.st_mode) {
            FileType::Directory => {
                bind(&self.scratch, SCRATCH_EMPTY, INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)?
            }
            _ => devices.null()?,
        };
        move_onto(&mask, &target)
    }
}

/// Makes a file system of the kernel's, mounted nowhere yet. An option without a value is a flag.
pub(in crate::execute) fn file_system(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What /proc/mounts shows as the device.
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        match value.is_empty() {
            true => fsconfig_set_flag(&context, *key)?,
            false => fsconfig_set_string(&context, *key, *value)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes a bind mount of `path` in a file system of ours, mounted nowhere yet.
pub(super) fn bind(
    parent: &OwnedFd,
    path: &str,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(parent, path, flags)?;
    sys::set_mount_attributes(mount.as_fd(), u64::from(attributes.bits()))?;
    Ok(mount)
}

/// Makes a bind mount of a tree of the host's with all that is mounted in it, mounted nowhere yet.
fn bind_tree(path: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, path, flags)?;
    sys::set_mount_attributes(mount.as_fd(), u64::from(attributes.bits()))?;
    Ok(mount)
}

/// Attaches a mount where `target`, a location, is.
pub(super) fn move_onto(mount: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Locates `path` in a file system of ours.
pub(super) fn beneath(parent: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(parent, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Locates `path` in a file system of the kernel's, and makes sure that it is there and not in
/// another one on top of it: a mask elsewhere hides nothing (CVE-2025-52881).
fn same_system(parent: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let target = beneath(parent, path)?;
    match fstatfs(&target)?.f_type == fstatfs(parent)?.f_type {
        true => Ok(target),
        false => Err(Errno::XDEV),
    }
}

fn make_read_only(parent: &OwnedFd, path: &str) -> Result<(), Errno> {
    let target = match same_system(parent, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    // The copy keeps the attributes of the original and adds this one.
    move_onto(&bind(parent, path, MountAttrFlags::MOUNT_ATTR_RDONLY)?, &target)
}

/// Makes `root` the root of this process and of its namespace, and lets go of the old one.
fn pivot(root: BorrowedFd<'_>) -> Result<(), Errno> {
    fchdir(root)?;
    // "." twice stacks the old root on the new one, whence it is unmounted: pivot_root(2).
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

pub(in crate::execute) fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Symlink => "a symbolic link",
        _ => "a special file",
    }
}
