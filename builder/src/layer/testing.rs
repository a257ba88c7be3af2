//! Archives made byte by byte, honest and hostile.

use super::entry::{Entry, EntryPath};
use super::tar::{Archive, Limits, TarError};

/// An archive under construction. Nothing is checked: lies are the point.
#[derive(Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

/// A header block under construction.
#[derive(Clone)]
pub(super) struct Head(pub(super) [u8; 512]);

impl Head {
    pub(super) fn new(name: &[u8], kind: u8) -> Self {
        let mut head = Self([0; 512]);
        head.put(0, &name[..name.len().min(100)]);
        head.put(100, b"0000644\0").put(108, b"0000000\0").put(116, b"0000000\0");
        head.size(0).put(136, b"00000000000\0").put(257, b"ustar\x0000");
        head.0[156] = kind;
        head
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn size(&mut self, size: u64) -> &mut Self {
        self.put(124, format!("{size:011o}\0").as_bytes())
    }

    pub(super) fn link(mut self, target: &[u8]) -> Self {
        self.put(157, target);
        self
    }

    pub(super) fn seal(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Raw {
    pub(super) fn block(mut self, block: &[u8]) -> Self {
        self.0.extend_from_slice(block);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn head(self, head: Head) -> Self {
        self.block(&head.seal())
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.special(name.as_bytes(), b'0', content)
    }

    /// An entry of any type with content.
    pub(super) fn special(self, name: &[u8], kind: u8, content: &[u8]) -> Self {
        let mut head = Head::new(name, kind);
        head.size(content.len() as u64);
        self.head(head).block(content)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        let mut head = Head::new(name.as_bytes(), b'5');
        head.put(100, b"0000755\0");
        self.head(head)
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.head(Head::new(name.as_bytes(), b'2').link(target.as_bytes()))
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.head(Head::new(name.as_bytes(), b'1').link(target.as_bytes()))
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.special(b"pax", b'x', &pax_records(records))
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.block(&[0; 1024]).0
    }
}

pub(super) fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while body + length.to_string().len() != length {
            length += 1;
        }
        bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// Reads all entries with their content.
pub(super) fn read_all(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(archive, Limits::default());
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut archive.content(), &mut content).map_err(TarError::Read)?;
        entries.push((entry, content));
    }
    Ok(entries)
}

pub(crate) fn path(name: &str) -> EntryPath {
    EntryPath::parse(name.as_bytes()).unwrap()
}

/// What an error says, with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}
