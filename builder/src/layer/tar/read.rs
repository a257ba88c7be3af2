//! Reading an archive, entry by entry, from a stream.

use std::io::{self, Read};

use thiserror::Error;

use super::header::{self, BLOCK_BYTES, Block, HeaderError};
use super::pax::{PaxError, Records};
use super::sparse::{Map, MapReader, SparseError};
use crate::layer::entry::{Entry, EntryPath, Kind, Mtime, PathError};

/// How much an archive may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries in the archive.
    pub entries_max: u64,
    /// Bytes of one extended header, or of one GNU long name.
    pub extended_bytes_max: u64,
    /// Bytes of all files together, holes included.
    pub content_bytes_max: u64,
}

impl Default for Limits {
    /// Returns limits that no honest image meets: 10 million entries, 1 MiB per extended header,
    /// 4 TiB of content (sparse `lastlog` files of some hundred GiB exist).
    fn default() -> Self {
        Self { entries_max: 10_000_000, extended_bytes_max: 1 << 20, content_bytes_max: 4 << 40 }
    }
}

/// Why an archive cannot be read.
#[derive(Debug, Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("the archive ends in the middle of {0}")]
    Truncated(String),
    /// A header block is damaged.
    #[error("the archive is damaged after entry {after}")]
    Header {
        /// How many entries were read before.
        after: u64,
        /// What is wrong.
        #[source]
        source: HeaderError,
    },
    /// An extended header is damaged.
    #[error("cannot read the extended header of entry {entry}")]
    Pax {
        /// Counted from 1.
        entry: u64,
        /// What is wrong.
        #[source]
        source: PaxError,
    },
    /// A name is not a path inside the layer.
    #[error("`{name}` is not a path inside the layer")]
    Path {
        /// As the archive has it.
        name: String,
        /// What is wrong.
        #[source]
        source: PathError,
    },
    /// A sparse file's map is damaged.
    #[error("cannot read the sparse file {path}")]
    Sparse {
        /// Which file.
        path: EntryPath,
        /// What is wrong.
        #[source]
        source: SparseError,
    },
    /// An owner, mode or device number means nothing.
    #[error("the {field} of {path} is out of range")]
    OutOfRange {
        /// Which entry.
        path: EntryPath,
        /// Which field.
        field: &'static str,
    },
    /// A kind of entry that no layer has.
    #[error("{path} is an entry of the unsupported type `{}`", kind.escape_ascii())]
    UnsupportedType {
        /// Which entry.
        path: EntryPath,
        /// The header's type byte.
        kind: u8,
    },
    /// More than one of [`Limits`] allows.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

/// An archive that is being read.
#[derive(Debug)]
pub struct Archive<R> {
    reader: R,
    limits: Limits,
    globals: Records,
    entries: u64,
    content_bytes: u64,
    current: Current,
    ended: bool,
}

/// What is left of the current entry.
#[derive(Debug, Default)]
struct Current {
    path: EntryPath,
    /// Bytes that the archive stores and that were not read yet.
    stored: u64,
    /// Bytes up to the next block after them.
    padding: u64,
    /// Where reading stands in the file, holes included.
    position: u64,
    size: u64,
    sparse: Option<(Map, usize)>,
}

/// What the headers before an entry's own said about it.
#[derive(Default)]
struct Extended {
    records: Records,
    gnu_name: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
}

impl<R: Read> Archive<R> {
    /// Starts to read an uncompressed archive. The reader should be buffered.
    pub fn new(reader: R, limits: Limits) -> Self {
        let (globals, current) = (Records::default(), Current::default());
        Self { reader, limits, globals, entries: 0, content_bytes: 0, current, ended: false }
    }

