//! Alpine's database of installed packages: stanzas of `X:value`.

use super::package::{Kind, Package};

/// Reads the packages that are installed.
pub(super) fn packages(text: &str, path: &str) -> Vec<Package> {
    text.split("\n\n").filter_map(|stanza| package(stanza, path)).collect()
}

fn package(stanza: &str, path: &str) -> Option<Package> {
    let field = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key));
    let mut package = Package::new(Kind::Apk, field("P:")?, field("V:")?, path);
    package.architecture = field("A:").map(str::to_owned);
    package.license = field("L:").map(str::to_owned);
    let origin = field("o:").filter(|origin| *origin != package.name);
    package.upstream = origin.map(str::to_owned);
    Some(package)
}
