//! Which upstream a request means.
//!
//! The four ways of the field, in the order in which they count:
//!
//! ```text
//! /<upstream>/v2/library/debian/...      the path's first part: BuildKit, dockerd's hosts.toml
//! /v2/library/debian/...?ns=docker.io    containerd and what is built on it
//! /v2/docker.io/library/debian/...       podman, skopeo, CRI-O, and people
//! /v2/library/debian/...                 dockerd, which names nobody: the default upstream of the
//!                                        host name or port that was asked
//! ```
//!
//! Names are keys into what is configured. One that is not there is an error, never an address to
//! connect to: a mirror that dials what a request names is an open proxy.

use std::collections::HashMap;

use boatyard_oci::RepositoryName;

/// The names that an upstream answers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The first part of paths, and values of `ns`: its alias and its host, with its port.
    pub names: Vec<String>,
    /// It is the upstream of requests that name none.
    pub default: bool,
    /// It is that for requests to these host names or ports alone: `hub.mirror.example`, `:5001`.
    pub default_for: Vec<String>,
}

/// What a request says about whom it means.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// The part before `/v2/`.
    pub prefix: Option<&'a str>,
    /// The parameter `ns`.
    pub namespace: Option<&'a str>,
    /// The `Host` that was asked.
    pub host: Option<&'a str>,
    /// The repository that the path names.
    pub repository: &'a RepositoryName,
}

/// Why a request, or a configuration, means nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No upstream of this name is configured.
    #[error("no upstream `{name}` is configured here")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Two upstreams have one name.
    #[error("two mirrors answer to `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// Two upstreams are the default of the same requests.
    #[error("two mirrors are the default of {what}")]
    TwoDefaults {
        /// Of which requests.
        what: String,
    },
}

/// An upstream that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place in the configuration.
    pub index: usize,
    /// The repository without what named the upstream.
    pub repository: RepositoryName,
    /// Nothing in the request named it.
    pub by_default: bool,
}

/// All upstreams by their names.
#[derive(Clone, Debug, Default)]
pub struct Addressing {
    names: HashMap<String, usize>,
    default: Option<usize>,
    default_for: HashMap<String, usize>,
}

impl Addressing {
    /// Returns the addressing of upstreams in their order.
    ///
    /// # Errors
    /// Where two answer to the same.
    pub fn new(answers: Vec<Answers>) -> Result<Addressing, AddressError> {
        let mut addressing = Addressing::default();
        for (index, upstream) in answers.into_iter().enumerate() {
            for name in upstream.names {
                let before = addressing.names.insert(name.to_lowercase(), index);
                if before.is_some_and(|before| before != index) {
                    return Err(AddressError::Twice { name });
                }
            }
            if upstream.default && addressing.default.replace(index).is_some() {
                return Err(AddressError::TwoDefaults { what: "all requests".to_owned() });
            }
            for what in upstream.default_for {
                if addressing.default_for.insert(what.to_lowercase(), index).is_some() {
                    return Err(AddressError::TwoDefaults { what });
                }
            }
        }
        Ok(addressing)
    }

    /// Finds the upstream that a request means; `None` where it means what is hosted.
    ///
    /// # Errors
    /// Where it names one that is not configured.
    pub fn find(&self, address: &Address<'_>) -> Result<Option<Found>, AddressError> {
        let whole = || address.repository.clone();
        let named = address.prefix.or(address.namespace.filter(|name| !name.is_empty()));
        if let Some(name) = named {
            let index = self.named(name)?;
            return Ok(Some(Found { index, repository: whole(), by_default: false }));
        }
        if let Some((first, rest)) = address.repository.as_str().split_once('/')
            && let Some(index) = self.names.get(first)
            && let Ok(repository) = rest.parse()
        {
            return Ok(Some(Found { index: *index, repository, by_default: false }));
        }
        let index = address.host.and_then(|host| self.default_of(host)).or(self.default);
        Ok(index.map(|index| Found { index, repository: whole(), by_default: true }))
    }

