//! What vouches for a package file: the indexes of the generations that are held.

use std::sync::Arc;

use boatyard_oci::Digest;

use super::catalogue::{self, CatalogueError, Listed, Records, Sum};
use super::held::Generation;
use super::set::{Asking, Set};
use super::sets::Sets;
use super::unpack::{Limits, unpack};
use crate::class::Promise;
use crate::request::Request;

/// A package file that an index lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub listed: Listed,
    /// The set, for people.
    pub by: String,
}

impl Found {
    /// Returns what that promises, where it is the digest of all bytes.
    pub fn promise(self) -> Option<Promise> {
        let Sum::Whole(digest) = self.listed.sum else { return None };
        Some(Promise { digest, size: Some(self.listed.size), by: self.by })
    }
}

impl Sets {
    /// Returns what an index that is held says of a package file: the index of the generation that
    /// the client has, then the newest, then older ones. `names` tells which names it may have in the
    /// indexes of a set, from the set's directory.
    pub async fn package(
        &self,
        request: &Request,
        names: impl Fn(&str) -> Vec<String>,
    ) -> Option<Found> {
        let beside = self.beside(&request.target, names).await;
        let request = request.clone();
        let found = tokio::task::spawn_blocking(move || {
            let mut candidates = Vec::new();
            for (set, names) in &beside {
                for (age, generation) in set.generations(&request).into_iter().enumerate() {
                    candidates.push((age, set, generation, names));
                }
            }
            candidates.sort_by_key(|(age, ..)| *age);
            candidates.into_iter().find_map(|(_, set, generation, names)| {
                let listed = names.iter().find_map(|name| set.listed(&generation, name))?;
                Some(Found { listed, by: set.address().to_string() })
            })
        });
        found.await.ok()?
    }
}

impl Set {
    /// Brings an index of packages of the generation that a client has, where none is held: clients
    /// may use another form of it, which says the same.
    pub async fn bring_packages(self: &Arc<Set>, asking: Asking<'_>) {
        let Some(generation) = self.generations(asking.request).into_iter().next() else { return };
        let children = generation.listing.children.iter();
        let lists: Vec<_> = children.filter(|(path, _)| self.format.lists_packages(path)).collect();
        let Some((path, child)) = lists.first() else { return };
        let number = generation.number;
        let held = move |set: &Set| set.root.generations().blobs(&set.name, number);
        let Some(Ok(held)) = self.blocking(held).await else { return };
        if lists.iter().any(|(_, child)| held.contains(&child.digest)) {
            return;
        }
        match self.bring(asking, &generation.listing, path, child).await {
            Ok(()) => {
                let digest = child.digest.clone();
                let hold = move |set: &Set| set.root.generations().hold(&set.name, number, &digest);
                if let Some(Err(error)) = self.blocking(hold).await {
                    tracing::warn!(set = %self.address, %error, "cannot hold an index of packages");
                }
            }
            Err(missing) => {
                tracing::warn!(set = %self.address, %missing, "packages cannot be checked");
            }
        }
    }

    /// Looks a package file up in the indexes of a generation. Blocking.
    fn listed(&self, generation: &Generation, name: &str) -> Option<Listed> {
        let children = self.held_children(generation).ok()?;
        let children = children.iter().map(|(path, digest)| (&**path, digest));
        let roots = generation.roots.iter().map(|root| (root.name.as_str(), &root.blob));
        for (path, digest) in children.chain(roots) {
            if !self.format.lists_packages(path) {
                continue;
            }
            let found = self.look_up(path, digest, name).unwrap_or_else(|error| {
                tracing::warn!(set = %self.address, path, %error, "cannot use an index of packages");
                None
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn look_up(
        &self,
        path: &str,
        index: &Digest,
        name: &str,
    ) -> Result<Option<Listed>, CatalogueError> {
        let derived = self.derived(index);
        if let Ok(found) = catalogue::look_up(&derived, name) {
            return Ok(found.into_iter().next());
        }
        let Some(blob) = self.root.store().open_blocking(index)? else { return Ok(None) };
        let unpacked = unpack(blob.into_file(), Limits::default())
            .map_err(|error| CatalogueError::Index(Box::new(error)))?;
        let mut records = Records::default();
        self.format.packages(path, unpacked, &mut records)?;
        records.write(&derived)?;
        Ok(catalogue::look_up(&derived, name)?.into_iter().next())
    }
}
