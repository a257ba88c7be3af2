//! A context that is an archive, unpacked into a directory of its own.
//!
//! Nobody vouches for the archive. Each name is resolved inside the directory, links on the way
//! included; what is there already is replaced, never followed. Owners and extended attributes mean
//! nothing in a context and are left out; devices are refused. What is unpacked is limited, and
//! memory does not grow with it.

use std::io::{self, BufReader, Cursor, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat,
    mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::layer::decompress::{BombError, DecompressLimits, Decompressor, Format};
use crate::layer::entry::DEPTH_MAX;
use crate::layer::tar::{Archive, Limits, TarError};
use crate::layer::{Entry, EntryPath, Kind, Mtime};

/// What has to be looked at to tell an archive: the first header.
const HEADER_BYTES: usize = 512;
const BUFFER_BYTES: usize = 256 << 10;
/// Entries of a context, the directories on their way included. The largest source trees have a few
/// hundred thousand.
const ENTRIES_MAX: u64 = 2_000_000;
/// Bytes of the names of directories, which are kept until the end.
const NAMES_BYTES_MAX: usize = 256 << 20;
/// Bytes that come out of an archive.
const BYTES_MAX: u64 = 256 << 30;
/// Bytes out per packed byte in, once there are many: source text reaches ten, logs fifty. What is
/// made to fill a disk reaches a thousand with gzip, and more with others.
const RATIO_MAX: u64 = 250;

/// Why an archive cannot be a context.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read or decompressed.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// It is damaged, or asks for too much.
    #[error("the archive is damaged")]
    Tar(#[from] TarError),
    /// Something that is no part of a context.
    #[error("{path} is a device, which cannot be part of a context")]
    Device {
        /// Which entry.
        path: EntryPath,
    },
    /// It unpacks to more than a context may have.
    #[error(
        "the archive looks like one that is made to fill a disk; if it is meant to be so, unpack it yourself and use the directory as the context"
    )]
    Bomb(#[source] io::Error),
    /// More files and directories than a context may have.
    #[error(
        "the archive has more than {ENTRIES_MAX} files and directories, or too many long names"
    )]
    TooMany,
    /// Deeper than anything that can be copied.
    #[error("{path} is nested too deeply")]
    TooDeep {
        /// Which entry.
        path: EntryPath,
    },
    /// An entry cannot be put in its place.
    #[error("cannot unpack {path}")]
    Entry {
        /// Which entry.
        path: EntryPath,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Bytes of which the first were looked at.
pub(super) type Peeked<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Says whether bytes are an archive, perhaps a compressed one, rather than text; returns them whole.
pub(super) fn peek<R: Read>(mut reader: R) -> io::Result<(bool, Peeked<R>)> {
    let mut start = Vec::with_capacity(HEADER_BYTES);
    (&mut reader).take(HEADER_BYTES as u64).read_to_end(&mut start)?;
    let is_archive = Format::sniff(&start) != Format::None || is_header(&start);
    Ok((is_archive, Cursor::new(start).chain(reader)))
}

/// Says whether bytes begin with the header of a tar: its checksum is right.
fn is_header(start: &[u8]) -> bool {
    let Some(block) = start.get(..HEADER_BYTES) else { return false };
    let told = block[148..156].iter().filter(|byte| byte.is_ascii_digit());
    let told = told.fold(0_u64, |sum, byte| sum.wrapping_mul(8) + u64::from(byte - b'0'));
    let sum: u64 = (block[..148].iter().chain(&block[156..])).map(|byte| u64::from(*byte)).sum();
    sum != 0 && told == sum + 8 * u64::from(b' ')
}

/// Unpacks an archive into an empty directory.
pub(super) fn unpack(reader: impl Read, into: &Path) -> Result<(), ArchiveError> {
    unpack_within(reader, into, ENTRIES_MAX)
}

fn unpack_within(reader: impl Read, into: &Path, entries_max: u64) -> Result<(), ArchiveError> {
    let limits = DecompressLimits { bytes_max: BYTES_MAX, ratio_max: Some(RATIO_MAX) };
    let unpacked = Decompressor::new(reader, 1, limits).map_err(ArchiveError::Read)?;
    let limits = Limits { entries_max, ..Limits::default() };
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER_BYTES, unpacked), limits);
    let root = fs_err::File::open(into).map_err(ArchiveError::Read)?.into_file().into();
    let mut unpacking = Unpacking { root, directories: Vec::new(), names_bytes: 0, made: 0 };
    while let Some(entry) = archive.next_entry().map_err(of_tar)? {
        let path = entry.path.clone();
        if path.components().count() > DEPTH_MAX {
            return Err(ArchiveError::TooDeep { path });
        }
        if matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
            return Err(ArchiveError::Device { path });
        }
        let put = unpacking.put(&entry, &mut archive.content());
        put.map_err(|source| match is_bomb(&source) {
            true => ArchiveError::Bomb(source),
            false => ArchiveError::Entry { path, source },
        })?;
        if unpacking.made > entries_max || unpacking.names_bytes > NAMES_BYTES_MAX {
            return Err(ArchiveError::TooMany);
        }
    }
    // What follows the archive's end is read: who writes it would else be told that nobody listens.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| match is_bomb(&error) {
        true => ArchiveError::Bomb(error),
        false => ArchiveError::Read(error),
    })?;
    unpacking.finish();
    Ok(())
}

