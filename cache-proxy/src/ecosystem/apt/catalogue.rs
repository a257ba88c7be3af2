//! Which package file hashes to what: made once of each `Packages` or `Sources`, as a file.
//!
//! ```text
//! boatyard catalogue 1\n   21 bytes
//! <records>                sorted by their first 16 bytes, which are those of the SHA-256 of the
//!                          file's name; then 8 bytes of size, little end first, and 32 of SHA-256
//! ```
//!
//! 60,000 packages are 3.4 MB; a name is found in 17 reads. It is derived: one that was lost or torn
//! is made again.

use std::io::{self, BufRead};
use std::path::Path;

use boatyard_content::StoreError;
use boatyard_content::local::write_unsynced;
use boatyard_oci::{Algorithm, Digest};
use fs_err as fs;
use fs_err::os::unix::fs::FileExt as _;
use sha2::{Digest as _, Sha256};

use super::release::{entry, is_below};
use super::stanza::{Stanza, StanzaError, Stanzas};

const MAGIC: &[u8; 21] = b"boatyard catalogue 1\n";
const RECORD_LEN: usize = 16 + 8 + 32;
/// The most files of one index, which bounds the memory in which they are sorted: 112 MB.
const FILES_MAX: usize = 2_000_000;

/// What an index says of a package file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The number of its bytes.
    pub size: u64,
    /// What they hash to.
    pub digest: Digest,
}

/// Why a catalogue could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] StanzaError),
    /// It lists more than any archive has.
    #[error("the index lists more than {FILES_MAX} files")]
    TooMany,
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] StoreError),
    /// The file could not be read.
    #[error("cannot read a catalogue")]
    Read(#[source] io::Error),
}

