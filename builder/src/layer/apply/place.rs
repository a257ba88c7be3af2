//! Making one object and giving it its attributes.
//!
//! The order matters: a change of owner drops capabilities and set-uid bits, so attributes come
//! after it and the mode after them; times come last.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fs::{Mode, XattrFlags};
use rustix::io::Errno;

use super::{ApplyError, At};
use crate::layer::dir::{Dir, Object, ObjectKind, set_file_owner, timestamps};
use crate::layer::entry::{Entry, EntryPath, Kind, Mtime, Xattrs, is_user_xattr};

const COPY_BYTES: usize = 256 << 10;
/// Blocks of zeros become holes.
const HOLE_BYTES: usize = 4 << 10;

/// Makes an object that is no directory and no hard link. Returns whether it exists now: devices
/// that this process may not make are left out, as every rootless runtime does.
pub(in crate::layer) fn make(
    parent: &Dir,
    name: &[u8],
    entry: &Entry,
    content: &mut dyn Read,
    buffer: &mut Vec<u8>,
) -> Result<bool, ApplyError> {
    let path = &entry.path;
    match &entry.kind {
        Kind::File => {
            let mut file = parent.create_file(name).at("make the file", path)?;
            buffer.resize(COPY_BYTES, 0);
            write(&mut file, content, entry.size, buffer).at("write", path)?;
        }
        Kind::Symlink { target } => {
            parent.make_symlink(name, target).at("make the link", path)?;
        }
        kind => match parent.make_device(name, kind) {
            Err(Errno::PERM) if *kind != Kind::Fifo => return Ok(false),
            made => made.at("make the device", path)?,
        },
    }
    Ok(true)
}

fn write(file: &mut File, content: &mut dyn Read, size: u64, buffer: &mut [u8]) -> io::Result<()> {
    let (mut rest, mut ends_in_hole) = (size, false);
    while rest > 0 {
        let want = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        content.read_exact(&mut buffer[..want])?;
        ends_in_hole = write_run(file, &buffer[..want])?;
        rest -= want as u64;
    }
    if ends_in_hole { file.set_len(size) } else { Ok(()) }
}

/// Writes a buffer, seeking over blocks of zeros. Returns whether it ends in one: then the file does
/// not have its size yet.
pub(in crate::layer) fn write_run(file: &mut File, buffer: &[u8]) -> io::Result<bool> {
    let mut blocks = buffer.chunks(HOLE_BYTES).peekable();
    let (mut start, mut at, mut zeros) = (0, 0, false);
    while let Some(block) = blocks.next() {
        zeros = is_hole(block);
        at += block.len();
        if zeros {
            let end = at - block.len();
            file.write_all(&buffer[start..end])?;
            file.seek(SeekFrom::Current(HOLE_BYTES as i64))?;
            start = at;
        } else if blocks.peek().is_none() {
            file.write_all(&buffer[start..at])?;
        }
    }
    Ok(zeros)
}

fn is_hole(block: &[u8]) -> bool {
    block.len() == HOLE_BYTES && block.iter().all(|byte| *byte == 0)
}

/// Gives an object its owner, extended attributes, mode and time.
pub(in crate::layer) fn set_attributes(
    parent: &Dir,
    name: &[u8],
    entry: &Entry,
) -> Result<(), ApplyError> {
    let path = &entry.path;
    parent.set_owner(name, entry.uid, entry.gid).at("set the owner of", path)?;
    set_xattrs(parent, name, path, &entry.xattrs)?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        parent.set_mode(name, entry.mode).at("set the mode of", path)?;
    }
    parent.set_mtime(name, entry.mtime).at("set the time of", path)
}

/// The same for a file that is open.
pub(in crate::layer) fn set_file_attributes(file: &File, entry: &Entry) -> Result<(), ApplyError> {
    let path = &entry.path;
    set_file_owner(file, entry.uid, entry.gid).at("set the owner of", path)?;
    let flags = XattrFlags::empty();
    set_each_xattr(path, &entry.xattrs, |name, value| {
        rustix::fs::fsetxattr(file, name, value, flags)
    })?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).at("set the mode of", path)?;
    rustix::fs::futimens(file, &timestamps(entry.mtime)).at("set the time of", path)
}

fn set_xattrs(
    parent: &Dir,
    name: &[u8],
    path: &EntryPath,
    xattrs: &Xattrs,
) -> Result<(), ApplyError> {
    set_each_xattr(path, xattrs, |xattr, value| parent.set_xattr(name, xattr, value))
}

fn set_each_xattr(
    path: &EntryPath,
    xattrs: &Xattrs,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<(), ApplyError> {
    for (xattr, value) in xattrs {
        if xattr.starts_with(b"trusted.") {
            let name = xattr.escape_ascii().to_string();
            return Err(ApplyError::TrustedXattr { path: path.clone(), name });
        }
        if !is_applied_xattr(xattr) {
            continue;
        }
        match set(xattr, value) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            // The kernel keeps `user.*` for files and directories.
            Err(Errno::PERM) if xattr.starts_with(b"user.") => {}
            Err(errno) => return Err(errno).at("set an extended attribute of", path),
        }
    }
    Ok(())
}

/// Labels and measurements (`security.selinux`, `security.ima`) are the host's, and overlayfs's own
/// attributes would be read by it.
fn is_applied_xattr(name: &[u8]) -> bool {
    is_user_xattr(name) || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

/// Gives a directory that has no entry the attributes that it has beneath, or 0755 of root's.
/// Returns the time that it shall have in the end.
pub(super) fn copy_directory_attributes(
    lower: Option<&Dir>,
    parent: &Dir,
    name: &[u8],
    path: &EntryPath,
) -> Result<Mtime, ApplyError> {
    let Some(lower) = lower else {
        parent.set_mode(name, 0o755).at("set the mode of", path)?;
        return Ok(Mtime::default());
    };
    let object = lower.own().at("read beneath", path)?;
    let xattrs = lower.xattrs(b".").at("read beneath", path)?;
    set_attributes(parent, name, &lower_entry(path, Kind::Directory, &object, xattrs))?;
    Ok(object.mtime)
}

/// Copies an object, which is no directory, from a lower layer.
pub(super) fn copy_up(
    lower: &Dir,
    object: &Object,
    parent: &Dir,
    name: &[u8],
    path: &EntryPath,
) -> Result<(), ApplyError> {
    let (mut file, mut empty) = (None, io::empty());
    let kind = match object.kind {
        ObjectKind::Symlink => {
            Kind::Symlink { target: lower.read_link(name).at("read beneath", path)? }
        }
        ObjectKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
        ObjectKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        ObjectKind::Fifo => Kind::Fifo,
        _ => {
            file = Some(lower.open_file(name).at("read beneath", path)?);
            Kind::File
        }
    };
    let xattrs = lower.xattrs(name).at("read beneath", path)?;
    let entry = lower_entry(path, kind, object, xattrs);
    let content: &mut dyn Read = match &mut file {
        Some(file) => file,
        None => &mut empty,
    };
    make(parent, name, &entry, content, &mut Vec::new())?;
    set_attributes(parent, name, &entry)
}

/// A lower layer's own `trusted.*` attributes are overlayfs's, not the image's.
fn lower_entry(path: &EntryPath, kind: Kind, object: &Object, mut xattrs: Xattrs) -> Entry {
    xattrs.retain(|name, _| is_applied_xattr(name));
    Entry {
        path: path.clone(),
        kind,
        mode: object.mode,
        uid: object.uid,
        gid: object.gid,
        mtime: object.mtime,
        size: if object.kind == ObjectKind::File { object.size } else { 0 },
        xattrs,
    }
}
