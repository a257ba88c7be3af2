//! The upstreams that are configured. Others need none of this: they come from the request.

use std::sync::Arc;

use boatyard_upstream::Credential;
use url::Url;

use crate::hosted::Hosted;
use crate::policy::Policy;
use crate::target::{Target, TargetError};

/// Where upstreams are that have only private packages: a name that no server can have (RFC 6761).
const NOWHERE: &str = "packages.invalid";

/// A configured upstream.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// What it is called in paths (`/<name>/...`), messages and statistics.
    pub name: String,
    /// The URLs that have the same below them, each ending in `/`; the first names its entries,
    /// and is asked first. Never empty.
    pub bases: Vec<Url>,
    /// What is shown to all bases: answers that it opens are given to every client.
    pub credential: Option<Credential>,
    /// The name of the ecosystem, where it is not to be guessed.
    pub ecosystem: Option<String>,
    /// What the operator wants of it.
    pub policy: Policy,
    /// The private packages, where it has any.
    pub hosted: Option<Arc<Hosted>>,
}

/// All configured upstreams.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
}

/// A configuration that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamsError {
    /// A name cannot be a part of a path.
    #[error("`{name}` cannot be a part of a path")]
    Name {
        /// The name.
        name: String,
    },
    /// Two have the same name.
    #[error("two upstreams are called `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// It has no URL.
    #[error("the upstream `{name}` has no URL")]
    NoBase {
        /// The name.
        name: String,
    },
    /// A URL cannot be one of an upstream.
    #[error("`{url}` cannot be the URL of the upstream `{name}`")]
    Base {
        /// The name.
        name: String,
        /// The URL.
        url: String,
        /// Why not.
        #[source]
        source: TargetError,
    },
}

impl Upstream {
    /// Returns an upstream without credentials.
    ///
    /// # Errors
    /// Where the name cannot be a part of a path, or a URL cannot be a base.
    pub fn new(name: &str, bases: &[String]) -> Result<Upstream, UpstreamsError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(UpstreamsError::Name { name: name.to_owned() });
        }
        if bases.is_empty() {
            return Err(UpstreamsError::NoBase { name: name.to_owned() });
        }
        let base = |url: &String| {
            let target = format!("{}/", url.trim_end_matches('/')).parse::<Target>();
            target.map(|target| target.url().clone()).map_err(|source| UpstreamsError::Base {
                name: name.to_owned(),
                url: url.clone(),
                source,
            })
        };
        let bases = bases.iter().map(base).collect::<Result<_, _>>()?;
        Ok(Upstream {
            name: name.to_owned(),
            bases,
            credential: None,
            ecosystem: None,
            policy: Policy::default(),
            hosted: None,
        })
    }

    /// Returns one that is nothing but its private packages: its base leads nowhere, and is never
    /// asked.
    ///
    /// # Errors
    /// Where the name cannot be a part of a path.
    pub fn alone(name: &str) -> Result<Upstream, UpstreamsError> {
        Upstream::new(name, &[format!("http://{name}.{NOWHERE}/")])
    }

    /// Says whether there is no upstream behind it.
    pub fn is_alone(&self) -> bool {
        let host = self.bases[0].host_str().unwrap_or_default();
        host.strip_suffix(NOWHERE).is_some_and(|name| name.ends_with('.'))
    }

    /// Returns what lies at a path below the first base: `debian/dists/sid/InRelease`.
    ///
    /// # Errors
    /// Where the path is none.
    pub fn target(&self, below: &str) -> Result<Target, TargetError> {
        format!("{}{below}", self.bases[0]).parse()
    }

    /// Returns the path and query of a target below the first base.
    pub fn below<'a>(&self, target: &'a Target) -> Option<&'a str> {
        target.as_str().strip_prefix(self.bases[0].as_str())
    }
}

impl Upstreams {
    /// Returns these upstreams.
    ///
    /// # Errors
    /// Where two have the same name.
    pub fn new(all: Vec<Upstream>) -> Result<Upstreams, UpstreamsError> {
        for (at, upstream) in all.iter().enumerate() {
            if all[..at].iter().any(|other| other.name == upstream.name) {
                return Err(UpstreamsError::Twice { name: upstream.name.clone() });
            }
        }
        Ok(Upstreams { all: all.into_iter().map(Arc::new).collect() })
    }

    /// Returns all of them.
    pub fn all(&self) -> &[Arc<Upstream>] {
        &self.all
    }

    /// Returns the one of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.all.iter().find(|upstream| upstream.name == name)
    }

    /// Returns the upstream that a target lies below, by its longest base, and the target below
    /// its first base.
    pub fn of(&self, target: &Target) -> Option<(&Arc<Upstream>, Target)> {
        let bases = self
            .all
            .iter()
            .flat_map(|upstream| upstream.bases.iter().map(move |base| (upstream, base.as_str())));
        let (upstream, base) = bases
            .filter(|(_, base)| target.as_str().starts_with(base))
            .max_by_key(|(_, base)| base.len())?;
        let below = upstream.target(&target.as_str()[base.len()..]).ok()?;
        Some((upstream, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_below_any_base_are_those_of_the_first() {
        let deb = ["http://deb.example/debian", "https://two.example/d/"].map(str::to_owned);
        let deb = Upstream::new("deb", &deb).unwrap();
        let inner = Upstream::new("x", &["http://deb.example/debian/x".to_owned()]).unwrap();
        let all = Upstreams::new(vec![deb, inner]).unwrap();
        let of = |url: &str| {
            let (upstream, target) = all.of(&url.parse().unwrap())?;
            Some(format!("{} {target}", upstream.name))
        };
        let expected = Some("deb http://deb.example/debian/pool/a?b".to_owned());
        assert_eq!(of("https://two.example/d/pool/a?b"), expected);
        assert_eq!(of("http://deb.example/debian/pool/a?b"), expected);
        assert_eq!(of("http://deb.example/debian/x/y").unwrap(), "x http://deb.example/debian/x/y");
        assert_eq!(of("http://deb.example/debianx"), None);
        assert_eq!(of("https://two.example/"), None);
    }

    #[test]
    fn what_is_no_upstream() {
        for name in ["", "a/b", "..", ".a", "a b"] {
            let error = Upstream::new(name, &["http://a.example".to_owned()]).unwrap_err();
            assert!(matches!(error, UpstreamsError::Name { .. }), "{name}");
        }
        assert!(Upstream::new("a", &[]).is_err());
        assert!(Upstream::new("a", &["ftp://a.example".to_owned()]).is_err());
        let twice = || Upstream::new("a", &["http://a.example".to_owned()]).unwrap();
        assert!(Upstreams::new(vec![twice(), twice()]).is_err());
    }
}