/// Makes the catalogue of an index, `Packages` or `Sources`. Returns how many files it has.
///
/// # Errors
/// Where the index is none, or the file cannot be written.
pub fn make(index: impl BufRead, path: &Path) -> Result<usize, CatalogueError> {
    let mut records: Vec<[u8; RECORD_LEN]> = Vec::new();
    let mut stanzas = Stanzas::new(index);
    while let Some(stanza) = stanzas.read()? {
        each_file(stanza, |name, size, hex| records.extend(record(name, size, hex)));
        if records.len() > FILES_MAX {
            return Err(CatalogueError::TooMany);
        }
    }
    records.sort_unstable();
    records.dedup();
    let mut bytes = Vec::with_capacity(MAGIC.len() + records.len() * RECORD_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend(records.iter().flatten());
    write_unsynced(path, &bytes)?;
    Ok(records.len())
}

/// Tells the files that a paragraph lists: one of `Packages`, several of `Sources`.
///
/// > "Checksums-Sha256: [...] the checksum, the size and the file name" of each file of a source
/// > package (Debian Policy, 5.6.24), below its "Directory".
fn each_file(stanza: Stanza<'_>, mut tell: impl FnMut(&str, u64, &str)) {
    if let Some(name) = stanza.field("Filename") {
        let size = stanza.field("Size").and_then(|size| size.parse().ok());
        if let (Some(size), Some(hex)) = (size, stanza.field("SHA256")) {
            tell(name, size, hex);
        }
    } else if let Some(directory) = stanza.field("Directory") {
        let list = stanza.field("Checksums-Sha256").unwrap_or_default();
        for (hex, size, name) in list.lines().filter_map(|line| entry(line.trim(), 64)) {
            tell(&format!("{directory}/{name}"), size, hex);
        }
    }
}

fn record(name: &str, size: u64, hex: &str) -> Option<[u8; RECORD_LEN]> {
    let name = normal(name)?;
    let digest = Digest::from_parts(Algorithm::Sha256, &hex.to_ascii_lowercase()).ok()?;
    let mut record = [0; RECORD_LEN];
    record[..16].copy_from_slice(&key(&name));
    record[16..24].copy_from_slice(&size.to_le_bytes());
    for (at, byte) in record[24..].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest.hex()[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(record)
}

/// Returns a file's name without `.` and empty segments; `None` where it leads upwards.
fn normal(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Some(parts.join("/")).filter(|name| is_below(name))
}

fn key(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
    key
}

/// Looks a file up by its name. Returns all that is said of it: mostly one, and more where an index
/// lists a name twice.
///
/// # Errors
/// Where there is no such catalogue, or it cannot be read.
pub fn look_up(path: &Path, name: &str) -> Result<Vec<Listed>, CatalogueError> {
    let Some(name) = normal(name) else { return Ok(Vec::new()) };
    let wanted = key(&name);
    let file = fs::File::open(path).map_err(CatalogueError::Read)?;
    let len = file.metadata().map_err(CatalogueError::Read)?.len();
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0).map_err(CatalogueError::Read)?;
    let body = len - MAGIC.len() as u64;
    if &magic != MAGIC || !body.is_multiple_of(RECORD_LEN as u64) {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it is torn");
        return Err(CatalogueError::Read(error));
    }
    let read = |at: u64| {
        let mut record = [0; RECORD_LEN];
        let offset = MAGIC.len() as u64 + at * RECORD_LEN as u64;
        file.read_exact_at(&mut record, offset).map_err(CatalogueError::Read)?;
        Ok::<_, CatalogueError>(record)
    };
    let count = body / RECORD_LEN as u64;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if read(middle)?[..16] < wanted[..] {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut found = Vec::new();
    while low < count {
        let record = read(low)?;
        if record[..16] != wanted {
            break;
        }
        found.extend(listed(&record));
        low += 1;
    }
    Ok(found)
}

fn listed(record: &[u8; RECORD_LEN]) -> Option<Listed> {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in &record[24..] {
        write!(hex, "{byte:02x}").ok()?;
    }
    let size = u64::from_le_bytes(record[16..24].try_into().ok()?);
    Some(Listed { size, digest: Digest::from_parts(Algorithm::Sha256, &hex).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_of_many() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue");
        let name = |at: usize| format!("pool/main/p/p{at}/p{at}_1%3a2_all.deb");
        let digest = |at: usize| Digest::sha256(name(at).as_bytes());
        let mut index = String::new();
        for at in 0..5000 {
            index.push_str(&format!(
                "Package: p{at}\nFilename: ./{}\nSize: {at}\nSHA256: {}\n\n",
                name(at),
                digest(at).hex()
            ));
        }
        assert_eq!(make(index.as_bytes(), &path).unwrap(), 5000);
        for at in [0, 1, 2499, 4998, 4999] {
            let expected = vec![Listed { size: at as u64, digest: digest(at) }];
            assert_eq!(look_up(&path, &name(at)).unwrap(), expected);
        }
        assert_eq!(look_up(&path, &name(5000)).unwrap(), []);
        assert_eq!(look_up(&path, "../x").unwrap(), []);
        fs::write(&path, &fs::read(&path).unwrap()[..1000]).unwrap();
        assert!(look_up(&path, &name(0)).is_err());
    }

    #[test]
    fn sources_list_several_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue");
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let index = format!(
            "Package: x\nDirectory: pool/main/x\nFiles:\n {c} 3 x.dsc\nChecksums-Sha256:\n {a} 3 x.dsc\n {b} 4 x.tar.xz\n\n\
             Package: y\nDirectory: ../..\nChecksums-Sha256:\n {a} 3 passwd\n\nPackage: z\nFilename: z.deb\n",
            c = "c".repeat(32)
        );
        assert_eq!(make(index.as_bytes(), &path).unwrap(), 2);
        let found = look_up(&path, "pool/main/x/x.tar.xz").unwrap();
        assert_eq!(found[0].digest.hex(), b.to_ascii_lowercase());
        assert_eq!(look_up(&path, "x.dsc").unwrap(), []);
    }
}
