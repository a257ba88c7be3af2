//! `Packages.diff/Index`: which patches lead to the newest index.

use std::collections::BTreeMap;

use boatyard_oci::{Algorithm, Digest};

use super::release::{entry, is_below};
use super::stanza::Stanza;
use crate::generation::Child;

/// The most bytes of such an index: those of the largest archives have 50,000.
pub const INDEX_LEN_MAX: u64 = 8 << 20;
/// The most patches that one lists.
const PATCHES_MAX: usize = 100_000;

/// Returns the patches, by their file names, with what they hash to as they are downloaded.
///
/// > "SHA256-Download: [...] checksum, size and name of the compressed patch files"
/// > (Debian repository format)
pub fn parse(text: &[u8]) -> BTreeMap<Box<str>, Child> {
    let stanza = Stanza::of(text);
    let lists =
        [("SHA256-Download", Algorithm::Sha256, 64), ("SHA512-Download", Algorithm::Sha512, 128)];
    let mut patches: BTreeMap<Box<str>, Child> = BTreeMap::new();
    for (list, algorithm, hex_len) in lists {
        for line in stanza.field(list).unwrap_or_default().lines().map(str::trim) {
            let Some((hex, size, name)) = entry(line, hex_len) else { continue };
            let hex = hex.to_ascii_lowercase();
            let Ok(digest) = Digest::from_parts(algorithm, &hex) else { continue };
            if name.contains('/') || !is_below(name) || patches.len() >= PATCHES_MAX {
                continue;
            }
            let child = Child { size, digest, aliases: Vec::new() };
            let alias = format!("{}/{hex}", algorithm.name());
            patches.entry(name.into()).or_insert(child).aliases.push(alias.into());
        }
    }
    patches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_what_is_downloaded() {
        let (a, b) = ("a".repeat(64), "b".repeat(128));
        let text = format!(
            "SHA256-Current: {a} 100\nSHA256-History:\n {a} 90 one\nSHA256-Patches:\n {a} 9 one\n\
             SHA256-Download:\n {a} 5 one.gz\n {a} 5 ../two.gz\n oops\nSHA512-Download:\n {b} 5 one.gz\n"
        );
        let patches = parse(text.as_bytes());
        assert_eq!(patches.len(), 1);
        assert!(
            patches["one.gz"].is_named("sha512", &b) && patches["one.gz"].is_named("sha256", &a)
        );
        assert_eq!(parse(b"\xff\0nothing"), BTreeMap::new());
    }
}
