//! What the path of a URL says of an archive: which suite, which part of it.
//!
//! ```text
//! <archive>/dists/<suite>/InRelease                     a suite's root
//! <archive>/dists/<suite>/main/binary-amd64/Packages.xz
//! <archive>/dists/<suite>/main/binary-amd64/by-hash/SHA256/<hex>
//! <archive>/pool/main/h/hello/hello_2.10-3_amd64.deb
//! <archive>/<directory>/InRelease                       a flat repository's root
//! ```

pub use crate::generation::sets::{directories, split};

/// The files that a suite's root consists of: signed in place, or beside.
pub const ROOTS: [&str; 3] = ["InRelease", "Release", "Release.gpg"];

/// A path that names one of the files of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootPath<'a> {
    /// The directory of the suite, with a slash at its end.
    pub directory: &'a str,
    /// Which of [`ROOTS`].
    pub name: &'a str,
}

/// Returns the root that a path names; `None` where it names none.
pub fn root(path: &str) -> Option<RootPath<'_>> {
    let (directory, name) = split(path);
    if !ROOTS.contains(&name) {
        return None;
    }
    // Each architecture of a component has a `Release` too, which lists nothing.
    let mut above = directory.trim_end_matches('/').rsplit('/');
    let last = above.next().unwrap_or_default();
    let is_part = last.starts_with("binary-") || matches!(last, "source" | "debian-installer");
    let suite = directory.rsplit_once("/dists/").map(|(_, suite)| suite);
    if suite == Some("") || is_part && suite.is_some() {
        return None;
    }
    Some(RootPath { directory, name })
}

/// Returns the directory of the archive to which a suite's directory belongs: file names in its
/// indexes start there. For a flat repository that is its own, or one above: `None`.
pub fn archive(directory: &str) -> Option<&str> {
    let at = directory.rfind("/dists/")?;
    Some(&directory[..=at])
}

/// A child that is asked for by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHash<'a> {
    /// The directory of the child, with a slash at its end.
    pub directory: &'a str,
    /// The algorithm, as the store calls it.
    pub algorithm: &'static str,
    /// The digits.
    pub hex: String,
}

/// Reads `<directory>/by-hash/SHA256/<hex>`.
pub fn by_hash(path: &str) -> Option<ByHash<'_>> {
    let (rest, hex) = path.rsplit_once('/')?;
    let (rest, list) = rest.rsplit_once('/')?;
    let directory = rest.strip_suffix("by-hash")?;
    let (algorithm, len) = match list {
        "SHA256" => ("sha256", 64),
        "SHA512" => ("sha512", 128),
        "MD5Sum" => ("md5", 32),
        _ => return None,
    };
    let is_hex = hex.len() == len && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_whole = directory.is_empty() || directory.ends_with('/');
    (is_hex && is_whole).then(|| ByHash { directory, algorithm, hex: hex.to_ascii_lowercase() })
}

/// Says whether an index lists package files: `Packages` and `Sources`, in any packing.
pub fn lists_packages(path: &str) -> bool {
    let (_, name) = split(path);
    let stem = name.split('.').next().unwrap_or_default();
    matches!(stem, "Packages" | "Sources") && !name.ends_with(".diff") && !path.contains(".diff/")
}

/// Returns the index of the patches to which a path belongs: `Packages.diff/Index`.
pub fn patches(path: &str) -> Option<String> {
    let (directory, name) = split(path);
    let is_patch = directory.ends_with(".diff/") && name != "Index";
    is_patch.then(|| format!("{directory}Index"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots() {
        let table = [
            ("/debian/dists/stable/InRelease", Some("/debian/dists/stable/")),
            ("/debian/dists/stable/updates/Release.gpg", Some("/debian/dists/stable/updates/")),
            ("/debian/dists/stable/main/binary-amd64/Release", None),
            ("/debian/dists/stable/main/source/Release", None),
            ("/debian/dists/Release", None),
            ("/flat/InRelease", Some("/flat/")),
            ("/flat/binary-amd64/Release", Some("/flat/binary-amd64/")),
            ("/InRelease", Some("/")),
            ("/flat/Packages", None),
        ];
        for (path, expected) in table {
            assert_eq!(root(path).map(|root| root.directory), expected, "{path}");
        }
        assert_eq!(archive("/debian/dists/stable/"), Some("/debian/"));
        assert_eq!(archive("/dists/stable/"), Some("/"));
        assert_eq!(archive("/flat/"), None);
    }

    #[test]
    fn children() {
        let hex = "A".repeat(64);
        let path = format!("main/binary-amd64/by-hash/SHA256/{hex}");
        let found = by_hash(&path).unwrap();
        assert_eq!((found.directory, found.algorithm), ("main/binary-amd64/", "sha256"));
        assert_eq!(found.hex, "a".repeat(64));
        assert!(by_hash(&format!("by-hash/SHA256/{hex}")).is_some());
        assert!(by_hash(&format!("xby-hash/SHA256/{hex}")).is_none());
        assert!(by_hash(&format!("by-hash/SHA1/{hex}")).is_none());
        assert!(by_hash("by-hash/SHA256/..").is_none());
        assert!(lists_packages("main/binary-amd64/Packages.xz") && lists_packages("Sources"));
        assert!(!lists_packages("main/binary-amd64/Packages.diff/Index"));
        assert!(!lists_packages("main/Contents-amd64.gz"));
        let index = patches("main/binary-amd64/Packages.diff/T-1-F-2.gz");
        assert_eq!(index.as_deref(), Some("main/binary-amd64/Packages.diff/Index"));
        assert_eq!(patches("main/binary-amd64/Packages.diff/Index"), None);
    }
}
