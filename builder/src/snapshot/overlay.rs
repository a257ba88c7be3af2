//! Mounting an overlay that is attached nowhere.
//!
//! The mount is a descriptor: it is gone when the last process that holds it, or has it attached in
//! a namespace of its own, is gone. A builder that is killed leaves no mount behind.
//!
//! Directories are named `/proc/self/fd/N`, so that no path is too long and no character in a path
//! means something to the kernel's option parser. `redirect_dir`, `index` and `metacopy` are off:
//! the upper directory must hold whole files under their own names. `volatile` leaves out syncs:
//! what a crash destroys is made again.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
};
use thiserror::Error;

use crate::layer::dir::Form;

const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("xino", "off")];
const TRUSTED_OPTION: (&str, Option<&str>) = ("redirect_dir", Some("off"));
/// With it, `redirect_dir` is off and cannot be said to be. Since Linux 5.11, when a user namespace
/// may have overlays, too.
const USER_OPTION: (&str, Option<&str>) = ("userxattr", None);
/// Overlayfs's own limit on layers.
pub const LOWERS_MAX: usize = 500;

/// Why there is no mount.
#[derive(Debug, Error)]
pub enum MountError {
    /// A directory is not there.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// More than [`LOWERS_MAX`].
    #[error("an image of {0} layers cannot be mounted: overlayfs takes at most {LOWERS_MAX}")]
    TooManyLowers(usize),
    /// The program fuse-overlayfs does not serve it.
    #[error("fuse-overlayfs mounts nothing: {0}")]
    Program(String),
    /// The tree cannot be copied.
    #[error("cannot copy {path} of what lies beneath")]
    Copy {
        /// What of it.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel has no overlayfs, or this process may not use it here.
    #[error("the kernel does not mount an overlay here (failed at `{step}`)")]
    Refused {
        /// Which call.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What to mount.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// The topmost first; at least one.
    pub lowers: &'a [PathBuf],
    /// Where changes go.
    pub upper: &'a Path,
    /// Empty, on the same file system as `upper`.
    pub work: &'a Path,
    /// An empty directory for kernels that can only mount on one.
    pub mount_point: &'a Path,
    /// Which attributes the directories have.
    pub(crate) form: Form,
}

impl Overlay<'_> {
    /// Mounts it, attached nowhere.
    ///
    /// # Errors
    /// Fails if a directory cannot be opened or the kernel refuses.
    pub fn mount(&self) -> Result<OwnedFd, MountError> {
        match self.mount_detached() {
            // Kernels before 6.7 do not know `lowerdir+`, before 5.2 not even `fsopen`.
            Err(MountError::Refused { step: "fsopen" | "lowerdir+", .. }) => self.mount_attached(),
            other => other,
        }
    }

    /// The way of kernels since 6.7: no limit on options, no name in any namespace.
    fn mount_detached(&self) -> Result<OwnedFd, MountError> {
        let directories = Directories::open(self)?;
        let volatile = self.configure(&directories, true);
        match volatile {
            Err(MountError::Refused { step: "volatile", .. }) => {
                self.configure(&directories, false)
            }
            other => other,
        }
    }

    fn configure(&self, directories: &Directories, volatile: bool) -> Result<OwnedFd, MountError> {
        use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
        let context = context.during("fsopen")?;
        let set = |key, value: &str| fsconfig_set_string(context.as_fd(), key, value);
        set("source", "overlay").during("source")?;
        for lower in &directories.lowers {
            set("lowerdir+", &magic(lower)).during("lowerdir+")?;
        }
        set("upperdir", &magic(&directories.upper)).during("upperdir")?;
        set("workdir", &magic(&directories.work)).during("workdir")?;
        for (key, value) in OPTIONS {
            set(key, value).during(key)?;
        }
        match self.own_option() {
            (key, Some(value)) => set(key, value).during(key)?,
            (key, None) => fsconfig_set_flag(context.as_fd(), key).during(key)?,
        }
        if volatile {
            fsconfig_set_flag(context.as_fd(), "volatile").during("volatile")?;
        }
        fsconfig_create(context.as_fd()).during("create")?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::empty()).during("fsmount")
    }

    /// Returns the option that goes with the form.
    fn own_option(&self) -> (&'static str, Option<&'static str>) {
        if self.form == Form::Trusted { TRUSTED_OPTION } else { USER_OPTION }
    }

    /// The way of older kernels: mounts, takes a detached copy and unmounts at once.
    fn mount_attached(&self) -> Result<OwnedFd, MountError> {
        let directories = Directories::open(self)?;
        match self.mount_copy(&directories, ",volatile") {
            Err(MountError::Refused { step: "mount", source })
                if source.kind() == io::ErrorKind::InvalidInput =>
            {
                self.mount_copy(&directories, "")
            }
            other => other,
        }
    }

    fn mount_copy(&self, directories: &Directories, volatile: &str) -> Result<OwnedFd, MountError> {
        let lowers: Vec<_> = directories.lowers.iter().map(magic).collect();
        let mut options: String =
            OPTIONS.iter().map(|(key, value)| format!(",{key}={value}")).collect();
        match self.own_option() {
            (key, Some(value)) => options.push_str(&format!(",{key}={value}")),
            (key, None) => options.push_str(&format!(",{key}")),
        }
        let data = format!(
            "lowerdir={},upperdir={},workdir={}{options}{volatile}",
            lowers.join(":"),
            magic(&directories.upper),
            magic(&directories.work),
        );
        let data = CString::new(data).map_err(|_| Errno::INVAL).during("mount")?;
        let flags = MountFlags::empty();
        rustix::mount::mount("overlay", self.mount_point, "overlay", flags, data.as_c_str())
            .during("mount")?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = rustix::mount::open_tree(CWD, self.mount_point, flags).during("open_tree");
        rustix::mount::unmount(self.mount_point, UnmountFlags::DETACH).during("umount")?;
        copy
    }
}

struct Directories {
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Directories {
    fn open(overlay: &Overlay<'_>) -> Result<Self, MountError> {
        if overlay.lowers.len() > LOWERS_MAX {
            return Err(MountError::TooManyLowers(overlay.lowers.len()));
        }
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| MountError::Open { path: path.to_owned(), source: errno.into() })
        };
        let lowers = overlay.lowers.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
        Ok(Self { lowers, upper: open(overlay.upper)?, work: open(overlay.work)? })
    }
}

fn magic(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

trait During<T> {
    fn during(self, step: &'static str) -> Result<T, MountError>;
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, step: &'static str) -> Result<T, MountError> {
        self.map_err(|errno| MountError::Refused { step, source: errno.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_get_the_same_mount() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = root.path().join(name);
            fs_err::create_dir(&path).unwrap();
            path
        };
        let (one, two) = (dir("one"), dir("two"));
        fs_err::write(one.join("a"), "one").unwrap();
        fs_err::write(two.join("a"), "two").unwrap();
        let (upper, work, point) = (dir("upper"), dir("work"), dir("point"));
        let (lowers, form) = ([two, one], Form::Trusted);
        let overlay =
            Overlay { lowers: &lowers, upper: &upper, work: &work, mount_point: &point, form };
        let mount = overlay.mount_attached().unwrap();
        let inside = PathBuf::from(magic(&mount));
        assert_eq!(fs_err::read_to_string(inside.join("a")).unwrap(), "two");
        fs_err::write(inside.join("b"), "new").unwrap();
        assert_eq!(fs_err::read_to_string(upper.join("b")).unwrap(), "new");
        assert_eq!(fs_err::read_dir(&point).unwrap().count(), 0, "nothing stays attached");
    }
}
