//! `RUN --mount` without mounts: what is mounted read-only is copied, a socket linked, a cache moved
//! into the tree and back, and a file system in memory is an empty directory.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, fchown, fstat, linkat, openat};
use rustix::io::Errno;

use super::furniture::{Furniture, make_directory};
use crate::execute::failure::{During, Failure};
use crate::execute::rootfs::Kind;
use crate::execute::spec::{MountKind, StepMount};
use crate::layer::dir::Dir;
use crate::snapshot::copy_tree;

/// Puts what each mount would show at its target.
pub(super) fn put(
    furniture: &mut Furniture<'_>,
    mounts: &[StepMount],
    sources: &[OwnedFd],
) -> Result<(), Failure> {
    let mut sources = sources.iter();
    for StepMount { target, kind } in mounts {
        match kind {
            MountKind::Tmpfs { mode, .. } => {
                furniture.put(target, Kind::Directory, |parent, name| {
                    make_directory(parent, name, *mode).map(drop)
                })?;
            }
            MountKind::Kept { name, .. } => {
                let within = sources.next().ok_or(Errno::BADF).during("mount at", target)?;
                furniture.lend(target, within, name)?;
            }
            // The builder sees to it that they do not get here.
            MountKind::Part { .. } | MountKind::Secret { .. } => {
                return Err(Errno::OPNOTSUPP).during("mount at", target);
            }
            MountKind::Bind { directory, .. } => {
                let source = sources.next().ok_or(Errno::BADF).during("mount at", target)?;
                let kind = if *directory { Kind::Directory } else { Kind::File };
                furniture.put(target, kind, |parent, name| match kind {
                    Kind::Directory => {
                        let copied = make_directory(parent, name, 0o755)?;
                        copy_directory(source, copied)
                    }
                    Kind::File => copy_file(source, parent, name),
                })?;
            }
        }
    }
    Ok(())
}

fn copy_directory(source: &OwnedFd, into: OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = openat(source, ".", flags, Mode::empty())?;
    copy_tree(&Dir::from(source), &Dir::from(into))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn copy_file(source: &OwnedFd, parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let io = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let path = format!("/proc/self/fd/{}", source.as_raw_fd());
    if FileType::from_raw_mode(fstat(source)?.st_mode) == FileType::Socket {
        // What listens on it is known by the file, not by its name.
        return linkat(CWD, &path, parent, name, AtFlags::SYMLINK_FOLLOW);
    }
    let mut source = fs_err::File::open(path).map_err(io)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copied = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut copied = std::fs::File::from(copied);
    io::copy(&mut source, &mut copied).map_err(io)?;
    let metadata = source.metadata().map_err(io)?;
    fchown(&copied, Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))?;
    copied.set_permissions(PermissionsExt::from_mode(metadata.mode() & 0o7777)).map_err(io)
}
