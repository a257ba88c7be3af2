//! What the files of the compact index say. Pure: hostile bytes give less, never an error.
//!
//! ```text
//! created_at: 2026-01-01T00:00:05Z        /versions; the lines above `---` are about the file
//! ---
//! rack 1.0,1.1,2.0-java 3f1e...           name, versions, MD5 of /info/rack
//! rack -1.1 77aa...                       appended later: the last line of a name counts
//!
//! ---                                     /info/rack
//! 1.0 |checksum:9a1f...,ruby:>= 2.0       version, dependencies | sums and requirements
//! ```

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read};

use boatyard_oci::Digest;
use sha2::{Digest as _, Sha256};

/// How many lines of `/versions` are read at the most.
const GEMS_MAX: usize = 1_000_000;
/// The longest of its lines that is read as one.
const LINE_MAX: u64 = 1024 * 1024;

/// What `/versions` says.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// When its base was made.
    pub(super) created_at: Option<String>,
    /// A part of the SHA-256 of each name, and the MD5 of its `/info`; sorted. So it takes 24
    /// bytes for each gem, of which there are some hundred thousands.
    sums: Vec<(u64, [u8; 16])>,
}

impl Versions {
    /// Reads the file, a line at a time: it may be large.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn read(from: impl Read) -> io::Result<Versions> {
        let mut from = BufReader::new(from);
        let (mut versions, mut line) = (Versions::default(), Vec::new());
        let mut is_head = true;
        while versions.sums.len() < GEMS_MAX {
            line.clear();
            if (&mut from).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            if is_head {
                is_head = line != b"---";
                if let Some(text) = line.strip_prefix(b"created_at:") {
                    let text = std::str::from_utf8(text).ok();
                    versions.created_at = text.map(|text| text.trim().to_owned());
                }
                continue;
            }
            let mut words = line.split(|byte| *byte == b' ');
            let (name, sum) = (words.next(), words.nth(1));
            if let (Some(name), Some(sum)) = (name, sum.and_then(md5)) {
                versions.sums.push((short(name), sum));
            }
        }
        // The sort is stable, and of a name the last line counts.
        let sums = &mut versions.sums;
        sums.reverse();
        sums.sort_by_key(|(name, _)| *name);
        sums.dedup_by_key(|(name, _)| *name);
        sums.shrink_to_fit();
        Ok(versions)
    }

    /// Returns the MD5 of the `/info` of a gem.
    pub(super) fn sum(&self, name: &str) -> Option<[u8; 16]> {
        let name = short(name.as_bytes());
        let at = self.sums.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        Some(self.sums[at].1)
    }

    /// Returns what it takes in memory.
    pub(super) fn weight(&self) -> usize {
        256 + 24 * self.sums.len()
    }
}

/// What `/info/NAME` says.
#[derive(Debug, Default)]
pub(super) struct Info {
    sums: HashMap<Box<str>, [u8; 32]>,
}

impl Info {
    /// Reads the file.
    pub(super) fn parse(bytes: &[u8]) -> Info {
        let mut sums = HashMap::new();
        let Ok(text) = std::str::from_utf8(bytes) else { return Info::default() };
        for line in text.lines() {
            let Some((version, rest)) = line.split_once(' ') else { continue };
            let (_, requirements) = rest.split_once('|').unwrap_or(("", rest));
            let sum = requirements.split(',').find_map(|word| word.strip_prefix("checksum:"));
            if let Some(sum) = sum.and_then(|sum| hex::<32>(sum.trim().as_bytes())) {
                sums.insert(version.into(), sum);
            }
        }
        Info { sums }
    }

    /// Returns the digest of the `.gem` of a version, with its platform.
    pub(super) fn sum(&self, version: &str) -> Option<Digest> {
        let sum = self.sums.get(version)?;
        let text = sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("sha256:{text}").parse().ok()
    }

    /// Returns what it takes in memory.
    pub(super) fn weight(&self) -> usize {
        256 + self.sums.keys().map(|version| version.len() + 80).sum::<usize>()
    }
}

/// Reads an MD5 in hexadecimal digits.
pub(super) fn md5(text: &[u8]) -> Option<[u8; 16]> {
    hex::<16>(text.strip_suffix(b"\r").unwrap_or(text))
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

/// Returns the first bytes of the SHA-256 of a name: nobody can choose names that share them.
fn short(name: &[u8]) -> u64 {
    let hash = Sha256::digest(name);
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}
