//! Documents as clients get them: with addresses of tarballs that lead through us.
//!
//! `npm` fetches tarballs from its registry, whatever host their addresses name, and writes the
//! addresses into lock files: it gets the upstream's. All others fetch what the address says. Those
//! of yarn 1 go into lock files, too, so they are relative: yarn takes them to be below its
//! registry. What pnpm and later yarns write down follows from name and version alone.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::name::PackageName;
use crate::ecosystem::json::{self, Members, Writer};

/// What is made of a document. Its text is the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// The package.
    pub(super) name: String,
    /// The document is that of one version.
    pub(super) is_version: bool,
    /// How tarballs are addressed.
    pub(super) addresses: Addresses,
    /// Versions that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) without: Vec<String>,
    /// Tags that point elsewhere then; `None` where one is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tags: BTreeMap<String, Option<String>>,
}

/// How tarballs are addressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Addresses {
    /// As the upstream does it.
    Same,
    /// Below a URL that does not end in `/`.
    Below(String),
    /// Below the registry, wherever the client has that.
    Relative,
}

impl Addresses {
    /// Returns what a client needs that sees the registry at `seen`, by what it calls itself.
    pub(super) fn of(agent: &str, seen: &str) -> Addresses {
        // pnpm and yarn say `npm/?` further on.
        match agent {
            _ if agent.starts_with("npm/") => Addresses::Same,
            _ if agent.starts_with("yarn/1.") || agent.starts_with("yarn/0.") => {
                Addresses::Relative
            }
            _ => Addresses::Below(seen.to_owned()),
        }
    }

    fn tarball(&self, name: &PackageName, version: &str) -> Option<String> {
        let file = name.tarball(version)?;
        match self {
            Addresses::Same => None,
            Addresses::Below(base) => Some(format!("{base}/{name}/-/{file}")),
            Addresses::Relative => Some(format!("{name}/-/{file}")),
        }
    }
}

impl Recipe {
    /// Says whether the document is changed at all.
    pub(super) fn changes(&self) -> bool {
        self.addresses != Addresses::Same || !self.without.is_empty()
    }

    /// Returns its text.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Makes what a client gets.
    ///
    /// # Errors
    /// Where the upstream's bytes are no such document.
    pub(super) fn render(&self, from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
        let name = PackageName::parse(&self.name)
            .ok_or_else(|| io::Error::other("the recipe names no package"))?;
        let writer = Writer::new(to)?;
        let mut rendering = Rendering { recipe: self, name, writer, dist: None, version: None };
        json::read(from, &mut rendering)?;
        rendering.finish()
    }
}

struct Rendering<'r> {
    recipe: &'r Recipe,
    name: PackageName,
    writer: Writer<'r>,
    /// Of the document of a version: what waits until the version is known.
    dist: Option<Box<RawValue>>,
    version: Option<String>,
}

impl Rendering<'_> {
    fn finish(mut self) -> io::Result<()> {
        if let Some(dist) = &self.dist {
            let version = self.version.unwrap_or_default();
            let changed = self
                .recipe
                .addresses
                .tarball(&self.name, &version)
                .and_then(|tarball| with_tarball(dist, &tarball));
            self.writer.member("dist", changed.as_deref().unwrap_or(dist.get()))?;
        }
        self.writer.finish()
    }

    fn version(&mut self, version: &str, value: &RawValue) -> io::Result<()> {
        if self.recipe.without.iter().any(|without| without == version) {
            return Ok(());
        }
        let changed = self
            .recipe
            .addresses
            .tarball(&self.name, version)
            .and_then(|tarball| with_dist(value, &tarball));
        self.writer.member(version, changed.as_deref().unwrap_or(value.get()))
    }

    fn tag(&mut self, tag: &str, value: &RawValue) -> io::Result<()> {
        match self.recipe.tags.get(tag) {
            Some(None) => Ok(()),
            Some(Some(version)) => self.writer.member(tag, &json::string(version)),
            None => self.writer.member(tag, value.get()),
        }
    }
}

impl Members for Rendering<'_> {
    fn enters(&mut self, key: &str) -> bool {
        let held = !self.recipe.without.is_empty() && matches!(key, "time" | "dist-tags");
        !self.recipe.is_version && (key == "versions" || held)
    }

    fn begin(&mut self, key: &str, is_list: bool) -> io::Result<()> {
        self.writer.begin(key, is_list)
    }

    fn member(&mut self, of: Option<&str>, key: &str, value: &RawValue) -> io::Result<()> {
        match of {
            Some("versions") => self.version(key, value),
            Some("dist-tags") => self.tag(key, value),
            Some("time") if self.recipe.without.iter().any(|without| without == key) => Ok(()),
            None if self.recipe.is_version && key == "dist" => {
                self.dist = Some(value.to_owned());
                Ok(())
            }
            _ => {
                if self.recipe.is_version && key == "version" {
                    self.version = serde_json::from_str(value.get()).ok();
                }
                self.writer.member(key, value.get())
            }
        }
    }

    fn end(&mut self, _: &str, is_list: bool) -> io::Result<()> {
        self.writer.end(is_list)
    }
}

