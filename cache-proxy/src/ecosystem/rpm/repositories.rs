//! The repositories that clients use, and the answers to what they ask of them.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_oci::Digest;
use jiff::Timestamp;

use super::format::{REPOMD, Repodata, SIGNATURE, named};
use crate::class::{Class, Promise};
use crate::ecosystem::{Classified, Ecosystem, Explained, Fetcher, Resolution};
use crate::entry::Entry;
use crate::generation::sets::{decode, split};
use crate::generation::{Asking, Options, Sets};
use crate::request::Request;

/// RPM repositories of whatever hosts.
#[derive(Debug)]
pub struct Rpm {
    sets: Sets,
}

impl Rpm {
    /// Returns the ecosystem on a root, with the repositories that are held there. Blocking.
    pub fn new(root: Arc<Root>, options: Options) -> Rpm {
        Rpm { sets: Sets::new(root, Arc::new(Repodata), options) }
    }

    /// Returns what an index that is held says of a package file.
    async fn package(&self, request: &Request) -> Option<Promise> {
        let below = |directory: &str| {
            let below = request.target.path().strip_prefix(directory).and_then(decode);
            below.into_iter().collect()
        };
        self.sets.package(request, below).await?.promise()
    }
}

/// Returns the directory of the repository whose root a path names, and which file of it.
fn root(path: &str) -> Option<(&str, &'static str)> {
    [REPOMD, SIGNATURE].into_iter().find_map(|name| {
        let directory = path.strip_suffix(name)?;
        directory.ends_with('/').then_some((directory, name))
    })
}

fn is_package(path: &str) -> bool {
    path.ends_with(".rpm")
}

#[async_trait]
impl Ecosystem for Rpm {
    fn name(&self) -> &'static str {
        "rpm"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        let path = request.target.path();
        let mine = request.reads_for_all() && (is_package(path) || path.contains("/repodata/"));
        mine.then_some(Classified::Resolve)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let path = request.target.path();
        let asking = Asking { request, fetcher };
        if let Some((directory, name)) = root(path)
            && let Ok(address) = request.target.at(directory)
            && let Some(set) = self.sets.at(&address).await
        {
            let resolution = set.root(asking, name).await;
            self.sets.forget(&set);
            return resolution.unwrap_or(Resolution::Class(Class::index()));
        }
        let above = self.sets.above(&request.target).await;
        if is_package(path) {
            for (set, _) in &above {
                set.bring_packages(asking).await;
            }
            return match self.package(request).await {
                Some(promise) => Resolution::Class(Class::promised(promise)),
                // Nobody vouches for it, whatever its name looks like.
                None => Resolution::Class(Class::index()),
            };
        }
        for (set, below) in above {
            let (directory, name) = split(&below);
            let by_digest = match named(name) {
                Some((algorithm, hex, _)) => set.named(asking, (directory, algorithm, hex)).await,
                None => None,
            };
            let found = match by_digest {
                Some(found) => Some(found),
                None => set.child(asking, &below).await,
            };
            if let Some(found) = found {
                return found;
            }
        }
        Resolution::Class(Class::index())
    }

    async fn explain(&self, request: &Request, now: Timestamp) -> Explained {
        let notes = self.sets.describe(&request.target, now).await;
        let path = request.target.path();
        let class = match self.package(request).await {
            Some(promise) => Some(Class::promised(promise)),
            None => (is_package(path) || notes.is_empty()).then(Class::index),
        };
        Explained { class, notes }
    }

    async fn kept(&self, entry: &Arc<Entry>, fetcher: &dyn Fetcher) {
        self.sets.landed(entry, fetcher, |below| split(below).0.to_owned()).await;
    }

    fn needed(&self) -> HashSet<Digest> {
        self.sets.needed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots() {
        assert_eq!(root("/f/repodata/repomd.xml"), Some(("/f/", REPOMD)));
        assert_eq!(root("/repodata/repomd.xml.asc"), Some(("/", SIGNATURE)));
        assert_eq!(root("/xrepodata/repomd.xml"), None);
        assert_eq!(root("/f/repodata/primary.xml.gz"), None);
    }
}
