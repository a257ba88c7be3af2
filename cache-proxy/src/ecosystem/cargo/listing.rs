//! The file of a crate in an index: a JSON object on each line, one for each version. Pure.

use std::collections::HashMap;

use boatyard_oci::Digest;
use serde::Deserialize;

/// The versions of a crate.
#[derive(Debug, Default)]
pub(super) struct Listing {
    versions: HashMap<Box<str>, Listed>,
}

/// What is said of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The digest of its crate.
    pub(super) sum: Digest,
    /// Its author withdrew it.
    pub(super) is_yanked: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    vers: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    cksum: std::borrow::Cow<'a, str>,
    #[serde(default)]
    yanked: bool,
}

impl Listing {
    /// Reads the file; lines that make no sense are none.
    pub(super) fn parse(bytes: &[u8]) -> Listing {
        let lines = bytes.split(|byte| *byte == b'\n');
        let read = |line: &[u8]| {
            let line: Line<'_> = serde_json::from_slice(line).ok()?;
            let sum = format!("sha256:{}", line.cksum).parse().ok()?;
            Some((line.vers.into(), Listed { sum, is_yanked: line.yanked }))
        };
        Listing { versions: lines.filter_map(read).collect() }
    }

    /// Returns what is said of a version.
    pub(super) fn version(&self, version: &str) -> Option<&Listed> {
        self.versions.get(version)
    }

    /// Returns what it takes in memory.
    pub(super) fn weight(&self) -> usize {
        256 + self.versions.keys().map(|version| version.len() + 192).sum::<usize>()
    }
}

/// Leaves out the versions that their authors withdrew.
pub(super) fn without_yanked(bytes: &[u8]) -> Vec<u8> {
    let is_yanked =
        |line: &[u8]| serde_json::from_slice::<Line<'_>>(line).is_ok_and(|line| line.yanked);
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !is_yanked(line)).flatten().copied().collect()
}
