//! Writing an archive, deterministically.
//!
//! Equal entries give equal bytes: ustar headers, PAX records only for values that do not fit or
//! that ustar cannot say, records sorted by key, whole seconds, no names of owners, no access times,
//! and exactly two blocks of zeros at the end.

use std::io::{self, Read, Write};

use super::header::{self, BLOCK_BYTES, Block};
use super::pax;
use crate::layer::entry::{Entry, Kind, is_written_xattr};
use crate::layer::whiteout;

const ZEROS: Block = [0; BLOCK_BYTES];
const COPY_BYTES: usize = 256 << 10;

/// An archive that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(sink: W) -> Self {
        Self { sink, buffer: Vec::new() }
    }

    /// Writes one entry and, for a file, its content.
    ///
    /// Extended attributes that are not an image's ([`is_written_xattr`]) are left out, and times
    /// are cut to seconds. The root has no entry: it is left out too.
    ///
    /// # Errors
    /// Fails if the sink or the content fails, or if the content is not [`Entry::size`] bytes.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let Some(head) = Head::of(entry) else { return Ok(()) };
        let records = head.records.encode();
        if !records.is_empty() {
            self.extended_header(&head.name, &records)?;
        }
        self.sink.write_all(&head.block)?;
        if entry.kind == Kind::File { self.content(entry, content) } else { Ok(()) }
    }

    /// Ends the archive and returns the sink.
    ///
    /// # Errors
    /// Fails if the sink fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&ZEROS)?;
        self.sink.write_all(&ZEROS)?;
        Ok(self.sink)
    }

    fn extended_header(&mut self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let mut block = ZEROS;
        put(&mut block, header::NAME, &[b"PaxHeaders.0/", last_component(name)].concat());
        put_octal(&mut block, header::MODE, 0o644);
        put_octal(&mut block, header::UID, 0);
        put_octal(&mut block, header::GID, 0);
        put_octal(&mut block, header::SIZE, records.len() as u64);
        put_octal(&mut block, header::MTIME, 0);
        seal(&mut block, b'x');
        self.sink.write_all(&block)?;
        self.sink.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn content(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        self.buffer.resize(COPY_BYTES, 0);
        let mut rest = entry.size;
        while rest > 0 {
            let want = self.buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let read = match content.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(changed(entry, "shorter")),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.sink.write_all(&self.buffer[..read])?;
            rest -= read as u64;
        }
        if content.read(&mut [0])? != 0 {
            return Err(changed(entry, "longer"));
        }
        self.pad(entry.size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        self.sink.write_all(&ZEROS[..usize::try_from(padding).unwrap_or_default()])
    }
}

fn changed(entry: &Entry, how: &str) -> io::Error {
    io::Error::other(format!("{} became {how} while it was read", entry.path))
}

/// An entry's header, and the records that it needs before it.
struct Head {
    name: Vec<u8>,
    block: Block,
    records: pax::Writing,
}

impl Head {
    /// Returns the header; `None` for the root.
    fn of(entry: &Entry) -> Option<Self> {
        let (name, kind, link) = names(entry)?;
        let mut head = Self { name, block: ZEROS, records: pax::Writing::default() };
        let name = head.name.clone();
        head.text(header::NAME, "path", &name);
        head.text(header::LINK, "linkpath", &link);
        put_octal(&mut head.block, header::MODE, u64::from(entry.mode & 0o7777));
        head.number(header::UID, "uid", u64::from(entry.uid));
        head.number(header::GID, "gid", u64::from(entry.gid));
        head.number(header::SIZE, "size", if entry.kind == Kind::File { entry.size } else { 0 });
        head.mtime(entry.mtime.seconds);
        head.device(&entry.kind);
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_written_xattr(name)) {
            head.records.set_xattr(name, value);
        }
        seal(&mut head.block, kind);
        Some(head)
    }

    fn text(&mut self, place: (usize, usize), key: &str, value: &[u8]) {
        if value.len() > place.1 {
            self.records.set(key, value);
        }
        put(&mut self.block, place, value);
    }

    fn number(&mut self, place: (usize, usize), key: &str, value: u64) {
        if fits_octal(place, value) {
            put_octal(&mut self.block, place, value);
        } else {
            // In the header too, as base-256, so that no two readers see two sizes.
            self.records.set(key, value.to_string().as_bytes());
            put_base256(&mut self.block, place, value);
        }
    }

    fn mtime(&mut self, seconds: i64) {
        match u64::try_from(seconds) {
            Ok(seconds) => self.number(header::MTIME, "mtime", seconds),
            Err(_) => {
                self.records.set("mtime", seconds.to_string().as_bytes());
                put_octal(&mut self.block, header::MTIME, 0);
            }
        }
    }

    fn device(&mut self, kind: &Kind) {
        let (Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) = kind else {
            return;
        };
        // Linux has 12 bits of major and 20 of minor numbers: both fit.
        put_octal(&mut self.block, header::MAJOR, u64::from(*major));
        put_octal(&mut self.block, header::MINOR, u64::from(*minor));
    }
}

/// Returns the name in the archive, the type and the link's target; `None` for the root.
fn names(entry: &Entry) -> Option<(Vec<u8>, u8, Vec<u8>)> {
    let plain = || entry.path.as_bytes().to_vec();
    if entry.path.is_root() && entry.kind != Kind::OpaqueWhiteout {
        return None;
    }
    Some(match &entry.kind {
        Kind::File => (plain(), b'0', Vec::new()),
        Kind::HardLink { target } => (plain(), b'1', target.as_bytes().to_vec()),
        Kind::Symlink { target } => (plain(), b'2', target.clone()),
        Kind::CharDevice { .. } => (plain(), b'3', Vec::new()),
        Kind::BlockDevice { .. } => (plain(), b'4', Vec::new()),
        Kind::Directory => ([entry.path.as_bytes(), b"/"].concat(), b'5', Vec::new()),
        Kind::Fifo => (plain(), b'6', Vec::new()),
        Kind::Whiteout => (whiteout::archive_path(&entry.path).as_bytes().to_vec(), b'0', vec![]),
        Kind::OpaqueWhiteout => {
            (whiteout::opaque_archive_path(&entry.path).as_bytes().to_vec(), b'0', vec![])
        }
    })
}

fn last_component(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    name.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Writes the magic, the type and the checksum.
fn seal(block: &mut Block, kind: u8) {
    block[header::TYPE] = kind;
    put(block, header::MAGIC, b"ustar\x0000");
    let sum = format!("{:06o}\0 ", header::checksum(block));
    put(block, header::CHECKSUM, sum.as_bytes());
}

/// Writes as much of `value` as fits.
fn put(block: &mut Block, (at, length): (usize, usize), value: &[u8]) {
    let length = length.min(value.len());
    block[at..at + length].copy_from_slice(&value[..length]);
}

/// The last byte of a number's field is a NUL.
fn fits_octal((_, length): (usize, usize), value: u64) -> bool {
    value < 1 << (3 * (length - 1))
}

fn put_octal(block: &mut Block, (at, length): (usize, usize), value: u64) {
    let digits = format!("{value:0width$o}\0", width = length - 1);
    put(block, (at, length), digits.as_bytes());
}

fn put_base256(block: &mut Block, (at, length): (usize, usize), value: u64) {
    let bytes = value.to_be_bytes();
    let field = &mut block[at..at + length];
    let low = length.min(bytes.len());
    field[length - low..].copy_from_slice(&bytes[bytes.len() - low..]);
    field[0] |= 0x80;
}
