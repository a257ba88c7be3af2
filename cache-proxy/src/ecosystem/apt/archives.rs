//! The archives that clients use, and the answers to what they ask of them.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_oci::{Algorithm, Digest};

use super::address::{self, ByHash};
use super::format::Suites;
use crate::class::{Class, Promise};
use crate::ecosystem::{Classified, Ecosystem, Explained, Fetcher, Resolution};
use crate::entry::Entry;
use crate::generation::sets::decode;
use crate::generation::{Asking, Options, Sets};
use crate::request::Request;
use crate::target::Target;

/// What the file names of packages end with, wherever they are. Sources have names as others have.
const PACKAGES: [&str; 4] = [".deb", ".udeb", ".ddeb", ".dsc"];

/// apt's archives: suites and flat repositories of whatever hosts.
#[derive(Debug)]
pub struct Apt {
    sets: Sets,
}

impl Apt {
    /// Returns the ecosystem of apt on a root, with the suites that are held there. Blocking.
    pub fn new(root: Arc<Root>, options: Options) -> Apt {
        Apt { sets: Sets::new(root, Arc::new(Suites), options) }
    }

    /// Says what is known of the suites above a target, a line each.
    pub async fn describe(&self, target: &Target, now: jiff::Timestamp) -> Vec<String> {
        self.sets.describe(target, now).await
    }

    /// Returns what an index that is held says of a package file.
    async fn package(&self, request: &Request) -> Option<Promise> {
        let names = |directory: &str| names_in(directory, request.target.path());
        self.sets.package(request, names).await?.promise()
    }
}

/// Returns the names that a path may have in the indexes of a set whose directory this is.
fn names_in(directory: &str, path: &str) -> Vec<String> {
    let below = |archive: &str| path.strip_prefix(archive).and_then(decode);
    match address::archive(directory) {
        Some(archive) => below(archive).into_iter().collect(),
        None => address::directories(directory).filter_map(below).collect(),
    }
}

#[async_trait]
impl Ecosystem for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        if !request.reads_for_all() {
            return None;
        }
        let path = request.target.path();
        let is_package = || PACKAGES.iter().any(|end| path.ends_with(end));
        let mine = address::root(path).is_some()
            || ["/dists/", "/pool/"].iter().any(|part| path.contains(part))
            || address::by_hash(path).is_some()
            || is_package()
            || self.sets.is_below(&request.target);
        mine.then_some(Classified::Resolve)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let path = request.target.path();
        let asking = Asking { request, fetcher };
        if let Some(root) = address::root(path)
            && let Ok(address) = request.target.at(root.directory)
            && let Some(set) = self.sets.at(&address).await
        {
            let resolution = set.root(asking, root.name).await;
            self.sets.forget(&set);
            return resolution.unwrap_or(Resolution::Class(Class::index()));
        }
        for (set, below) in self.sets.above(&request.target).await {
            let found = match address::by_hash(&below) {
                Some(ByHash { directory, algorithm, hex }) => {
                    set.named(asking, (directory, algorithm, &hex)).await
                }
                None => set.child(asking, &below).await,
            };
            if let Some(found) = found {
                return found;
            }
        }
        if let Some(promise) = address::by_hash(path).as_ref().and_then(self_named) {
            return Resolution::Class(Class::promised(promise));
        }
        match self.package(request).await {
            Some(promise) => Resolution::Class(Class::promised(promise)),
            // Nobody vouches for it, whatever its name looks like: the upstream is asked each time.
            None => Resolution::Class(Class::index()),
        }
    }

    async fn explain(&self, request: &Request, now: jiff::Timestamp) -> Explained {
        let notes = self.describe(&request.target, now).await;
        let path = request.target.path();
        let is_of_a_suite = address::root(path).is_some() || !notes.is_empty();
        let class = match address::by_hash(path).as_ref().and_then(self_named) {
            Some(promise) => Some(Class::promised(promise)),
            None => match self.package(request).await {
                Some(promise) => Some(Class::promised(promise)),
                None => (!is_of_a_suite).then(Class::index),
            },
        };
        Explained { class, notes }
    }

    async fn kept(&self, entry: &Arc<Entry>, fetcher: &dyn Fetcher) {
        let directory = |below: &str| {
            let by_hash = address::by_hash(below).map(|by_hash| by_hash.directory.to_owned());
            by_hash.unwrap_or_else(|| address::split(below).0.to_owned())
        };
        self.sets.landed(entry, fetcher, directory).await;
    }

    fn needed(&self) -> HashSet<Digest> {
        self.sets.needed()
    }
}

/// Returns what a digest in a URL promises by itself.
fn self_named(named: &ByHash<'_>) -> Option<Promise> {
    let algorithm: Algorithm = named.algorithm.parse().ok()?;
    let digest = Digest::from_parts(algorithm, &named.hex).ok()?;
    Some(Promise { digest, size: None, by: "its own name".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_indexes() {
        let of = |directory, path| names_in(directory, path);
        assert_eq!(
            of("/debian/dists/sid/", "/debian/pool/a%2Bb_1%253a2.deb"),
            ["pool/a+b_1%3a2.deb"]
        );
        assert_eq!(of("/debian/dists/sid/", "/other/pool/a.deb"), [""; 0]);
        assert_eq!(of("/flat/sub/", "/flat/sub/a.deb"), ["a.deb", "sub/a.deb", "flat/sub/a.deb"]);
        assert_eq!(of("/flat/sub/", "/flat/a.deb"), ["a.deb", "flat/a.deb"]);
    }
}
