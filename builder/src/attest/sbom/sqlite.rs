//! Enough of SQLite's file format to read the rows of one table: that of rpm's packages.
//!
//! Pages are read where they are needed, and what they say is not believed: numbers of pages are
//! checked, and a walk ends after as many pages as the file has. What only a write-ahead log has is
//! not seen; rpm leaves none behind when it ends.

use std::io;

const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const TABLE_INTERIOR: u8 = 5;
const TABLE_LEAF: u8 = 13;
/// A row: the header of a package with very many files has some megabytes.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// A file that can be read anywhere.
pub(super) trait ReadAt {
    /// Returns its size.
    fn size(&self) -> u64;
    /// Fills the buffer from an offset.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A database.
pub(super) struct Database<'a> {
    file: &'a dyn ReadAt,
    page_bytes: usize,
    usable: usize,
}

/// One value of a row.
#[derive(Debug)]
enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Database<'a> {
    /// Reads the header.
    pub(super) fn open(file: &'a dyn ReadAt) -> io::Result<Database<'a>> {
        let mut header = [0; HEADER_BYTES];
        file.read_at(0, &mut header)?;
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65536,
            size => usize::from(size),
        };
        let usable = page_bytes.saturating_sub(usize::from(header[20]));
        if !header.starts_with(MAGIC) || page_bytes < 512 || usable < 480 {
            return Err(damaged());
        }
        Ok(Database { file, page_bytes, usable })
    }

    /// Visits the last column of each row of a table, which must be a blob.
    pub(super) fn blobs(&self, table: &str, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
        let mut root = None;
        self.walk(1, &mut |payload| {
            // type, name, tbl_name, rootpage, sql
            let columns = columns(payload);
            if let [Value::Bytes(b"table"), Value::Bytes(name), _, Value::Number(page), ..] =
                &columns[..]
                && *name == table.as_bytes()
            {
                root = u32::try_from(*page).ok();
            }
        })?;
        let Some(root) = root else { return Ok(()) };
        self.walk(root, &mut |payload| {
            if let Some(Value::Bytes(blob)) = columns(payload).last() {
                visit(blob);
            }
        })
    }

    /// Visits the rows of a B-tree.
    fn walk(&self, root: u32, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut left = self.file.size() / self.page_bytes as u64 + 1;
        let mut waiting = vec![root];
        while let Some(number) = waiting.pop() {
            left = left.checked_sub(1).ok_or_else(damaged)?;
            let page = self.page(number)?;
            let start = if number == 1 { HEADER_BYTES } else { 0 };
            let header = page.get(start..start + 12).ok_or_else(damaged)?;
            let cells = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let pointers = start + if header[0] == TABLE_INTERIOR { 12 } else { 8 };
            let cell = |index: usize| {
                let at = pointers + 2 * index;
                let bytes = page.get(at..at + 2)?;
                page.get(usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))..)
            };
            match header[0] {
                TABLE_INTERIOR => {
                    waiting.push(u32_at(header, 8).ok_or_else(damaged)?);
                    for index in (0..cells).rev() {
                        let child = cell(index).and_then(|cell| u32_at(cell, 0));
                        waiting.push(child.ok_or_else(damaged)?);
                    }
                }
                TABLE_LEAF => {
                    for index in 0..cells {
                        let cell = cell(index).ok_or_else(damaged)?;
                        visit(&self.payload(cell)?);
                    }
                }
                _ => return Err(damaged()),
            }
        }
        Ok(())
    }

    /// Returns a row, with what overflow pages have of it.
    fn payload(&self, cell: &[u8]) -> io::Result<Vec<u8>> {
        let (size, read) = varint(cell).ok_or_else(damaged)?;
        let (_, more) = cell.get(read..).and_then(varint).ok_or_else(damaged)?;
        let body = &cell[read + more..];
        let size = u64::try_from(size).ok().filter(|size| *size <= PAYLOAD_BYTES_MAX);
        let size = size.filter(|size| *size <= self.file.size()).ok_or_else(damaged)? as usize;
        let most = self.usable - 35;
        if size <= most {
            return body.get(..size).map(<[u8]>::to_vec).ok_or_else(damaged);
        }
        // "Table B-Tree Leaf Cell": how much stays on the page.
        let least = (self.usable - 12) * 32 / 255 - 23;
        let local = least + (size - least) % (self.usable - 4);
        let local = if local <= most { local } else { least };
        let mut payload = body.get(..local).ok_or_else(damaged)?.to_vec();
        let mut next = u32_at(body, local).ok_or_else(damaged)?;
        while payload.len() < size {
            let page = self.page(next)?;
            next = u32_at(&page, 0).ok_or_else(damaged)?;
            let rest = (size - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(page.get(4..4 + rest).ok_or_else(damaged)?);
        }
        Ok(payload)
    }

    fn page(&self, number: u32) -> io::Result<Vec<u8>> {
        let offset = u64::from(number.checked_sub(1).ok_or_else(damaged)?) * self.page_bytes as u64;
        if offset + self.page_bytes as u64 > self.file.size() {
            return Err(damaged());
        }
        let mut page = vec![0; self.page_bytes];
        self.file.read_at(offset, &mut page)?;
        Ok(page)
    }
}

/// Reads the columns of a row ("Record Format").
fn columns(payload: &[u8]) -> Vec<Value<'_>> {
    let Some((header, mut at)) = varint(payload) else { return Vec::new() };
    let Ok(end) = usize::try_from(header) else { return Vec::new() };
    let (mut found, mut body) = (Vec::new(), end);
    while at < end {
        let Some((kind, read)) = payload.get(at..).and_then(varint) else { break };
        at += read;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            kind if kind >= 12 => (kind as usize - 12) / 2,
            _ => break,
        };
        let Some(bytes) = body.checked_add(length).and_then(|end| payload.get(body..end)) else {
            break;
        };
        body += length;
        found.push(match kind {
            1..=6 => {
                Value::Number(bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
            }
            8 => Value::Number(0),
            9 => Value::Number(1),
            kind if kind >= 12 => Value::Bytes(bytes),
            _ => Value::Other,
        });
    }
    found
}

/// Reads a number of up to nine bytes, the highest bits first; returns how many bytes it has.
fn varint(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut number = 0_i64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Some((number << 8 | i64::from(*byte), 9));
        }
        number = number << 7 | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the database is damaged")
}