fn of_tar(error: TarError) -> ArchiveError {
    match error {
        TarError::Read(error) if is_bomb(&error) => ArchiveError::Bomb(error),
        error => ArchiveError::Tar(error),
    }
}

fn is_bomb(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<BombError>)
}

struct Unpacking {
    root: OwnedFd,
    /// Directories whose modes and times come last.
    directories: Vec<(EntryPath, u32, Mtime)>,
    /// Bytes of their names.
    names_bytes: usize,
    /// Entries, and directories that none names.
    made: u64,
}

impl Unpacking {
    fn put(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let Some(name) = entry.path.name() else { return Ok(()) };
        self.made += 1;
        let parent = self.directory(&entry.path.parent().unwrap_or_default())?;
        let there = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        if entry.kind == Kind::Directory {
            match there {
                Some(FileType::Directory) => {}
                Some(_) => {
                    unlinkat(&parent, name, AtFlags::empty())?;
                    mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                }
                None => mkdirat(&parent, name, Mode::from_raw_mode(0o700))?,
            }
            self.names_bytes += entry.path.as_bytes().len();
            self.directories.push((entry.path.clone(), entry.mode, entry.mtime));
            return Ok(());
        }
        if let Kind::HardLink { target } = &entry.kind {
            let from = self.open(&target.parent().unwrap_or_default())?;
            let first = target.name().ok_or(Errno::ISDIR)?;
            if there.is_some() && *target != entry.path {
                unlinkat(&parent, name, AtFlags::empty())?;
            }
            if *target != entry.path {
                linkat(&from, first, &parent, name, AtFlags::empty())?;
            }
            return Ok(());
        }
        if there.is_some() {
            unlinkat(&parent, name, AtFlags::empty())?;
        }
        match &entry.kind {
            Kind::Symlink { target } => {
                symlinkat(target.as_slice(), &parent, name)?;
                let times = times(entry.mtime);
                utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Fifo => {
                mknodat(&parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
                utimensat(&parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
                let mut file = std::fs::File::from(file);
                if io::copy(content, &mut file)? != entry.size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777))?;
                futimens(&file, &times(entry.mtime))?;
            }
        }
        Ok(())
    }

    /// Opens a directory, links resolved inside the root.
    fn open(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let name = if path.is_root() { b"." } else { path.as_bytes() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, name, flags, Mode::empty(), resolve)
    }

    /// The same; what is missing is made.
    fn directory(&mut self, path: &EntryPath) -> io::Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let mut here = EntryPath::root();
        let mut directory = self.open(&here)?;
        for name in path.components() {
            here = here.join(name);
            directory = match self.open(&here) {
                Err(Errno::NOENT) => {
                    self.made += 1;
                    mkdirat(&directory, name, Mode::from_raw_mode(0o700))?;
                    // The process's umask says nothing about a context.
                    let made = self.open(&here)?;
                    fchmod(&made, Mode::from_raw_mode(0o755))?;
                    made
                }
                opened => opened?,
            };
        }
        Ok(directory)
    }

    /// Gives directories their modes and times, the innermost first.
    fn finish(self) {
        for (path, mode, mtime) in self.directories.iter().rev() {
            // Replaced by something else meanwhile, it is not what the archive means any more. The
            // owner must be able to read it.
            let Ok(directory) = self.open(path) else { continue };
            let mode = Mode::from_raw_mode((mode & 0o7777) | 0o500);
            let _ = fchmod(&directory, mode).and_then(|()| futimens(&directory, &times(*mtime)));
        }
    }
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
