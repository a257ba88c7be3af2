//! What a build takes from elsewhere, beside images: files of URLs, and Git repositories.
//!
//! The builder says what it wants, and [`Fetch`] brings it: nothing here opens a connection.

pub mod git;

use std::error::Error;
use std::fs::File;
use std::path::Path;

use jiff::Timestamp;

use crate::base::Say;
use git::GitAddress;

/// Why something cannot be had.
pub type FetchError = Box<dyn Error + Send + Sync>;

/// Brings what a build names.
///
/// Each call blocks until all is there. What was brought once is kept, and asked for again only
/// where it may have changed: a file with a checksum and a full commit never are.
pub trait Fetch: Sync {
    /// Returns the file of a URL. With a checksum it is that file, or an error.
    ///
    /// # Errors
    /// Where it is not here and cannot be fetched, or is another one.
    fn file(
        &self,
        url: &str,
        checksum: Option<&Checksum>,
        say: &Say<'_>,
    ) -> Result<FetchedFile, FetchError>;

    /// Returns the commit that a repository's reference means now.
    ///
    /// # Errors
    /// Where the repository cannot be asked, or has no such reference.
    fn commit(&self, address: &GitAddress, say: &Say<'_>) -> Result<String, FetchError>;

    /// Writes the files of a commit into an empty directory.
    ///
    /// # Errors
    /// Where the commit cannot be had, or is not what a checksum promised.
    fn checkout(
        &self,
        address: &GitAddress,
        commit: &str,
        keep_git_dir: bool,
        into: &Path,
        say: &Say<'_>,
    ) -> Result<(), FetchError>;
}

/// A file that was fetched.
#[derive(Debug)]
pub struct FetchedFile {
    /// Its bytes; nobody changes them.
    pub file: File,
    /// Their number.
    pub size: u64,
    /// Their BLAKE3.
    pub content: [u8; 32],
    /// `Last-Modified`.
    pub modified: Option<Timestamp>,
    /// The name that `Content-Disposition` gives it.
    pub name: Option<String>,
    /// No byte of it came over the network now.
    pub was_here: bool,
}

/// What a file is promised to hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How.
    pub algorithm: ChecksumAlgorithm,
    /// The hash, in lower-case hexadecimal digits.
    pub hex: String,
}

/// How a checksum is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            ChecksumAlgorithm::Sha256 => "sha256",
            ChecksumAlgorithm::Sha384 => "sha384",
            ChecksumAlgorithm::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            ChecksumAlgorithm::Sha256 => 64,
            ChecksumAlgorithm::Sha384 => 96,
            ChecksumAlgorithm::Sha512 => 128,
        }
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Why a text is no checksum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChecksumError {
    /// It does not begin with a name that we know.
    #[error("`{0}` is no checksum: it begins with sha256:, sha384: or sha512:")]
    Algorithm(String),
    /// The rest of it is not as many hexadecimal digits as it must be.
    #[error("`{text}` is no checksum: {length} digits from 0 to 9 and a to f follow `{name}:`")]
    Digits {
        /// The text.
        text: String,
        /// The algorithm.
        name: &'static str,
        /// How many.
        length: usize,
    },
}

impl std::str::FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ChecksumAlgorithm::{Sha256, Sha384, Sha512};
        let unknown = || ChecksumError::Algorithm(text.to_owned());
        let (name, hex) = text.split_once(':').ok_or_else(unknown)?;
        let algorithm = [Sha256, Sha384, Sha512].into_iter().find(|it| it.name() == name);
        let algorithm = algorithm.ok_or_else(unknown)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(is_digit) {
            return Err(ChecksumError::Digits {
                text: text.to_owned(),
                name: algorithm.name(),
                length: algorithm.hex_len(),
            });
        }
        Ok(Checksum { algorithm, hex: hex.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums() {
        for (name, length) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            let text = format!("{name}:{}", "0a".repeat(length / 2));
            assert_eq!(text.parse::<Checksum>().unwrap().to_string(), text);
            for bad in [format!("{text}0"), text.to_uppercase(), text.replace('a', "g")] {
                assert!(bad.parse::<Checksum>().is_err(), "{bad}");
            }
        }
        assert!("md5:00".parse::<Checksum>().is_err());
        assert!("00".parse::<Checksum>().is_err());
    }
}
