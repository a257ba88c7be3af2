//! What an archive's index sets look like, as [`crate::generation`] has to know it.

use std::collections::BTreeMap;
use std::error::Error;

use super::release::{self, ReleaseError};
use super::signature::{self, Fit};
use super::{address, clearsign, packages, pdiff};
use crate::generation::catalogue::{CatalogueError, Records};
use crate::generation::unpack::Unpacked;
use crate::generation::{Child, Format, Listing, RootFile};

/// The suites of archives, and flat repositories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Suites;

/// Why files are not the root of a suite.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The frame of an `InRelease`.
    #[error("InRelease: {0}")]
    Frame(#[source] clearsign::ClearsignError),
    /// The text.
    #[error("{name}: {why}")]
    Release {
        /// Which file.
        name: String,
        /// Why.
        why: ReleaseError,
    },
    /// Two files of different times, or damaged ones.
    #[error("the signature of {name} was made of other bytes")]
    Signature {
        /// Which file.
        name: String,
    },
    /// Nothing.
    #[error("there is no file")]
    Empty,
}

impl Format for Suites {
    fn kind(&self) -> &'static str {
        "apt"
    }

    fn forms(&self) -> &'static [&'static [&'static str]] {
        &[&["InRelease"], &["Release", "Release.gpg"]]
    }

    fn read(&self, files: &[RootFile<'_>]) -> Result<Listing, Box<dyn Error + Send + Sync>> {
        Ok(read(files)?)
    }

    fn agrees(&self, root: &[RootFile<'_>], other: RootFile<'_>) -> bool {
        let Some(text) = root.first().and_then(text) else { return false };
        match other.name {
            // A signed text ends with one line feed, whatever it ended with before.
            "Release.gpg" => [text.as_slice(), text.trim_ascii_end()]
                .iter()
                .any(|text| signature::detached(other.bytes, text) == Fit::Fits),
            _ => self::text(&other)
                .is_some_and(|other| other.trim_ascii_end() == text.trim_ascii_end()),
        }
    }

    fn index_of(&self, path: &str) -> Option<String> {
        address::patches(path)
    }

    fn read_index(&self, path: &str, bytes: &[u8]) -> BTreeMap<Box<str>, Child> {
        let (directory, _) = address::split(path);
        let below = |(name, child): (Box<str>, Child)| (format!("{directory}{name}").into(), child);
        pdiff::parse(bytes).into_iter().map(below).collect()
    }

    fn places(&self, path: &str, child: &Child, by_digest: bool) -> Vec<String> {
        let (directory, _) = address::split(path);
        let list = child.digest.algorithm().name().to_ascii_uppercase();
        let by_hash = format!("{directory}by-hash/{list}/{}", child.digest.hex());
        let by_hash = by_digest.then_some(by_hash);
        by_hash.into_iter().chain([path.to_owned()]).collect()
    }

    fn lists_packages(&self, path: &str) -> bool {
        address::lists_packages(path)
    }

    fn packages(
        &self,
        _path: &str,
        index: Unpacked,
        records: &mut Records,
    ) -> Result<(), CatalogueError> {
        packages::read(index, records)
    }

    /// > "User-Agent: Debian APT-HTTP/1.3 (2.6.1)": one process, and one connection, for each host.
    fn keeps_connection(&self, agent: &str) -> bool {
        agent.starts_with("Debian APT")
    }
}

fn read(files: &[RootFile<'_>]) -> Result<Listing, RootError> {
    let [root, others @ ..] = files else { return Err(RootError::Empty) };
    let wrong = || RootError::Signature { name: root.name.to_owned() };
    let text = if root.name == "InRelease" {
        let signed = clearsign::parse(root.bytes).map_err(RootError::Frame)?;
        if signature::clearsigned(&signed) == Fit::Differs {
            return Err(wrong());
        }
        signed.text
    } else {
        if others.iter().any(|gpg| signature::detached(gpg.bytes, root.bytes) == Fit::Differs) {
            return Err(wrong());
        }
        root.bytes.to_vec()
    };
    release::parse(&text).map_err(|why| RootError::Release { name: root.name.to_owned(), why })
}

/// Returns the text of a root, without the frame of a signature.
fn text(file: &RootFile<'_>) -> Option<Vec<u8>> {
    if clearsign::is_clearsigned(file.bytes) {
        return Some(clearsign::parse(file.bytes).ok()?.text);
    }
    Some(file.bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_child() {
        let digest = boatyard_oci::Digest::sha256(b"x");
        let child = Child { size: 1, digest: digest.clone(), aliases: Vec::new() };
        let by_hash = format!("main/by-hash/SHA256/{}", digest.hex());
        assert_eq!(
            Suites.places("main/Packages.xz", &child, true),
            [by_hash.as_str(), "main/Packages.xz"]
        );
        assert_eq!(Suites.places("Packages.xz", &child, false), ["Packages.xz"]);
    }

    #[test]
    fn files_of_a_root_belong_together() {
        let text = format!("Suite: x\nSHA256:\n {} 1 Packages\n", "a".repeat(64));
        let file = |name, bytes| RootFile { name, bytes };
        let release = file("Release", text.as_bytes());
        assert_eq!(read(&[release]).unwrap().children.len(), 1);
        assert!(read(&[file("InRelease", text.as_bytes())]).is_err());
        assert!(read(&[]).is_err());
        assert!(Suites.agrees(&[release], file("Release", text.trim_end().as_bytes())));
        assert!(!Suites.agrees(&[release], file("Release", b"Suite: y\n")));
        assert!(!Suites.agrees(&[release], file("Release.gpg", b"not armored")));
    }
}
