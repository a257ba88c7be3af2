//! What the addresses of a source mean.

use crate::request::Request;
use crate::target::Target;

/// The longest name of a gem, or of a file, that is looked at.
const NAME_MAX: usize = 255;

/// What lies below a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The source itself.
    Root,
    /// All versions of all gems.
    Versions,
    /// All names.
    Names,
    /// The versions of one gem.
    Info,
    /// A gem: its file name without `.gem`.
    Gem(String),
    /// The description of one version, as Marshal writes it.
    Spec,
    /// An index, as Marshal writes it.
    Marshal,
}

impl Kind {
    /// Says whether nothing else has such addresses.
    pub(super) fn is_distinctive(&self) -> bool {
        matches!(self, Kind::Gem(_) | Kind::Spec | Kind::Marshal)
    }
}

/// A target that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The source, which ends in `/`.
    pub(super) base: Target,
    /// What lies there.
    pub(super) kind: Kind,
}

impl Address {
    /// Understands the target of a request; `None` where it is nothing of a source.
    pub(super) fn of(request: &Request) -> Option<Address> {
        let target = &request.target;
        if target.url().query().is_some() {
            return None;
        }
        let is_root = request.upstream.as_ref().is_some_and(|upstream| {
            upstream.ecosystem.as_deref() == Some("gem") && upstream.below(target) == Some("")
        });
        if is_root {
            return Some(Address { base: target.clone(), kind: Kind::Root });
        }
        let (above, kind) = kind(target.path())?;
        Some(Address { base: target.at(above).ok()?, kind })
    }
}

/// Splits a path into the source's, which ends in `/`, and what lies there.
pub(super) fn kind(path: &str) -> Option<(&str, Kind)> {
    let (directory, last) = path.rsplit_once('/')?;
    let above = |part: &str| Some(&path[..directory.strip_suffix(part)?.len()]);
    let is_name = is_name(last);
    if let Some(above) = above("/info").filter(|_| is_name) {
        return Some((slash(path, above), Kind::Info));
    }
    if let Some(above) = above("/gems")
        && let Some(file) = last.strip_suffix(".gem").filter(|_| is_name)
    {
        return Some((slash(path, above), Kind::Gem(file.to_owned())));
    }
    if let Some(above) = above("/quick/Marshal.4.8").filter(|_| is_name) {
        return last.ends_with(".gemspec.rz").then(|| (slash(path, above), Kind::Spec));
    }
    let kind = match last {
        "versions" => Kind::Versions,
        "names" => Kind::Names,
        "specs.4.8.gz"
        | "latest_specs.4.8.gz"
        | "prerelease_specs.4.8.gz"
        | "specs.4.8"
        | "latest_specs.4.8"
        | "prerelease_specs.4.8"
        | "Marshal.4.8.Z" => Kind::Marshal,
        _ => return None,
    };
    Some((slash(path, directory), kind))
}

/// Returns the part of a path with the slash that follows it.
fn slash<'a>(path: &'a str, above: &str) -> &'a str {
    &path[..above.len() + 1]
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= NAME_MAX && text.bytes().all(plain)
}

/// Splits a file name into name and version (with the platform) in every way that there is: names
/// and versions may both have hyphens. The longest name comes first.
pub(super) fn splits(file: &str) -> impl Iterator<Item = (&str, &str)> {
    file.rmatch_indices('-').filter_map(|(at, _)| {
        let (name, version) = (&file[..at], &file[at + 1..]);
        let is_version = version.starts_with(|first: char| first.is_ascii_digit());
        (is_version && !name.is_empty()).then_some((name, version))
    })
}