/// Returns what is known of a version, with another address of its tarball.
fn with_dist(version: &RawValue, tarball: &str) -> Option<String> {
    let members = json::members(version)?;
    let (_, dist) = members.iter().find(|(key, _)| key == "dist")?;
    let dist = with_tarball(dist, tarball)?;
    let changed = members.iter().map(|(key, value)| {
        (key.as_str(), if key == "dist" { dist.as_str() } else { value.get() })
    });
    Some(json::object(changed))
}

/// Returns a `dist` with another address.
fn with_tarball(dist: &RawValue, tarball: &str) -> Option<String> {
    let members = json::members(dist)?;
    let tarball = json::string(tarball);
    let changed = members.iter().map(|(key, value)| {
        (key.as_str(), if key == "tarball" { tarball.as_str() } else { value.get() })
    });
    Some(json::object(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"name":"@s/p","x":1.10,"dist-tags":{"latest":"2.0.0","old":"1.0.0"},
        "versions":{"1.0.0":{"dist":{"shasum":"00","tarball":"http://r.example/a"},"n":1e400},
        "2.0.0":{"dist":{"tarball":"http://r.example/b","sig\"":[]}},"bad":5,"3/4":{"dist":{"tarball":"c"}}},
        "time":{"created":"x","2.0.0":"y"}}"#;

    fn recipe(addresses: Addresses) -> Recipe {
        let (without, tags) = (Vec::new(), BTreeMap::new());
        Recipe { name: "@s/p".to_owned(), is_version: false, addresses, without, tags }
    }

    fn render(recipe: &Recipe, document: &str) -> io::Result<String> {
        let mut to = Vec::new();
        recipe.render(&mut document.as_bytes(), &mut to)?;
        Ok(String::from_utf8(to).unwrap())
    }

    #[test]
    fn addresses_are_what_each_client_needs() {
        let of = |agent: &str| Addresses::of(agent, "http://proxy.example/npm");
        assert_eq!(of("npm/11.0.0 node/v20 linux x64 workspaces/false"), Addresses::Same);
        assert_eq!(of("yarn/1.22.19 npm/? node/v18 linux x64"), Addresses::Relative);
        let below = Addresses::Below("http://proxy.example/npm".to_owned());
        for agent in ["pnpm/9.0.0 npm/? node/v20", "yarn/4.1.0 npm/?", "Bun/1.1", ""] {
            assert_eq!(of(agent), below, "{agent}");
        }
        let rendered = render(&recipe(below), DOCUMENT).unwrap();
        assert!(rendered.contains(r#""tarball":"http://proxy.example/npm/@s/p/-/p-1.0.0.tgz""#));
        assert!(rendered.contains(r#""tarball":"http://proxy.example/npm/@s/p/-/p-2.0.0.tgz""#));
        // What we do not understand stays as it is, to the last digit.
        for kept in [r#""x":1.10"#, "1e400", r#""sig\"":[]"#, r#""bad":5"#, r#"{"tarball":"c"}"#] {
            assert!(rendered.contains(kept), "{kept}: {rendered}");
        }
        let rendered = render(&recipe(Addresses::Relative), DOCUMENT).unwrap();
        assert!(rendered.contains(r#""tarball":"@s/p/-/p-1.0.0.tgz""#), "{rendered}");
    }

    #[test]
    fn versions_and_their_traces_are_left_out() {
        let tags = [("latest".to_owned(), Some("1.0.0".to_owned()))].into();
        let without = vec!["2.0.0".to_owned()];
        let recipe = Recipe { without, tags, ..recipe(Addresses::Same) };
        assert!(recipe.changes());
        let rendered = render(&recipe, DOCUMENT).unwrap();
        assert!(!rendered.contains("2.0.0"), "{rendered}");
        assert!(rendered.contains(r#""dist-tags":{"latest":"1.0.0","old":"1.0.0"}"#));
        assert!(rendered.contains(r#""time":{"created":"x"}"#));
        assert_eq!(serde_json::from_str::<Recipe>(&recipe.text()).unwrap(), recipe);
    }

    #[test]
    fn a_versions_own_document_is_addressed_too() {
        let recipe = Recipe { is_version: true, ..recipe(Addresses::Relative) };
        let document =
            r#"{"dist":{"tarball":"http://r.example/x"},"version":"1.0.0","versions":1}"#;
        let expected =
            r#"{"version":"1.0.0","versions":1,"dist":{"tarball":"@s/p/-/p-1.0.0.tgz"}}"#;
        assert_eq!(render(&recipe, document).unwrap(), expected);
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        for bad in ["", "[]", "{", "<html>", "{}x", r#"{"versions":5}"#, "{\"a\":\u{1}}"] {
            assert!(render(&recipe(Addresses::Relative), bad).is_err(), "{bad}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        // Deep or not, it is an answer and no crash.
        let _ = render(&recipe(Addresses::Relative), &deep);
    }
}
