//! Whether a view is possible here: tried, not guessed.
//!
//! The kernel's version, its modules, the file system below ROOT, filters of a container: all of
//! them have a say. So a snapshot is made above a tree with one file, the file is removed in it, and
//! then the whiteout must be there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use fs_err as fs;
use rustix::fs::{FlockOperation, XattrFlags, flock};

use super::fuse;
use super::overlay::{MountError, Overlay};
use super::view::{View, ViewKind};
use crate::layer::dir::{Dir, ObjectKind};

const FILE: &str = "file";
/// How the names of directories begin that things are tried in.
const PREFIX: &str = ".probe-";

/// Why a view is not to be used.
pub(super) enum ProbeError {
    /// It is not possible here.
    Refused(String),
    /// Nothing can be tried: the root cannot be written.
    Root(io::Error),
}

/// Tries a view below ROOT, and leaves nothing.
pub(super) fn probe(root: &Path, view: &View) -> Result<(), ProbeError> {
    let active = root.join("active");
    fs::create_dir_all(&active).map_err(ProbeError::Root)?;
    let (scratch, _lock) = scratch_in(&active).map_err(ProbeError::Root)?;
    let at = |name: &str| scratch.path().join(name);
    for name in ["lower", "upper", "work", "empty"] {
        fs::create_dir(at(name)).map_err(ProbeError::Root)?;
    }
    fs::write(at("lower").join(FILE), "").map_err(ProbeError::Root)?;
    let (lowers, upper, work, empty) = ([at("lower")], at("upper"), at("work"), at("empty"));
    let overlay = Overlay {
        lowers: &lowers,
        upper: &upper,
        work: &work,
        mount_point: &empty,
        form: view.form(),
    };
    let fails = |error: MountError| ProbeError::Refused(reason(&error));
    match view.kind() {
        ViewKind::Root => {
            rustix::fs::lsetxattr(&upper, "trusted.boatyard", b"", XattrFlags::empty())
                .map_err(|_| refused("only the host's root may write its attributes"))?;
            remove_file_in(&overlay.mount().map_err(fails)?)?;
        }
        ViewKind::User => remove_file_in(&overlay.mount().map_err(fails)?)?,
        ViewKind::Fuse => {
            let (mount, daemon) = fuse::mount(&overlay).map_err(fails)?;
            let removed = remove_file_in(&mount);
            drop(mount);
            daemon.finish().map_err(|error| refused(&error.to_string()))?;
            removed?;
        }
        ViewKind::Copy => {}
    }
    let upper =
        Dir::open_in(view.form(), &upper).map_err(|errno| ProbeError::Root(errno.into()))?;
    match view.kind() {
        ViewKind::Fuse => fuse::rewrite(&upper),
        ViewKind::Copy => upper.make_whiteout(FILE.as_bytes()),
        ViewKind::Root | ViewKind::User => Ok(()),
    }
    .map_err(|errno| refused(&format!("no whiteout can be made: {}", io::Error::from(errno))))?;
    match upper.stat(FILE.as_bytes()).map_err(|errno| ProbeError::Root(errno.into()))? {
        Some(object) if object.kind == ObjectKind::Whiteout => Ok(()),
        _ => Err(refused("what is removed in it leaves no whiteout")),
    }
}

fn remove_file_in(mount: &OwnedFd) -> Result<(), ProbeError> {
    fs::remove_file(format!("/proc/self/fd/{}/{FILE}", mount.as_raw_fd()))
        .map_err(|error| refused(&format!("nothing can be removed in it: {error}")))
}

fn refused(why: &str) -> ProbeError {
    ProbeError::Refused(why.to_owned())
}

/// Returns an error with its causes, in one line.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Makes a directory to try things in, with its lock, and removes those of processes that are gone.
fn scratch_in(active: &Path) -> io::Result<(tempfile::TempDir, fs::File)> {
    // As long as it is held, there is none that has no lock yet.
    let all = fs::File::open(active)?;
    flock(&all, FlockOperation::LockExclusive)?;
    for entry in fs::read_dir(active)?.flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(directory) = fs::File::open(&path) else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // What cannot be removed is no reason not to build.
            let _ = fs::remove_dir_all(&path);
        }
    }
    let scratch = tempfile::Builder::new().prefix(PREFIX).tempdir_in(active)?;
    let lock = fs::File::open(scratch.path())?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok((scratch, lock))
}
