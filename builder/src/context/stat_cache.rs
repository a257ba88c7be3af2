//! What a context's files hashed to when they last looked as they do now.
//!
//! ```text
//! ROOT/cache/stat/<BLAKE3 of the context's path, device and inode>
//!     magic, format    8 bytes
//!     records          84 bytes each, sorted by device and inode:
//!                      device inode size mtime ctime (u64)  ns of both, mode (u32)  BLAKE3 of the content
//!     BLAKE3           of all that comes before
//! ```
//!
//! A file whose device, inode, size, mode and both times are those of its record is not read again.
//! That is git's way, with git's rule: a file that changed so shortly before it was read that another
//! change could leave the same times is not remembered. The file is written whole and renamed into
//! place, so that of two builds one wins; a damaged one is as good as none.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use rustix::fs::{Stat, fstat};

use super::directory::Directory;

const MAGIC: &[u8; 8] = b"by-stat\x01";
const RECORD_BYTES: usize = 84;
/// The part of a record that a file must look like.
const LOOKS_BYTES: usize = 52;
const CHECKSUM_BYTES: usize = 32;
/// What nobody asked for is kept up to this many records, or three times as many as were asked for.
const SPARE_RECORDS: usize = 50_000;
/// The kernel stamps files with a clock that ticks every 10 ms at worst.
const GRAIN: Duration = Duration::from_millis(20);
/// The grain of file systems that keep no fractions of seconds.
const COARSE_GRAIN: Duration = Duration::from_secs(2);

/// The stat cache of one context.
#[derive(Debug, Default)]
pub struct StatCache {
    path: PathBuf,
    known: Known,
    seen: Mutex<Seen>,
}

/// What this build asked for and learned.
#[derive(Debug, Default)]
struct Seen {
    asked: HashSet<Identity>,
    learned: HashMap<Identity, Record>,
}

/// Device and inode.
type Identity = [u8; 16];
type Record = [u8; RECORD_BYTES];

impl StatCache {
    /// Opens the cache of a context below ROOT; an absent or damaged one is empty.
    pub fn open(root: &Path, context: &Directory) -> StatCache {
        let mut hasher = blake3::Hasher::new();
        hasher.update(context.path().as_os_str().as_bytes()).update(&[0]);
        if let Ok(stat) = fstat(context.fd()) {
            hasher.update(&identity(&stat));
        }
        let path = root.join("cache/stat").join(hasher.finalize().to_hex().as_str());
        let known = fs::read(&path).ok().and_then(Known::from_bytes).unwrap_or_default();
        StatCache { path, known, seen: Mutex::default() }
    }

    /// Returns what a file hashed to when it looked like this.
    pub(crate) fn find(&self, stat: &Stat) -> Option<[u8; 32]> {
        let record = self.known.find(&identity(stat))?;
        if record[..LOOKS_BYTES] != looks(stat) {
            return None;
        }
        self.seen().asked.insert(identity(stat));
        record[LOOKS_BYTES..].try_into().ok()
    }

    /// Notes what a file hashed to that looked like this before and after, and was first looked at
    /// at a time.
    pub(crate) fn learn(&self, stat: &Stat, content: &[u8; 32], looked_at: SystemTime) {
        if !is_settled(stat, looked_at) {
            return;
        }
        let mut record = [0; RECORD_BYTES];
        record[..LOOKS_BYTES].copy_from_slice(&looks(stat));
        record[LOOKS_BYTES..].copy_from_slice(content);
        self.seen().learned.insert(identity(stat), record);
    }

    /// Keeps what was learned. Where nothing was, nothing is written.
    ///
    /// # Errors
    /// Fails if the file cannot be written, which costs time and nothing else.
    pub fn save(&self) -> io::Result<()> {
        let seen = self.seen();
        let spare = self.known.len().saturating_sub(seen.asked.len());
        let crowded = spare > SPARE_RECORDS.max(3 * (seen.asked.len() + seen.learned.len()));
        if self.path.as_os_str().is_empty() || (seen.learned.is_empty() && !crowded) {
            return Ok(());
        }
        let stays = |record: &&[u8]| {
            let identity: Identity = record[..16].try_into().unwrap_or_default();
            let wanted = !crowded || seen.asked.contains(&identity);
            wanted && !seen.learned.contains_key(&identity)
        };
        let learned = seen.learned.values().map(|record| &record[..]);
        let mut records: Vec<&[u8]> = self.known.records().filter(stays).chain(learned).collect();
        records.sort_unstable();
        let mut bytes = MAGIC.to_vec();
        records.iter().for_each(|record| bytes.extend_from_slice(record));
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let parent = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(parent)?;
        file.write_all(&bytes)?;
        file.persist(&self.path).map_err(|error| error.error).map(drop)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records that were there: the file, without its checksum.
#[derive(Debug, Default)]
struct Known(Vec<u8>);

impl Known {
    fn from_bytes(mut bytes: Vec<u8>) -> Option<Known> {
        let length = bytes.len().checked_sub(CHECKSUM_BYTES)?;
        let whole = length >= MAGIC.len()
            && (length - MAGIC.len()).is_multiple_of(RECORD_BYTES)
            && bytes.starts_with(MAGIC)
            && blake3::hash(&bytes[..length]).as_bytes() == &bytes[length..];
        bytes.truncate(length);
        whole.then_some(Known(bytes))
    }

    fn len(&self) -> usize {
        self.0.len().saturating_sub(MAGIC.len()) / RECORD_BYTES
    }

    fn record(&self, index: usize) -> &[u8] {
        &self.0[MAGIC.len() + index * RECORD_BYTES..][..RECORD_BYTES]
    }

    fn records(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.record(index))
    }

    fn find(&self, identity: &Identity) -> Option<&[u8]> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.record(middle);
            match record[..16].cmp(identity) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(record),
            }
        }
        None
    }
}

/// Says whether a change from now on would show in the file's times.
fn is_settled(stat: &Stat, looked_at: SystemTime) -> bool {
    let nanoseconds = u32::try_from(stat.st_ctime_nsec).unwrap_or_default();
    let Ok(seconds) = u64::try_from(stat.st_ctime) else { return true };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    let grain = if nanoseconds == 0 { COARSE_GRAIN } else { GRAIN };
    looked_at.duration_since(changed).is_ok_and(|age| age > grain)
}

fn identity(stat: &Stat) -> Identity {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&stat.st_dev.to_be_bytes());
    bytes[8..].copy_from_slice(&stat.st_ino.to_be_bytes());
    bytes
}

/// All of a file that would change with it, its identity first.
fn looks(stat: &Stat) -> [u8; LOOKS_BYTES] {
    let mut bytes = [0; LOOKS_BYTES];
    bytes[..16].copy_from_slice(&identity(stat));
    let numbers = [stat.st_size, stat.st_mtime, stat.st_ctime];
    for (at, number) in numbers.into_iter().enumerate() {
        bytes[16 + 8 * at..][..8].copy_from_slice(&number.to_be_bytes());
    }
    let fraction = |nanoseconds: u64| u32::try_from(nanoseconds).unwrap_or_default();
    let rest = [fraction(stat.st_mtime_nsec), fraction(stat.st_ctime_nsec), stat.st_mode];
    for (at, number) in rest.into_iter().enumerate() {
        bytes[40 + 4 * at..][..4].copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests;