    /// Returns the next entry, or `None` after the last one. What was not read of the one before is
    /// skipped. Whiteouts are not told from files here: see [`crate::layer::whiteout`].
    ///
    /// # Errors
    /// Fails on a damaged or truncated archive and when a limit is exceeded.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_rest()?;
        let mut extended = Extended { records: self.globals.clone(), ..Extended::default() };
        while let Some(block) = self.header_block()? {
            let size = self.header(header::unsigned(&block, header::SIZE, "size"))?;
            match block[header::TYPE] {
                b'x' | b'X' => {
                    let bytes = self.extension(size)?;
                    extended.records.extend(&bytes).map_err(|source| self.pax(source))?;
                }
                b'g' => {
                    let bytes = self.extension(size)?;
                    self.globals.extend(&bytes).map_err(|source| self.pax(source))?;
                    extended.records.extend(&bytes).map_err(|source| self.pax(source))?;
                }
                b'L' => extended.gnu_name = Some(until_nul(self.extension(size)?)),
                b'K' => extended.gnu_link = Some(until_nul(self.extension(size)?)),
                _ => return self.entry(&block, &extended, size).map(Some),
            }
        }
        Ok(None)
    }

    /// Returns the content of the entry that [`Self::next_entry`] returned last.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Returns the reader, with whatever follows the archive's end still unread.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn entry(
        &mut self,
        block: &Block,
        extended: &Extended,
        header_size: u64,
    ) -> Result<Entry, TarError> {
        let records = &extended.records;
        let name =
            [records.get("GNU.sparse.name"), records.get("path")].into_iter().flatten().next();
        let name = name.or(extended.gnu_name.as_deref());
        let name = name.map_or_else(|| header::name(block), <[u8]>::to_vec);
        let path = parse_path(&name)?;
        let link = records.get("linkpath").or(extended.gnu_link.as_deref());
        let link = link.unwrap_or_else(|| header::text(block, header::LINK));
        let kind = self.kind(block, &name, &path, link)?;
        let stored = records.number("size").map_err(|source| self.pax(source))?;
        let stored = stored.unwrap_or(header_size);
        let mut entry = Entry::new(path, kind, 0);
        self.attributes(block, records, &mut entry)?;
        self.begin(&entry, stored)?;
        if entry.kind == Kind::File {
            self.expand(block, records)?;
            entry.size = self.current.size;
            self.count_content(entry.size)?;
        }
        Ok(entry)
    }

    /// Only files have content. A size in the header of anything else is what the linked file has.
    fn begin(&mut self, entry: &Entry, stored: u64) -> Result<(), TarError> {
        let stored = if entry.kind == Kind::File { stored } else { 0 };
        if stored > i64::MAX as u64 {
            return Err(TarError::OutOfRange { path: entry.path.clone(), field: "size" });
        }
        let padding = stored.next_multiple_of(BLOCK_BYTES as u64) - stored;
        let path = entry.path.clone();
        self.current = Current { path, stored, padding, size: stored, position: 0, sparse: None };
        Ok(())
    }

    fn kind(
        &self,
        block: &Block,
        name: &[u8],
        path: &EntryPath,
        link: &[u8],
    ) -> Result<Kind, TarError> {
        let device = || -> Result<(u32, u32), TarError> {
            let number = |place, field| {
                let number = self.header(header::unsigned(block, place, field))?;
                let path = path.clone();
                u32::try_from(number).map_err(|_| TarError::OutOfRange { path, field })
            };
            Ok((number(header::MAJOR, "device")?, number(header::MINOR, "device")?))
        };
        Ok(match block[header::TYPE] {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink { target: parse_path(link)? },
            b'2' => Kind::Symlink { target: symlink_target(path, link)? },
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            kind => return Err(TarError::UnsupportedType { path: path.clone(), kind }),
        })
    }

    fn attributes(
        &self,
        block: &Block,
        records: &Records,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let id = |place, key| -> Result<u32, TarError> {
            let record = records.number(key).map_err(|source| self.pax(source))?;
            let id = record.map_or_else(|| self.header(header::unsigned(block, place, key)), Ok)?;
            // The last number means "leave as it is" to the kernel.
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| TarError::OutOfRange { path: entry.path.clone(), field: key })
        };
        let (uid, gid) = (id(header::UID, "uid")?, id(header::GID, "gid")?);
        let mode = self.header(header::unsigned(block, header::MODE, "mode"))?;
        let mtime = match records.mtime().map_err(|source| self.pax(source))? {
            Some(mtime) => mtime,
            None => Mtime::from_seconds(self.header(header::number(
                block,
                header::MTIME,
                "time of modification",
            ))?),
        };
        // Some writers put the file type above the permissions.
        (entry.mode, entry.uid, entry.gid) = ((mode & 0o7777) as u32, uid, gid);
        (entry.mtime, entry.xattrs) = (mtime, records.xattrs());
        Ok(())
    }

    /// Finds out whether the entry is sparse, and takes its map.
    fn expand(&mut self, block: &Block, records: &Records) -> Result<(), TarError> {
        let sparse = |path: &EntryPath, source| TarError::Sparse { path: path.clone(), source };
        let path = self.current.path.clone();
        let number =
            |archive: &Self, key| records.number(key).map_err(|source| archive.pax(source));
        let (size, map) = if block[header::TYPE] == b'S' {
            self.gnu_map(block)?
        } else if records.get("GNU.sparse.major") == Some(b"1") {
            let size = number(self, "GNU.sparse.realsize")?;
            (size, self.map_in_content()?)
        } else {
            let map = Map::from_records(records).map_err(|source| sparse(&path, source))?;
            let Some(map) = map else { return Ok(()) };
            let size = number(self, "GNU.sparse.size")?;
            (size.or(number(self, "GNU.sparse.realsize")?), map)
        };
        let size = size.filter(|size| *size <= i64::MAX as u64);
        let size = size.ok_or_else(|| sparse(&path, SparseError::Malformed))?;
        map.check(size, self.current.stored).map_err(|source| sparse(&path, source))?;
        (self.current.size, self.current.sparse) = (size, Some((map, 0)));
        Ok(())
    }

    /// GNU's old form: four parts in the header, 21 in each block that follows it.
    fn gnu_map(&mut self, block: &Block) -> Result<(Option<u64>, Map), TarError> {
        const HEADER_AT: usize = 386;
        const HEADER_PARTS: usize = 4;
        const HEADER_MORE: usize = 482;
        const REAL_SIZE: (usize, usize) = (483, 12);
        const BLOCK_PARTS: usize = 21;
        const BLOCK_MORE: usize = 504;
        let path = self.current.path.clone();
        let sparse = |source| TarError::Sparse { path: path.clone(), source };
        let mut map = Map::default();
        map.extend_gnu(block, HEADER_AT, HEADER_PARTS).map_err(sparse)?;
        let size = self.header(header::unsigned(block, REAL_SIZE, "size"))?;
        let mut more = block[HEADER_MORE] != 0;
        while more {
            let block = self.block()?.ok_or_else(|| TarError::Truncated(path.to_string()))?;
            map.extend_gnu(&block, 0, BLOCK_PARTS).map_err(sparse)?;
            more = block[BLOCK_MORE] != 0;
        }
        Ok((Some(size), map))
    }

    fn map_in_content(&mut self) -> Result<Map, TarError> {
        let path = self.current.path.clone();
        let sparse = |source| TarError::Sparse { path: path.clone(), source };
        let mut reader = MapReader::default();
        loop {
            let rest = self.current.stored.checked_sub(BLOCK_BYTES as u64);
            self.current.stored = rest.ok_or_else(|| sparse(SparseError::Malformed))?;
            let block = self.block()?.ok_or_else(|| TarError::Truncated(path.to_string()))?;
            if let Some(map) = reader.take(&block).map_err(sparse)? {
                return Ok(map);
            }
        }
    }

    fn count_content(&mut self, size: u64) -> Result<(), TarError> {
        self.content_bytes = self.content_bytes.saturating_add(size);
        let limit = self.limits.content_bytes_max;
        let what = "bytes of content";
        if self.content_bytes > limit { Err(TarError::Limit { what, limit }) } else { Ok(()) }
    }

    /// Returns the next header; `None` at the archive's end: two blocks of zeros, or no more bytes.
    fn header_block(&mut self) -> Result<Option<Block>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let block = match self.block()? {
            Some(block) if block.iter().any(|byte| *byte != 0) => block,
            Some(_) => {
                let second = self.block()?;
                self.ended = true;
                // Readers disagree on what follows a lone block of zeros, so nothing may follow.
                return match second {
                    Some(block) if block.iter().any(|byte| *byte != 0) => Err(self
                        .header::<()>(Err(HeaderError::Checksum))
                        .expect_err("was an error")),
                    _ => Ok(None),
                };
            }
            None => {
                self.ended = true;
                return Ok(None);
            }
        };
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            let limit = self.limits.entries_max;
            return Err(TarError::Limit { what: "entries", limit });
        }
        self.header(header::verify_checksum(&block))?;
        Ok(Some(block))
    }

    /// Returns the next block; `None` if there is not one byte more.
    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated("a header".to_owned())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(Some(block))
    }

    /// Returns the content of an extended header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let limit = self.limits.extended_bytes_max;
        if size > limit {
            return Err(TarError::Limit { what: "bytes in an extended header", limit });
        }
        let mut bytes = Vec::new();
        let padded = size.next_multiple_of(BLOCK_BYTES as u64);
        let read =
            (&mut self.reader).take(padded).read_to_end(&mut bytes).map_err(TarError::Read)?;
        if (read as u64) < padded {
            return Err(TarError::Truncated("an extended header".to_owned()));
        }
        bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.current.stored + self.current.padding;
        let skipped = io::copy(&mut (&mut self.reader).take(rest), &mut io::sink());
        if skipped.map_err(TarError::Read)? < rest {
            return Err(TarError::Truncated(self.current.path.to_string()));
        }
        self.current = Current::default();
        Ok(())
    }

    fn header<T>(&self, result: Result<T, HeaderError>) -> Result<T, TarError> {
        result.map_err(|source| TarError::Header { after: self.entries.saturating_sub(1), source })
    }

    fn pax(&self, source: PaxError) -> TarError {
        TarError::Pax { entry: self.entries, source }
    }
}

