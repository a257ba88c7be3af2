//! The file of a crate in an index: a JSON object on each line, one for each version. Pure.

use std::collections::HashMap;

use boatyard_oci::Digest;
use serde::Deserialize;

/// The checksums of a crate's versions.
#[derive(Debug, Default)]
pub(super) struct Listing {
    sums: HashMap<Box<str>, Digest>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    vers: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    cksum: std::borrow::Cow<'a, str>,
}

impl Listing {
    /// Reads the file; lines that make no sense are none.
    pub(super) fn parse(bytes: &[u8]) -> Listing {
        let lines = bytes.split(|byte| *byte == b'\n');
        let read = |line: &[u8]| {
            let line: Line<'_> = serde_json::from_slice(line).ok()?;
            Some((line.vers.into(), format!("sha256:{}", line.cksum).parse().ok()?))
        };
        Listing { sums: lines.filter_map(read).collect() }
    }

    /// Returns the digest of the crate of a version.
    pub(super) fn sum(&self, version: &str) -> Option<Digest> {
        self.sums.get(version).cloned()
    }

    /// Returns what it takes in memory.
    pub(super) fn weight(&self) -> usize {
        256 + self.sums.keys().map(|version| version.len() + 192).sum::<usize>()
    }
}
