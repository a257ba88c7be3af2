//! ZIP archives, as far as modules use them: stored or deflated members of less than 4 GiB, listed at
//! the end. Whoever made one is not trusted: sizes are bounded, and every place is checked.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

/// The longest list of members.
const LIST_MAX: u64 = 64 * 1024 * 1024;
/// What the end of an archive takes at the most: its fixed part, and a comment.
const END_MAX: u64 = 22 + 65_535;

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LISTED: &[u8] = b"PK\x01\x02";
const MEMBER: &[u8] = b"PK\x03\x04";

/// What is no such archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZipError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("its list of files is broken")]
    Broken,
    #[error("its list of files is too long")]
    TooLong,
    #[error("a file is compressed in a way that is not known")]
    Method,
}

/// An archive.
#[derive(Debug)]
pub(super) struct Archive<R> {
    file: R,
    members: Vec<Member>,
}

/// A member of an archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its name.
    pub(super) name: String,
    method: u64,
    packed: u64,
    size: u64,
    at: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the list of an archive.
    pub(super) fn open(mut file: R) -> Result<Archive<R>, ZipError> {
        let size = file.seek(SeekFrom::End(0))?;
        let start = size.saturating_sub(END_MAX);
        let end = bytes(&mut file, start, size - start)?;
        let at = (0..end.len().saturating_sub(21)).rev().find(|at| is_end(&end[*at..]));
        let at = at.ok_or(ZipError::Broken)?;
        let (mut length, mut from) = (number(&end, at + 12, 4)?, number(&end, at + 16, 4)?);
        if length == 0xffff_ffff || from == 0xffff_ffff || number(&end, at + 10, 2)? == 0xffff {
            let before = (start + at as u64).checked_sub(20).ok_or(ZipError::Broken)?;
            let locator = bytes(&mut file, before, 20)?;
            let large = bytes(&mut file, number(&locator, 8, 8)?, 56)?;
            if !locator.starts_with(LOCATOR_64) || !large.starts_with(END_64) {
                return Err(ZipError::Broken);
            }
            (length, from) = (number(&large, 40, 8)?, number(&large, 48, 8)?);
        }
        if length > LIST_MAX {
            return Err(ZipError::TooLong);
        }
        let list = bytes(&mut file, from, length)?;
        let mut members = Vec::new();
        let mut rest = list.as_slice();
        while !rest.is_empty() {
            let (member, after) = member(rest)?;
            members.push(member);
            rest = after;
        }
        Ok(Archive { file, members })
    }

    /// Returns the members.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns a reader of a member, which has at most so many bytes.
    pub(super) fn read(&mut self, member: &Member, most: u64) -> Result<impl Read, ZipError> {
        if member.size > most {
            return Err(ZipError::TooLong);
        }
        let head = bytes(&mut self.file, member.at, 30)?;
        if !head.starts_with(MEMBER) {
            return Err(ZipError::Broken);
        }
        let skipped = 30 + number(&head, 26, 2)? + number(&head, 28, 2)?;
        self.file.seek(SeekFrom::Start(member.at.saturating_add(skipped)))?;
        let packed = (&mut self.file).take(member.packed);
        let unpacked: Box<dyn Read> = match member.method {
            0 => Box::new(packed),
            8 => Box::new(DeflateDecoder::new(packed)),
            _ => return Err(ZipError::Method),
        };
        Ok(Exactly { inner: unpacked, left: member.size })
    }
}

/// Reads a member of the list, and returns what follows it.
fn member(list: &[u8]) -> Result<(Member, &[u8]), ZipError> {
    if !list.starts_with(LISTED) {
        return Err(ZipError::Broken);
    }
    let of = |at: usize, len: usize| number(list, at, len);
    let (name, extra, comment) = (of(28, 2)? as usize, of(30, 2)? as usize, of(32, 2)? as usize);
    let text = list.get(46..46 + name).ok_or(ZipError::Broken)?;
    let name_text = std::str::from_utf8(text).map_err(|_| ZipError::Broken)?.to_owned();
    let member = Member {
        name: name_text,
        method: of(10, 2)?,
        packed: of(20, 4)?,
        size: of(24, 4)?,
        at: of(42, 4)?,
    };
    let after = list.get(46 + name + extra + comment..).ok_or(ZipError::Broken)?;
    Ok((member, after))
}

/// Says whether this is the end of an archive, with its comment.
fn is_end(bytes: &[u8]) -> bool {
    let comment = number(bytes, 20, 2).unwrap_or(u64::MAX);
    bytes.starts_with(END) && bytes.len() as u64 == comment.saturating_add(22)
}

fn bytes(file: &mut (impl Read + Seek), at: u64, length: u64) -> Result<Vec<u8>, ZipError> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(ZipError::Broken) }
}

/// Reads a number, its lowest byte first.
fn number(bytes: &[u8], at: usize, len: usize) -> Result<u64, ZipError> {
    let bytes = bytes.get(at..at + len).ok_or(ZipError::Broken)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Reads exactly so many bytes: fewer or more are an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        self.left = match self.left.checked_sub(read as u64) {
            Some(left) if read > 0 || left == 0 => left,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "its size is another")),
        };
        Ok(read)
    }
}