fn parse_path(name: &[u8]) -> Result<EntryPath, TarError> {
    EntryPath::parse(name)
        .map_err(|source| TarError::Path { name: name.escape_ascii().to_string(), source })
}

fn symlink_target(path: &EntryPath, link: &[u8]) -> Result<Vec<u8>, TarError> {
    let error = |source| TarError::Path { name: link.escape_ascii().to_string(), source };
    match link {
        [] => Err(TarError::OutOfRange { path: path.clone(), field: "link target" }),
        _ if link.contains(&0) => Err(error(PathError::Nul)),
        _ if link.len() > crate::layer::entry::PATH_BYTES_MAX => Err(error(PathError::TooLong)),
        _ => Ok(link.to_vec()),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// The content of one entry. Reading to the end gives exactly [`Entry::size`] bytes or an error.
#[derive(Debug)]
pub struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let current = &mut self.0.current;
        let (stored, length) = current.next_run();
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let read = if stored {
            let read = self.0.reader.read(&mut buffer[..length])?;
            if read == 0 {
                let message = TarError::Truncated(current.path.to_string());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            current.stored -= read as u64;
            read
        } else {
            buffer[..length].fill(0);
            length
        };
        current.position += read as u64;
        Ok(read)
    }
}

impl Current {
    /// Returns whether what follows in the file is stored (or a hole), and for how many bytes.
    fn next_run(&mut self) -> (bool, u64) {
        let Some((map, index)) = &mut self.sparse else {
            return (true, self.stored);
        };
        while let Some(part) = map.parts.get(*index) {
            let end = part.offset + part.length;
            if self.position < part.offset {
                return (false, part.offset - self.position);
            }
            if self.position < end {
                return (true, end - self.position);
            }
            *index += 1;
        }
        (false, self.size - self.position)
    }
}
