//! What a step itself asks for: `RUN --mount`, and the volumes of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat};
use rustix::io::{Errno, pread, retry_on_intr, write};
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mounts::{self, INERT, Tree, file_system};
use crate::execute::failure::{During, Failure};
use crate::execute::rootfs::{self, Kind};
use crate::execute::spec::{MountKind, StepMount};
use crate::execute::sys;

/// How much of a secret is copied at once.
const COPY_BYTES: usize = 16 << 10;

/// Mounts what the step asks for, in order.
pub(super) fn mount(
    tree: &Tree<'_>,
    mounts: &[StepMount],
    sources: &[OwnedFd],
) -> Result<(), Failure> {
    let mut sources = sources.iter();
    for (number, StepMount { target, kind }) in mounts.iter().enumerate() {
        if target.split('/').all(|name| matches!(name, "" | "." | "..")) {
            return Err(Errno::BUSY).during("mount at", target);
        }
        let mut source = || sources.next().ok_or(Errno::BADF).during("mount at", target);
        match kind {
            MountKind::Bind { directory, read_only, .. } => {
                place(tree, source()?, target, kind_of(*directory), *read_only)?;
            }
            MountKind::Kept { read_only, .. } => {
                place(tree, source()?, target, Kind::Directory, *read_only)?;
            }
            MountKind::Part { path, directory, read_only, .. } => {
                let part =
                    part(tree, source()?, number, path).during("find what to mount at", target)?;
                place(tree, &part, target, kind_of(*directory), *read_only)?;
            }
            MountKind::Tmpfs { size, mode, read_only } => {
                let mode = format!("{mode:o}");
                let size = size.map(|size| size.to_string());
                // Programs are built and run in such places.
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | tree.no_devices();
                let mut options = vec![("mode", mode.as_str())];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let tmpfs = file_system("tmpfs", &options, attributes | writing(*read_only))
                    .during("mount tmpfs at", target)?;
                tree.place_own(&tmpfs, target, Kind::Directory)?;
            }
            MountKind::Secret { uid, gid, mode, .. } => {
                let owner = (!tree.has_one_id).then_some((*uid, *gid));
                let file = secret(tree, source()?.as_fd(), number, owner, *mode);
                tree.place_own(&file.during("write", target)?, target, Kind::File)?;
            }
        }
    }
    Ok(())
}

fn kind_of(directory: bool) -> Kind {
    if directory { Kind::Directory } else { Kind::File }
}

fn writing(read_only: bool) -> MountAttrFlags {
    match read_only {
        true => MountAttrFlags::MOUNT_ATTR_RDONLY,
        false => MountAttrFlags::empty(),
    }
}

fn place(
    tree: &Tree<'_>,
    source: &OwnedFd,
    target: &str,
    kind: Kind,
    read_only: bool,
) -> Result<(), Failure> {
    let attributes = writing(read_only) | tree.no_devices();
    sys::set_mount_attributes(source.as_fd(), u64::from(attributes.bits()))
        .during("make private", target)?;
    tree.place_own(source, target, kind)
}

/// Returns a mount of a part of a file system. Only what is mounted somewhere can be taken apart by
/// every kernel, so it is mounted where the step will not see it.
fn part(tree: &Tree<'_>, whole: &OwnedFd, number: usize, path: &str) -> Result<OwnedFd, Errno> {
    let name = format!("part-{number}");
    mkdirat(tree.scratch(), &name, Mode::from_raw_mode(0o555))?;
    move_mount(whole, "", tree.scratch(), &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let part = rootfs::open(whole, path, OFlags::PATH)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&part, "", flags)
}

/// Returns a mount of a file in memory with the content of another one.
fn secret(
    tree: &Tree<'_>,
    content: BorrowedFd<'_>,
    number: usize,
    owner: Option<(u32, u32)>,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let name = format!("secret-{number}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(tree.scratch(), &name, flags, Mode::empty())?;
    let (mut buffer, mut at) = ([0; COPY_BYTES], 0);
    loop {
        let read = retry_on_intr(|| pread(content, &mut buffer, at))?;
        let mut rest = &buffer[..read];
        if rest.is_empty() {
            break;
        }
        at += rest.len() as u64;
        while !rest.is_empty() {
            rest = &rest[retry_on_intr(|| write(&file, rest))?..];
        }
    }
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(&file, Mode::from_raw_mode(mode))?;
    let scratch = tree.scratch().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    mounts::bind(&scratch, &name, INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)
}
