//! What the addresses of a registry mean.
//!
//! ```text
//! config.json                              where the rest is
//! 1/a  2/ab  3/a/abc  ab/cd/abcdef         the file of a crate in the index
//! -/crates/NAME/VERSION/SHA256.crate       a crate, as we write it into config.json
//! -/api/...                                the registry's own interface, likewise
//! ```

use std::fmt;

use boatyard_oci::Digest;

use crate::request::Request;
use crate::target::Target;

/// The longest name or version that is looked at.
const NAME_MAX: usize = 128;

/// What lies in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What says where the rest is.
    Config,
    /// The file of a crate in the index.
    Index,
    /// A crate under the address that we gave it.
    Crate(Version, Digest),
    /// A part of the registry's own interface, with the query.
    Api(String),
    /// A crate where the registry has it.
    Download,
}

/// A version of a crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The crate.
    pub(super) name: String,
    /// The version.
    pub(super) number: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.number)
    }
}

impl Version {
    /// Returns a version, if both can be what they say.
    pub(super) fn of(name: &str, number: &str) -> Option<Version> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let is_name = !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
        let is_number = number.starts_with(|first: char| first.is_ascii_digit())
            && number.len() <= NAME_MAX
            && number.bytes().all(plain);
        let version = || Version { name: name.to_owned(), number: number.to_owned() };
        (is_name && is_number).then(version)
    }
}

/// A target that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The index, which ends in `/`.
    pub(super) index: Target,
    /// What lies there.
    pub(super) kind: Kind,
}

impl Address {
    /// Understands the target of a request; what others may have too only where cargo asks.
    pub(super) fn of(request: &Request, is_cargo: bool) -> Option<Address> {
        let target = &request.target;
        if let Some(upstream) = &request.upstream
            && upstream.ecosystem.as_deref() == Some("cargo")
        {
            let below = upstream.below(target)?;
            let index = upstream.target("").ok()?;
            return Some(Address { index, kind: kind(below)? });
        }
        if !is_cargo || target.url().query().is_some() {
            return None;
        }
        let path = target.path();
        if versions(path).next().is_some() {
            return Some(Address { index: target.at("/").ok()?, kind: Kind::Download });
        }
        if let Some(above) = path.strip_suffix("config.json").filter(|above| above.ends_with('/')) {
            return Some(Address { index: target.at(above).ok()?, kind: Kind::Config });
        }
        let last = path.rsplit('/').next()?;
        let above = path.strip_suffix(&file_of(last)).filter(|above| above.ends_with('/'))?;
        (!last.is_empty()).then_some(())?;
        Some(Address { index: target.at(above).ok()?, kind: Kind::Index })
    }
}

/// Understands what lies below an index.
fn kind(below: &str) -> Option<Kind> {
    if below == "config.json" {
        return Some(Kind::Config);
    }
    if let Some(api) = below.strip_prefix("-/").filter(|below| below.starts_with("api/")) {
        return Some(Kind::Api(api.to_owned()));
    }
    if let Some(below) = below.strip_prefix("-/crates/") {
        let (name, rest) = below.split_once('/')?;
        let (number, file) = rest.split_once('/')?;
        let sum = format!("sha256:{}", file.strip_suffix(".crate")?).parse().ok()?;
        let number = number.replace("%2B", "+");
        return Some(Kind::Crate(Version::of(name, &number)?, sum));
    }
    let last = below.rsplit('/').next()?;
    if !last.is_empty() && below == file_of(last) {
        return Some(Kind::Index);
    }
    versions(&format!("/{below}")).next().map(|_| Kind::Download)
}

/// Returns the path of the file of a crate in an index.
pub(super) fn file_of(name: &str) -> String {
    let name = name.to_lowercase();
    let directory = directory(&name);
    format!("{directory}/{name}")
}

/// Returns the directory of the file of a crate in an index: `{prefix}`.
pub(super) fn directory(name: &str) -> String {
    let part = |from: usize, to: usize| name.get(from..to).unwrap_or_default();
    match name.len() {
        1 | 2 => name.len().to_string(),
        3 => format!("3/{}", part(0, 1)),
        _ => format!("{}/{}", part(0, 2), part(2, 4)),
    }
}

/// Returns the versions that the path of a crate may be of.
pub(super) fn versions(path: &str) -> impl Iterator<Item = Version> {
    let path = path.replace("%2B", "+");
    let mut segments = path.rsplit('/');
    let (last, before, above) = (segments.next(), segments.next(), segments.next());
    let mut versions = Vec::new();
    if last == Some("download") {
        versions.extend(Version::of(above.unwrap_or_default(), before.unwrap_or_default()));
    }
    if let Some(file) = last.and_then(|last| last.strip_suffix(".crate")) {
        let hyphens = file.match_indices('-');
        versions.extend(
            hyphens.filter_map(|(at, _)| Version::of(&file[..at], &file[at + 1..])).take(4),
        );
    }
    versions.into_iter()
}
