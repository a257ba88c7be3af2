//! Which package file hashes to what: made once of each index that lists packages, as a file.
//!
//! ```text
//! boatyard catalogue 2\n   21 bytes
//! <records>                sorted by their first 16 bytes, which are those of the SHA-256 of the
//!                          file's name; then 8 bytes of size, little end first, one that says
//!                          what kind of sum follows, and 64 of it, the rest of them zero
//! ```
//!
//! 60,000 packages are 5.3 MB; a name is found in 17 reads. It is derived: one that was lost or torn
//! is made again.

use std::io;
use std::path::Path;

use boatyard_content::StoreError;
use boatyard_content::local::write_unsynced;
use boatyard_oci::{Algorithm, Digest};
use fs_err as fs;
use fs_err::os::unix::fs::FileExt as _;
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 21] = b"boatyard catalogue 2\n";
const SUM_LEN: usize = 64;
const RECORD_LEN: usize = 16 + 8 + 1 + SUM_LEN;
/// The most files of one index, which bounds the memory in which they are sorted: 178 MB.
const FILES_MAX: usize = 2_000_000;

/// What an index says of a package file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The number of its bytes.
    pub size: u64,
    /// What vouches for them.
    pub sum: Sum,
}

/// What vouches for a package file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The digest of all of it.
    Whole(Digest),
    /// The SHA-1 of its control segment, which has the digest of the rest: as Alpine's indexes say.
    Control([u8; 20]),
}

/// Why a catalogue could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The index cannot be read.
    #[error("the index cannot be read")]
    Index(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It lists more than any archive has.
    #[error("the index lists more than {FILES_MAX} files")]
    TooMany,
    /// The blob could not be read, or the file not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be read.
    #[error("cannot read a catalogue")]
    Read(#[source] io::Error),
}

/// The files of a catalogue that is being made.
#[derive(Debug, Default)]
pub struct Records(Vec<[u8; RECORD_LEN]>);

impl Records {
    /// Adds a file by its name in the index. What leads upwards is left out.
    ///
    /// # Errors
    /// Where there are too many.
    pub fn add(&mut self, name: &str, listed: &Listed) -> Result<(), CatalogueError> {
        if self.0.len() >= FILES_MAX {
            return Err(CatalogueError::TooMany);
        }
        self.0.extend(record(name, listed));
        Ok(())
    }

    /// Writes the catalogue. Returns how many files it has.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(mut self, path: &Path) -> Result<usize, CatalogueError> {
        self.0.sort_unstable();
        self.0.dedup();
        let mut bytes = Vec::with_capacity(MAGIC.len() + self.0.len() * RECORD_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend(self.0.iter().flatten());
        write_unsynced(path, &bytes)?;
        Ok(self.0.len())
    }
}

fn record(name: &str, listed: &Listed) -> Option<[u8; RECORD_LEN]> {
    let name = normal(name)?;
    let mut record = [0; RECORD_LEN];
    record[..16].copy_from_slice(&key(&name));
    record[16..24].copy_from_slice(&listed.size.to_le_bytes());
    let (kind, sum) = record[24..].split_first_mut()?;
    match &listed.sum {
        Sum::Control(sha1) => {
            *kind = 1;
            sum[..20].copy_from_slice(sha1);
        }
        Sum::Whole(digest) => {
            *kind = if digest.algorithm() == Algorithm::Sha512 { 3 } else { 2 };
            for (at, byte) in sum.iter_mut().enumerate().take(digest.hex().len() / 2) {
                *byte = u8::from_str_radix(digest.hex().get(2 * at..2 * at + 2)?, 16).ok()?;
            }
        }
    }
    Some(record)
}

/// Returns a file's name without `.` and empty segments; `None` where it leads upwards.
fn normal(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let leads = parts.is_empty() || parts.contains(&"..");
    (!leads).then(|| parts.join("/"))
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
    let size = u64::from_le_bytes(record[16..24].try_into().ok()?);
    let (algorithm, len) = match record[24] {
        1 => {
            return Some(Listed { size, sum: Sum::Control(record[25..45].try_into().ok()?) });
        }
        2 => (Algorithm::Sha256, 32),
        3 => (Algorithm::Sha512, 64),
        _ => return None,
    };
    let mut hex = String::with_capacity(2 * len);
    for byte in &record[25..25 + len] {
        write!(hex, "{byte:02x}").ok()?;
    }
    Some(Listed { size, sum: Sum::Whole(Digest::from_parts(algorithm, &hex).ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_of_many() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue");
        let name = |at: usize| format!("pool/main/p/p{at}/p{at}_1%3a2_all.deb");
        let of = |at: usize| {
            let sum = match at % 3 {
                0 => Sum::Whole(Digest::sha256(name(at).as_bytes())),
                1 => Sum::Whole(
                    Digest::from_parts(Algorithm::Sha512, &format!("{at:0128x}")).unwrap(),
                ),
                _ => Sum::Control([at as u8; 20]),
            };
            Listed { size: at as u64, sum }
        };
        let mut records = Records::default();
        for at in 0..5000 {
            records.add(&format!("./{}", name(at)), &of(at)).unwrap();
        }
        records.add("../../passwd", &of(0)).unwrap();
        assert_eq!(records.write(&path).unwrap(), 5000);
        for at in [0, 1, 2, 2499, 4998, 4999] {
            assert_eq!(look_up(&path, &name(at)).unwrap(), [of(at)]);
        }
        assert_eq!(look_up(&path, &name(5000)).unwrap(), []);
        assert_eq!(look_up(&path, "../../passwd").unwrap(), []);
        fs::write(&path, &fs::read(&path).unwrap()[..1001]).unwrap();
        assert!(look_up(&path, &name(0)).is_err());
    }
}
