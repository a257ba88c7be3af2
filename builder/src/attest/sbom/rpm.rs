//! rpm's databases: SQLite (Fedora, RHEL 9) and ndb (SUSE). Berkeley DB (RHEL 8 and older) is not read.
//!
//! Both hold, for each package, the header that its file had: a number of entries and of bytes, the
//! entries (tag, type, offset, count), the bytes.

use std::io;

use super::package::{Kind, Package};
use super::sqlite::{Database, ReadAt};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE: u32 = 1044;
const ENTRY_BYTES: usize = 16;
const INT32: u32 = 4;

/// Reads `rpmdb.sqlite`.
pub(super) fn sqlite(file: &dyn ReadAt, path: &str) -> io::Result<Vec<Package>> {
    let mut found = Vec::new();
    Database::open(file)?.blobs("Packages", |blob| found.extend(package(blob, path)))?;
    Ok(found)
}

/// Reads `Packages.db`.
///
/// ```text
/// "RpmP", version, generation, pages of slots, ...    32 bytes, little-endian, the first two slots' room
/// slots, 16 bytes each: "Slot", package, block, blocks    a page has 4096 bytes
/// at block × 16: "BlbS", package, generation, bytes, ...      the header, and a trailer
/// ```
pub(super) fn ndb(file: &dyn ReadAt, path: &str) -> io::Result<Vec<Package>> {
    const PAGE_BYTES: u64 = 4096;
    const SLOT_BYTES: usize = 16;
    const BLOCK_BYTES: u64 = 16;
    const BLOB_BYTES_MAX: u64 = 256 << 20;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the database is damaged");
    let mut head = [0; 32];
    file.read_at(0, &mut head)?;
    let pages = u64::from(little(&head, 12).unwrap_or_default());
    if !head.starts_with(b"RpmP") || pages.saturating_mul(PAGE_BYTES) > file.size() {
        return Err(damaged());
    }
    let mut found = Vec::new();
    for page in 0..pages {
        let mut slots = vec![0; PAGE_BYTES as usize];
        file.read_at(page * PAGE_BYTES, &mut slots)?;
        let first = if page == 0 { 2 } else { 0 };
        for slot in slots.chunks_exact(SLOT_BYTES).skip(first) {
            let (Some(number), Some(block)) = (little(slot, 4), little(slot, 8)) else { continue };
            if !slot.starts_with(b"Slot") || number == 0 || block == 0 {
                continue;
            }
            let offset = u64::from(block) * BLOCK_BYTES;
            let mut head = [0; 16];
            file.read_at(offset, &mut head)?;
            let size = u64::from(little(&head, 12).unwrap_or_default());
            if !head.starts_with(b"BlbS") || size > BLOB_BYTES_MAX || offset + size > file.size() {
                return Err(damaged());
            }
            let mut blob = vec![0; size as usize];
            file.read_at(offset + 16, &mut blob)?;
            found.extend(package(&blob, path));
        }
    }
    Ok(found)
}

/// Reads a header.
fn package(blob: &[u8], path: &str) -> Option<Package> {
    let (entries, bytes) = (big(blob, 0)? as usize, big(blob, 4)? as usize);
    let index = blob.get(8..8_usize.checked_add(entries.checked_mul(ENTRY_BYTES)?)?)?;
    let data = blob.get(8 + index.len()..)?;
    let data = data.get(..bytes.min(data.len()))?;
    let find = |tag: u32| {
        let mut all = index.chunks_exact(ENTRY_BYTES);
        let entry = all.find(|entry| big(entry, 0) == Some(tag))?;
        Some((big(entry, 4)?, data.get(big(entry, 8)? as usize..)?))
    };
    let text = |tag: u32| {
        let (_, bytes) = find(tag)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let name = text(NAME)?;
    if name == "gpg-pubkey" {
        // A key that was imported is no package.
        return None;
    }
    let version = format!("{}-{}", text(VERSION)?, text(RELEASE)?);
    let mut package = Package::new(Kind::Rpm, &name, &version, path);
    package.architecture = text(ARCH);
    package.license = text(LICENSE);
    package.upstream = text(SOURCE).filter(|source| source != "(none)");
    package.epoch = find(EPOCH).filter(|(kind, _)| *kind == INT32).and_then(|(_, it)| big(it, 0));
    Some(package)
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    big(bytes, at).map(u32::swap_bytes)
}
