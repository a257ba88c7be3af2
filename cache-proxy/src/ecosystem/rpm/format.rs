//! What a repository's index sets look like, as [`crate::generation`] has to know it.

use std::collections::BTreeMap;
use std::error::Error;

use super::primary;
use super::repomd::{self, RepomdError};
use crate::ecosystem::apt::signature::{self, Fit};
use crate::generation::catalogue::{CatalogueError, Records};
use crate::generation::sets::split;
use crate::generation::unpack::Unpacked;
use crate::generation::{Child, Format, Listing, RootFile};

/// The root, below the address of a repository.
pub const REPOMD: &str = "repodata/repomd.xml";
/// Its signature.
pub const SIGNATURE: &str = "repodata/repomd.xml.asc";

/// The index sets of repositories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repodata;

/// Why files are not the root of a repository.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The text.
    #[error(transparent)]
    Repomd(#[from] RepomdError),
    /// Two files of different times, or damaged ones.
    #[error("the signature repomd.xml.asc was made of other bytes")]
    Signature,
    /// Nothing.
    #[error("there is no file")]
    Empty,
}

impl Format for Repodata {
    fn kind(&self) -> &'static str {
        "rpm"
    }

    fn forms(&self) -> &'static [&'static [&'static str]] {
        &[&[REPOMD, SIGNATURE]]
    }

    fn read(&self, files: &[RootFile<'_>]) -> Result<Listing, Box<dyn Error + Send + Sync>> {
        Ok(read(files)?)
    }

    fn agrees(&self, root: &[RootFile<'_>], other: RootFile<'_>) -> bool {
        root.first().is_some_and(|root| signature::detached(other.bytes, root.bytes) == Fit::Fits)
    }

    fn index_of(&self, _path: &str) -> Option<String> {
        None
    }

    fn read_index(&self, _path: &str, _bytes: &[u8]) -> BTreeMap<Box<str>, Child> {
        BTreeMap::new()
    }

    fn places(&self, path: &str, _child: &Child, _by_digest: bool) -> Vec<String> {
        vec![path.to_owned()]
    }

    /// The name without the digest that it begins with, and without its packing: `primary.xml`. Files
    /// of zchunk are others, for clients that fetch them in parts.
    fn role(&self, path: &str) -> String {
        let (directory, name) = split(path);
        let name = named(name).map_or(name, |(_, _, name)| name);
        let packings = [".gz", ".xz", ".zst", ".bz2"];
        let plain = packings.iter().find_map(|packing| name.strip_suffix(packing));
        format!("{directory}{}", plain.unwrap_or(name))
    }

    fn lists_packages(&self, path: &str) -> bool {
        split(&self.role(path)).1 == "primary.xml"
    }

    fn packages(
        &self,
        _path: &str,
        index: Unpacked,
        records: &mut Records,
    ) -> Result<(), CatalogueError> {
        primary::read(index, records)
    }

    /// Each file may have a connection of its own.
    fn keeps_connection(&self, _agent: &str) -> bool {
        false
    }
}

fn read(files: &[RootFile<'_>]) -> Result<Listing, RootError> {
    let [root, others @ ..] = files else { return Err(RootError::Empty) };
    if others.iter().any(|asc| signature::detached(asc.bytes, root.bytes) == Fit::Differs) {
        return Err(RootError::Signature);
    }
    Ok(repomd::parse(root.bytes)?)
}

/// Reads a name that begins with its file's digest: algorithm, digits, and the rest.
pub fn named(name: &str) -> Option<(&'static str, &str, &str)> {
    let (hex, rest) = name.split_once('-')?;
    let algorithm = match hex.len() {
        64 => "sha256",
        128 => "sha512",
        40 => "sha1",
        32 => "md5",
        _ => return None,
    };
    hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some((algorithm, hex, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_outlast_generations() {
        let (a, b) = ("a".repeat(64), "b".repeat(128));
        for (path, role, lists) in [
            (format!("repodata/{a}-primary.xml.gz"), "repodata/primary.xml", true),
            (format!("repodata/{b}-primary.xml.zst"), "repodata/primary.xml", true),
            ("repodata/primary.xml.xz".to_owned(), "repodata/primary.xml", true),
            (format!("repodata/{a}-primary.xml.zck"), "repodata/primary.xml.zck", false),
            (
                format!("repodata/{a}-comps-core.x86_64.xml"),
                "repodata/comps-core.x86_64.xml",
                false,
            ),
        ] {
            assert_eq!(Repodata.role(&path), role);
            assert_eq!(Repodata.lists_packages(&path), lists, "{path}");
        }
    }
}
