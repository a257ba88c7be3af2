//! What repositories hold, as far as quotas count it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use boatyard_content::Root;
use boatyard_content::repository::{Repository, RepositoryError};
use boatyard_oci::{Digest, RepositoryName, Tag};

use super::{QuotaRule, hosted};

/// A digest, in 16 bytes: its first ones, or where it has a long one too. Two that agree in all of
/// them do not occur.
pub(super) type BlobId = u128;

/// How much is used of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) tags: u64,
}

/// What the repositories hold that some quota covers.
#[derive(Debug, Default)]
pub(super) struct Book {
    rules: Vec<QuotaRule>,
    /// The same of each rule, in its order.
    counts: Vec<Count>,
    repositories: HashMap<RepositoryName, Held>,
}

/// What a rule's repositories hold together.
#[derive(Debug, Default)]
struct Count {
    /// The size of each blob, and how many repositories have it.
    blobs: HashMap<BlobId, (u64, u32)>,
    used: Used,
    /// What is on its way.
    reserved: Used,
}

#[derive(Debug, Default)]
struct Held {
    blobs: HashSet<BlobId>,
    tags: HashSet<u64>,
}

impl Book {
    /// Lists what a root's repositories hold.
    pub(super) fn of(root: &Root, rules: Vec<QuotaRule>) -> Result<Book, RepositoryError> {
        let counts = rules.iter().map(|_| Count::default()).collect();
        let mut book = Book { rules, counts, repositories: HashMap::new() };
        if !book.rules.is_empty() {
            book.list(root)?;
        }
        Ok(book)
    }

    fn list(&mut self, root: &Root) -> Result<(), RepositoryError> {
        let store = root.store();
        let mut sizes: HashMap<BlobId, u64> = HashMap::new();
        for repository in hosted(root)? {
            if !self.covers(repository.name()) {
                continue;
            }
            for digest in held(&repository)? {
                let id = blob_id(&digest);
                let size = match sizes.get(&id) {
                    Some(size) => *size,
                    None => store.stat_blocking(&digest)?.map_or(0, |blob| blob.size),
                };
                sizes.insert(id, size);
                self.put_blob(repository.name(), id, size);
            }
            for tag in repository.tags(None, usize::MAX)? {
                self.put_tag(repository.name(), tag_id(&tag));
            }
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> &[QuotaRule] {
        &self.rules
    }

    pub(super) fn covers(&self, repository: &RepositoryName) -> bool {
        self.rules.iter().any(|rule| rule.covers(repository))
    }

    /// Returns each rule with what is used of it, and what is reserved.
    pub(super) fn each(&self) -> impl Iterator<Item = (&QuotaRule, Used, Used)> {
        self.rules.iter().zip(&self.counts).map(|(rule, count)| (rule, count.used, count.reserved))
    }

    /// Counts what is on its way.
    pub(super) fn reserve(&mut self, repository: &RepositoryName, bytes: u64, tags: u64) {
        for count in self.counts_of(repository) {
            count.reserved.bytes += bytes;
            count.reserved.tags += tags;
        }
    }

    /// Counts what is no longer on its way.
    pub(super) fn give_back(&mut self, repository: &RepositoryName, bytes: u64, tags: u64) {
        for count in self.counts_of(repository) {
            count.reserved.bytes -= bytes;
            count.reserved.tags -= tags;
        }
    }

    /// Says whether every quota of a repository counts a blob.
    pub(super) fn has(&self, repository: &RepositoryName, blob: BlobId) -> bool {
        let mut covering =
            self.rules.iter().zip(&self.counts).filter(|(rule, _)| rule.covers(repository));
        covering.all(|(_, count)| count.blobs.contains_key(&blob))
    }

    pub(super) fn has_tag(&self, repository: &RepositoryName, tag: u64) -> bool {
        self.repositories.get(repository).is_some_and(|held| held.tags.contains(&tag))
    }

    pub(super) fn put_blob(&mut self, repository: &RepositoryName, blob: BlobId, size: u64) {
        if self.covers(repository) && self.held(repository).blobs.insert(blob) {
            for count in self.counts_of(repository) {
                let (_, holders) = count.blobs.entry(blob).or_insert_with(|| {
                    count.used.bytes += size;
                    (size, 0)
                });
                *holders += 1;
            }
        }
    }

    pub(super) fn take_blob(&mut self, repository: &RepositoryName, blob: BlobId) {
        let held = self.repositories.get_mut(repository);
        if held.is_some_and(|held| held.blobs.remove(&blob)) {
            for count in self.counts_of(repository) {
                let Some((size, holders)) = count.blobs.get_mut(&blob) else { continue };
                *holders -= 1;
                if *holders == 0 {
                    count.used.bytes -= *size;
                    count.blobs.remove(&blob);
                }
            }
        }
    }

    pub(super) fn put_tag(&mut self, repository: &RepositoryName, tag: u64) {
        if self.covers(repository) && self.held(repository).tags.insert(tag) {
            self.counts_of(repository).for_each(|count| count.used.tags += 1);
        }
    }

    pub(super) fn take_tag(&mut self, repository: &RepositoryName, tag: u64) {
        let held = self.repositories.get_mut(repository);
        if held.is_some_and(|held| held.tags.remove(&tag)) {
            self.counts_of(repository).for_each(|count| count.used.tags -= 1);
        }
    }

    fn held(&mut self, repository: &RepositoryName) -> &mut Held {
        self.repositories.entry(repository.clone()).or_default()
    }

    fn counts_of(&mut self, repository: &RepositoryName) -> impl Iterator<Item = &mut Count> {
        let covering = self.rules.iter().zip(&mut self.counts);
        covering.filter(|(rule, _)| rule.covers(repository)).map(|(_, count)| count)
    }
}

/// Returns what a repository holds: what was pushed to it, and its manifests.
fn held(repository: &Repository) -> Result<Vec<Digest>, RepositoryError> {
    let mut held = repository.blobs()?;
    held.extend(repository.manifests()?);
    Ok(held)
}

/// Returns the first bytes of a digest as a number.
pub(super) fn blob_id(digest: &Digest) -> BlobId {
    // A digest has 64 hex digits at least.
    u128::from_str_radix(&digest.hex()[..32], 16).unwrap_or_default()
}

/// Returns a tag as a number.
pub(super) fn tag_id(tag: &Tag) -> u64 {
    let mut hasher = DefaultHasher::new();
    tag.as_str().hash(&mut hasher);
    hasher.finish()
}
