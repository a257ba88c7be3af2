//! dpkg's database: `/var/lib/dpkg/status`, and `status.d/` of images that are put together without
//! dpkg.

use super::package::{Kind, Package};

/// Reads the packages that are installed.
pub(super) fn packages(text: &str, path: &str) -> Vec<Package> {
    text.split("\n\n").filter_map(|stanza| package(stanza, path)).collect()
}

fn package(stanza: &str, path: &str) -> Option<Package> {
    let field = |key: &str| {
        let line = stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::trim).filter(|value| !value.is_empty())
    };
    // "want error status": one that is removed, or only configured, is not there. status.d has none.
    let status = field("Status").unwrap_or("install ok installed");
    if status.rsplit(' ').next() != Some("installed") {
        return None;
    }
    let mut package = Package::new(Kind::Deb, field("Package")?, field("Version")?, path);
    package.architecture = field("Architecture").map(str::to_owned);
    // "Source: glibc" or "Source: glibc (2.36-9)".
    package.upstream = field("Source").map(|source| {
        let mut words = source.split_whitespace();
        let name = words.next().unwrap_or_default();
        match words.next().map(|version| version.trim_matches(['(', ')'])) {
            Some(version) => format!("{name}@{version}"),
            None => name.to_owned(),
        }
    });
    Some(package)
}
