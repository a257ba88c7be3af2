//! `/dev` of a step that has no mounts.
//!
//! Devices are made where that is allowed: docker lets its containers make and use them. podman
//! and hardened pods do not, and a file system may be mounted `nodev`. There the helper plays
//! them: `zero`, `random` and `urandom` are FIFOs that it keeps full, and `null` is a file that it
//! empties whenever something was written to it. `full` and `tty` are then missing.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ftruncate, inotify, makedev, mknodat, openat, symlinkat,
    unlinkat,
};
use rustix::io::{Errno, read, write};
use rustix::rand::{GetRandomFlags, getrandom};

use super::furniture::make_directory;
use crate::execute::init::devices::{CHARACTER_DEVICES, LINKS};

const EVERYBODY: Mode = Mode::from_raw_mode(0o666);
/// How much is put into a FIFO at once: what the kernel writes whole or not at all.
const FILL_BYTES: usize = 4096;

/// A device that the helper plays.
#[derive(Debug)]
pub(super) enum Played {
    /// A file, and the queue that tells when it was written to.
    Null { file: OwnedFd, written: OwnedFd },
    /// A FIFO that is kept full of zeros.
    Zero(OwnedFd),
    /// A FIFO that is kept full of random bytes.
    Random(OwnedFd),
}

/// Fills an empty `/dev`; returns the devices that are to be played.
pub(super) fn fill(dev: &OwnedFd) -> Result<Vec<Played>, Errno> {
    let mut played = Vec::new();
    for (name, major, minor) in CHARACTER_DEVICES {
        if !make_device(dev, name, major, minor)? {
            played.extend(Played::make(dev, name)?);
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        make_directory(dev.as_fd(), OsStr::new(name), mode)?;
    }
    Ok(played)
}

/// Tells whether the device could be made, and works.
fn make_device(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> Result<bool, Errno> {
    match mknodat(dev, name, FileType::CharacterDevice, EVERYBODY, makedev(major, minor)) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::ACCESS) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(dev, name, flags, Mode::empty()) {
        // A helper without a terminal has none to open.
        Ok(_) | Err(Errno::NXIO | Errno::IO) => Ok(true),
        Err(_) => unlinkat(dev, name, AtFlags::empty()).map(|()| false),
    }
}

impl Played {
    fn make(dev: &OwnedFd, name: &str) -> Result<Option<Played>, Errno> {
        let open = |flags| openat(dev, name, flags | OFlags::CLOEXEC, EVERYBODY);
        let fifo = || {
            mknodat(dev, name, FileType::Fifo, EVERYBODY, 0)?;
            open(OFlags::RDWR | OFlags::NONBLOCK)
        };
        Ok(Some(match name {
            "null" => {
                let file = open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let written = inotify::init(flags)?;
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                inotify::add_watch(&written, path, inotify::WatchFlags::MODIFY)?;
                Played::Null { file, written }
            }
            "zero" => Played::Zero(fifo()?),
            "random" | "urandom" => Played::Random(fifo()?),
            _ => return Ok(None),
        }))
    }

    /// Returns what to wait for before [`Self::play`].
    pub(super) fn cue(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Played::Null { written, .. } => (written.as_fd(), PollFlags::IN),
            Played::Zero(fifo) | Played::Random(fifo) => (fifo.as_fd(), PollFlags::OUT),
        }
    }

    /// Does what the device would.
    pub(super) fn play(&self) -> Result<(), Errno> {
        let done = match self {
            Played::Null { file, written } => {
                let mut events = [MaybeUninit::uninit(); FILL_BYTES];
                while read(written, &mut events).is_ok() {}
                ftruncate(file, 0)
            }
            Played::Zero(fifo) => write(fifo, &[0; FILL_BYTES]).map(drop),
            Played::Random(fifo) => {
                let mut bytes = [0; FILL_BYTES];
                let length = getrandom(&mut bytes, GetRandomFlags::empty())?;
                write(fifo, &bytes[..length]).map(drop)
            }
        };
        match done {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            other => other,
        }
    }
}