    /// Finds an upstream by a name of its own.
    pub(super) fn named(&self, name: &str) -> Result<usize, AddressError> {
        let index = self.names.get(&name.to_lowercase()).copied();
        index.ok_or_else(|| AddressError::Unknown { name: name.to_owned() })
    }

    /// Finds the default of a `Host`: by the whole of it, by its name, by its port.
    fn default_of(&self, host: &str) -> Option<usize> {
        let host = host.to_lowercase();
        let port = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        let name = port.map_or(host.as_str(), |at| &host[..at]);
        let port = port.map(|at| &host[at..]);
        let find = |key: &str| self.default_for.get(key).copied();
        find(&host).or_else(|| find(name)).or_else(|| port.and_then(find))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addressing() -> Addressing {
        Addressing::new(vec![
            Answers {
                names: vec!["hub".into(), "docker.io".into()],
                default_for: vec!["hub.mirror.example".into(), ":5001".into()],
                ..Answers::default()
            },
            Answers {
                names: vec!["lan".into(), "registry.lan:5000".into()],
                default: true,
                ..Answers::default()
            },
        ])
        .unwrap()
    }

    fn address<'a>(repository: &'a RepositoryName) -> Address<'a> {
        Address { prefix: None, namespace: None, host: None, repository }
    }

    #[test]
    fn each_way_of_naming_an_upstream() {
        let addressing = addressing();
        let find = |prefix, namespace, host, repository: &str| {
            let repository: RepositoryName = repository.parse().unwrap();
            let address = Address { prefix, namespace, host, ..address(&repository) };
            let found = addressing.find(&address).unwrap().unwrap();
            (found.index, found.repository.as_str().to_owned(), found.by_default)
        };
        let expect =
            |index, repository: &str, by_default| (index, repository.to_owned(), by_default);
        assert_eq!(find(Some("hub"), None, None, "a/b"), expect(0, "a/b", false));
        assert_eq!(find(None, Some("docker.io"), None, "a/b"), expect(0, "a/b", false));
        assert_eq!(find(None, Some("REGISTRY.lan:5000"), None, "a"), expect(1, "a", false));
        assert_eq!(find(None, None, None, "docker.io/a/b"), expect(0, "a/b", false));
        assert_eq!(find(None, None, None, "lan/a"), expect(1, "a", false));
        assert_eq!(find(None, None, None, "other/a"), expect(1, "other/a", true));
        // An upstream's name alone is a repository's: it has no repository to name.
        assert_eq!(find(None, None, None, "hub"), expect(1, "hub", true));
        for host in ["hub.mirror.example", "HUB.mirror.example:443", "x:5001", "[::1]:5001"] {
            assert_eq!(find(None, None, Some(host), "a"), expect(0, "a", true), "{host}");
        }
        assert_eq!(find(None, None, Some("[::1]"), "a"), expect(1, "a", true));
    }

    #[test]
    fn nobody_chooses_a_host() {
        let repository: RepositoryName = "a".parse().unwrap();
        for name in ["evil.example", "127.0.0.1:5000", "..", "docker.io/x", "registry.lan"] {
            for (prefix, namespace) in [(Some(name), None), (None, Some(name))] {
                let address = Address { prefix, namespace, ..address(&repository) };
                let error = addressing().find(&address).unwrap_err();
                assert_eq!(error, AddressError::Unknown { name: name.to_owned() });
            }
        }
    }

    #[test]
    fn without_a_default_a_request_means_what_is_hosted() {
        let repository: RepositoryName = "a".parse().unwrap();
        assert_eq!(Addressing::default().find(&address(&repository)), Ok(None));
    }

    #[test]
    fn two_cannot_answer_to_one_name() {
        let named = |name: &str| Answers { names: vec![name.into()], ..Answers::default() };
        let error = Addressing::new(vec![named("a"), named("A")]).unwrap_err();
        assert_eq!(error.to_string(), "two mirrors answer to `A`");
        let default = Answers { default: true, ..Answers::default() };
        assert!(Addressing::new(vec![default.clone(), default]).is_err());
    }
}
