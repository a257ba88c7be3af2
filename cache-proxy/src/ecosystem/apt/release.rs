//! `Release`: the root of a suite.

use std::collections::BTreeMap;

use boatyard_oci::{Algorithm, Digest};

use super::date;
use super::stanza::Stanza;
use crate::generation::{Child, Listing};

/// The most bytes of a Release file: those of the largest archives have 300,000.
pub const RELEASE_LEN_MAX: u64 = 32 << 20;
/// The most files that one lists.
const FILES_MAX: usize = 500_000;

/// Why a text is not a Release file that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// It lists no file with a digest that is still trusted.
    #[error("it lists no file with a SHA-256 or SHA-512 digest")]
    NoFiles,
    /// It lists more than any archive does.
    #[error("it lists more than {FILES_MAX} files")]
    TooMany,
    /// A line of a list is none.
    #[error("a line of its {list} list makes no sense: `{line}`")]
    Line {
        /// The list.
        list: &'static str,
        /// The line, shortened.
        line: String,
    },
    /// A date is none.
    #[error("its {field} is no date: `{text}`")]
    Date {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
    },
}

/// Reads a Release file.
///
/// > "MD5Sum, SHA1, SHA256, SHA512: [...] Those fields shall be multi-line fields containing
/// > multiple lines of whitespace separated data. Each line shall contain: The checksum of the file
/// > [...]; the size of the file; the filename relative to the directory of the Release file"
/// > (Debian repository format)
///
/// # Errors
/// Where it is none, or lists nothing that can be checked.
pub fn parse(text: &[u8]) -> Result<Listing, ReleaseError> {
    let stanza = Stanza::of(text);
    let day = |field| match stanza.field(field) {
        None => Ok(None),
        Some(text) => match date::parse(text) {
            Some(time) => Ok(Some(time)),
            None => Err(ReleaseError::Date { field, text: shorten(text) }),
        },
    };
    let mut files: BTreeMap<&str, Sums<'_>> = BTreeMap::new();
    for (list, hex_len) in [("SHA256", 64), ("SHA512", 128), ("MD5Sum", 32)] {
        for line in stanza.field(list).unwrap_or_default().lines().map(str::trim) {
            if line.is_empty() {
                continue;
            }
            let (hex, size, path) = entry(line, hex_len)
                .ok_or_else(|| ReleaseError::Line { list, line: shorten(line) })?;
            if !is_below(path) {
                continue;
            }
            let sums = files.entry(path).or_default();
            match list {
                "SHA256" => (sums.sha256, sums.size) = (Some(hex), size),
                "SHA512" => {
                    sums.sha512 = Some(hex);
                    if sums.sha256.is_none() {
                        sums.size = size;
                    }
                }
                _ => sums.md5 = Some(hex),
            }
        }
        if files.len() > FILES_MAX {
            return Err(ReleaseError::TooMany);
        }
    }
    let children: BTreeMap<Box<str>, Child> = files
        .into_iter()
        .filter_map(|(path, sums)| Some((path.into(), sums.into_child()?)))
        .collect();
    if children.is_empty() {
        return Err(ReleaseError::NoFiles);
    }
    let by_hash = stanza.field("Acquire-By-Hash");
    Ok(Listing {
        date: day("Date")?,
        valid_until: day("Valid-Until")?,
        by_digest: by_hash.is_some_and(|value| value.eq_ignore_ascii_case("yes")),
        children,
    })
}

#[derive(Default)]
struct Sums<'a> {
    size: u64,
    sha256: Option<&'a str>,
    sha512: Option<&'a str>,
    md5: Option<&'a str>,
}

impl Sums<'_> {
    /// Returns the child; `None` where only a digest is there that can be forged.
    fn into_child(self) -> Option<Child> {
        let digest = match (self.sha256, self.sha512) {
            (Some(hex), _) => Digest::from_parts(Algorithm::Sha256, &hex.to_ascii_lowercase()),
            (None, Some(hex)) => Digest::from_parts(Algorithm::Sha512, &hex.to_ascii_lowercase()),
            (None, None) => return None,
        };
        let alias = |name: &str, hex: Option<&str>| {
            hex.map(|hex| format!("{name}/{}", hex.to_ascii_lowercase()).into())
        };
        let other = if self.sha256.is_some() { self.sha512 } else { None };
        let aliases = alias("sha512", other).into_iter().chain(alias("md5", self.md5)).collect();
        Some(Child { size: self.size, digest: digest.ok()?, aliases })
    }
}

/// Reads `<hex> <size> <path>`.
pub(super) fn entry(line: &str, hex_len: usize) -> Option<(&str, u64, &str)> {
    let (hex, rest) = line.split_once([' ', '\t'])?;
    let (size, path) = rest.trim_start().split_once([' ', '\t'])?;
    let is_hex = hex.len() == hex_len && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((is_hex.then_some(hex)?, size.parse().ok()?, path.trim_start()))
}

/// Says whether a path leads down only.
pub(super) fn is_below(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\0', '\\', '\t'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digit: &str, len: usize) -> String {
        digit.repeat(len)
    }

    #[test]
    fn reads_the_lists() {
        let (a, b, c) = (hex("a", 64), hex("b", 128), hex("c", 32));
        let text = format!(
            "Origin: Debian\nSuite: stable\nDate: Sat, 21 Nov 2026 19:30:00 UTC\n\
             Valid-Until: Sat, 28 Nov 2026 19:30:00 UTC\nAcquire-By-Hash: yes\n\
             MD5Sum:\n {c} 7 main/binary-amd64/Packages\n {c} 9 only-md5\n\
             SHA256:\n {a}    7 main/binary-amd64/Packages\n {a} 7 ../../etc/passwd\n {a} 7 /etc\n\
             SHA512:\n {b} 7 main/binary-amd64/Packages\n {b} 8 main/Contents-amd64.gz\n"
        );
        let listing = parse(text.as_bytes()).unwrap();
        assert!(listing.by_digest);
        assert_eq!(listing.valid_until.unwrap().as_second(), 1_795_289_400 + 7 * 86_400);
        let paths: Vec<&str> = listing.children.keys().map(|path| &**path).collect();
        assert_eq!(paths, ["main/Contents-amd64.gz", "main/binary-amd64/Packages"]);
        let packages = &listing.children["main/binary-amd64/Packages"];
        assert_eq!(packages.digest.to_string(), format!("sha256:{a}"));
        assert!(packages.is_named("sha512", &b) && packages.is_named("md5", &c));
        assert_eq!(
            listing.children["main/Contents-amd64.gz"].digest.to_string(),
            format!("sha512:{b}")
        );
        let found = listing.named("main/binary-amd64/", "sha256", &a);
        assert_eq!(found.map(|(path, _)| path), Some("main/binary-amd64/Packages"));
        assert_eq!(listing.named("main/", "sha256", &a), None);
    }

    #[test]
    fn refuses_what_cannot_be_checked() {
        let (a, c) = (hex("a", 64), hex("c", 32));
        let table = [
            ("<html><body>Please log in</body></html>".to_owned(), ReleaseError::NoFiles),
            (format!("MD5Sum:\n {c} 7 Packages\n"), ReleaseError::NoFiles),
            (
                format!("SHA256:\n {a} many Packages\n"),
                ReleaseError::Line { list: "SHA256", line: format!("{a} many Packages") },
            ),
            (
                format!("Date: today\nSHA256:\n {a} 7 Packages\n"),
                ReleaseError::Date { field: "Date", text: "today".to_owned() },
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), Err(expected), "{text}");
        }
    }
}
