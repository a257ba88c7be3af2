//! What a document says of a package's versions: where their tarballs are, and what vouches for
//! them.

use std::collections::HashMap;
use std::io::{self, Read};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::integrity::Integrity;
use super::name::PackageName;
use crate::ecosystem::json::{self, Members};

/// The most versions that are read.
const VERSIONS_MAX: usize = 200_000;
/// The longest address.
const ADDRESS_MAX: usize = 4096;

/// What a document says.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// The tarballs, by the names of their files.
    tarballs: HashMap<String, usize>,
    /// The versions, in the order of the document.
    pub(super) versions: Vec<Version>,
    /// The tags, and the versions that they point at.
    pub(super) tags: Vec<(String, String)>,
}

/// What it says of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Which.
    pub(super) number: String,
    /// The address of its tarball, as it is written.
    pub(super) tarball: String,
    /// What vouches for the tarball.
    pub(super) integrity: Integrity,
    /// When it was published, where the document says so.
    pub(super) published: Option<Timestamp>,
    /// What its authors say against it.
    pub(super) deprecated: Option<String>,
}

/// The members of a version that are understood. A member of a strange type is as good as none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Known {
    dist: Dist,
    deprecated: serde_json::Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Dist {
    tarball: Option<String>,
    integrity: Option<String>,
    shasum: Option<String>,
}

impl Catalogue {
    /// Reads a package's document.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn read(name: &PackageName, from: impl Read) -> io::Result<Catalogue> {
        let mut reading = Reading { name, times: HashMap::new(), catalogue: Catalogue::default() };
        json::read(from, &mut reading)?;
        let Reading { times, mut catalogue, .. } = reading;
        for version in &mut catalogue.versions {
            version.published = times.get(&version.number).copied();
        }
        Ok(catalogue)
    }

    /// Returns the version that a tarball's file is of.
    pub(super) fn tarball(&self, file: &str) -> Option<&Version> {
        self.tarballs.get(file).map(|at| &self.versions[*at])
    }

    /// Returns about how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        let of = |version: &Version| {
            let said = version.deprecated.as_ref().map_or(0, String::len);
            512 + version.tarball.len() + 2 * version.number.len() + said
        };
        256 + self.versions.iter().map(of).sum::<usize>() + self.tags.len() * 64
    }

    fn add(&mut self, name: &PackageName, number: &str, value: &RawValue) {
        let Ok(known) = serde_json::from_str::<Known>(value.get()) else { return };
        let Dist { tarball, integrity, shasum } = known.dist;
        let Some(tarball) = tarball.filter(|tarball| tarball.len() <= ADDRESS_MAX) else { return };
        if self.versions.len() == VERSIONS_MAX {
            return;
        }
        let at = self.versions.len();
        let path = tarball.split(['?', '#']).next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(ours) = name.tarball(number) {
            self.tarballs.insert(ours, at);
        }
        // Where names of files differ from the usual ones, `npm` still asks for these.
        self.tarballs.entry(file).or_insert(at);
        let deprecated = match known.deprecated {
            serde_json::Value::String(text) if !text.is_empty() => Some(text),
            serde_json::Value::Bool(true) => Some(String::new()),
            _ => None,
        };
        let integrity = Integrity::of(integrity.as_deref(), shasum.as_deref());
        let number = number.to_owned();
        self.versions.push(Version { number, tarball, integrity, published: None, deprecated });
    }
}

struct Reading<'n> {
    name: &'n PackageName,
    times: HashMap<String, Timestamp>,
    catalogue: Catalogue,
}

impl Members for Reading<'_> {
    fn enters(&mut self, key: &str) -> bool {
        matches!(key, "versions" | "time" | "dist-tags")
    }

    fn begin(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn member(&mut self, of: Option<&str>, key: &str, value: &RawValue) -> io::Result<()> {
        match of {
            Some("versions") => self.catalogue.add(self.name, key, value),
            Some("time") if self.times.len() < VERSIONS_MAX => {
                let text = serde_json::from_str::<String>(value.get()).ok();
                if let Some(time) = text.and_then(|text| text.parse().ok()) {
                    self.times.insert(key.to_owned(), time);
                }
            }
            Some("dist-tags") if self.catalogue.tags.len() < VERSIONS_MAX => {
                if let Ok(version) = serde_json::from_str::<String>(value.get()) {
                    self.catalogue.tags.push((key.to_owned(), version));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &str, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tarballs_are_found_by_their_files() {
        let document = r#"{"versions":{
            "1.0.0":{"dist":{"tarball":"http://r.example/p/-/p-1.0.0.tgz","shasum":"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33"}},
            "2.0.0":{"dist":{"tarball":"http://r.example/download/abc?x"},"deprecated":"no more"},
            "3.0.0":{"dist":5},"4.0.0":{},"5.0.0":null},
            "time":{"1.0.0":"2026-01-01T00:00:00.000Z","2.0.0":"yesterday","3.0.0":4},
            "dist-tags":{"latest":"2.0.0","bad":1}}"#;
        let name = PackageName::parse("@s/p").unwrap();
        let catalogue = Catalogue::read(&name, document.as_bytes()).unwrap();
        assert_eq!(catalogue.versions.len(), 2);
        let first = catalogue.tarball("p-1.0.0.tgz").unwrap();
        assert!(matches!(first.integrity, Integrity::Weak(_)) && first.published.is_some());
        let second = catalogue.tarball("abc").unwrap();
        assert_eq!(catalogue.tarball("p-2.0.0.tgz"), Some(second));
        assert_eq!(second.deprecated.as_deref(), Some("no more"));
        assert_eq!(catalogue.tags, [("latest".to_owned(), "2.0.0".to_owned())]);
        assert!(catalogue.tarball("p-3.0.0.tgz").is_none());
        assert!(Catalogue::read(&name, &b"<html>"[..]).is_err());
    }
}
