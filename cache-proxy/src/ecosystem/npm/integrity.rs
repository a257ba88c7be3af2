//! What a document says of a tarball's bytes.
//!
//! > "sha512-<base64>", several of them separated by spaces (Subresource Integrity, section 3.5)

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boatyard_oci::Digest;
use boatyard_oci::digest::Hasher;
use sha1::{Digest as _, Sha1};

/// What vouches for bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Integrity {
    /// A digest that the store knows.
    Strong(Digest),
    /// What old packages have, and nothing else: their SHA-1.
    Weak([u8; 20]),
    /// Nothing.
    Nothing,
}

impl Integrity {
    /// Reads `dist.integrity` and `dist.shasum`: the strongest of what is in them.
    pub(super) fn of(integrity: Option<&str>, shasum: Option<&str>) -> Integrity {
        let named = |prefix: &str, algorithm: &str| {
            let mut all = integrity.unwrap_or_default().split_ascii_whitespace();
            let base64 = all.find_map(|one| one.strip_prefix(prefix))?;
            let base64 = base64.split('?').next().unwrap_or_default();
            let bytes = STANDARD.decode(base64).ok()?;
            format!("{algorithm}:{}", hex(&bytes)).parse::<Digest>().ok()
        };
        if let Some(digest) = named("sha512-", "sha512").or_else(|| named("sha256-", "sha256")) {
            return Integrity::Strong(digest);
        }
        let sha1 = integrity
            .unwrap_or_default()
            .split_ascii_whitespace()
            .find_map(|one| STANDARD.decode(one.strip_prefix("sha1-")?).ok());
        sha1.or_else(|| unhex(shasum?))
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(Integrity::Nothing, Integrity::Weak)
    }

    /// Reads bytes and says whether they are what it vouches for.
    pub(super) fn holds(&self, mut from: impl Read) -> io::Result<bool> {
        let mut buffer = vec![0; 64 * 1024];
        let mut sha1 = Sha1::new();
        let mut strong = match self {
            Integrity::Strong(digest) => Some(Hasher::new(digest.algorithm())),
            _ => None,
        };
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            match &mut strong {
                Some(strong) => strong.update(&buffer[..read]),
                None => sha1.update(&buffer[..read]),
            }
        }
        Ok(match (self, strong) {
            (Integrity::Strong(digest), Some(strong)) => strong.finish() == *digest,
            (Integrity::Weak(known), _) => <[u8; 20]>::from(sha1.finalize()) == *known,
            _ => true,
        })
    }

    /// Says whether the digest of a blob is of another kind, so that only reading it can tell.
    pub(super) fn is_of_another_kind(&self, blob: &Digest) -> bool {
        match self {
            Integrity::Strong(digest) => digest.algorithm() != blob.algorithm(),
            Integrity::Weak(_) => true,
            Integrity::Nothing => false,
        }
    }
}

/// Writes bytes as digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512: &str = concat!(
        "sha512-9/u6bgY2+JDlb7vzKD5STG+jIErimDgtYkdB0NxmODJuKCxBvl5CVNiCB3LFUYosWowMf37aGVlKfrU5RT4e",
        "1w=="
    );
    const SHA1: &str = "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33";

    #[test]
    fn the_strongest_word_counts() {
        let both = format!("sha1-C+7Hteo/D9vJXQ3UfzxbwnXaijM= {SHA512}?x");
        let strong = Integrity::of(Some(&both), Some(SHA1));
        assert!(matches!(&strong, Integrity::Strong(digest) if digest.hex().len() == 128));
        let weak = Integrity::of(None, Some(SHA1));
        assert!(matches!(weak, Integrity::Weak(_)));
        assert_eq!(Integrity::of(Some("sha1-C+7Hteo/D9vJXQ3UfzxbwnXaijM="), None), weak);
        for (integrity, shasum) in [
            ("", ""),
            ("sha512-", "xyz"),
            ("sha512-!!", "0b"),
            ("md5-aaaa", "é"),
            ("sha512-AAAA", ""),
        ] {
            assert_eq!(Integrity::of(Some(integrity), Some(shasum)), Integrity::Nothing);
        }
        assert!(Integrity::of(Some(&both.replace(' ', "\n")), None) == strong);
    }

    #[test]
    fn bytes_are_held_against_it() {
        for integrity in [Integrity::of(Some(SHA512), None), Integrity::of(None, Some(SHA1))] {
            assert!(integrity.holds(&b"foo"[..]).unwrap());
            assert!(!integrity.holds(&b"fop"[..]).unwrap());
        }
        assert!(Integrity::Nothing.holds(&b"any"[..]).unwrap());
    }
}
