//! What takes the space of a root.
//!
//! A blob is kept once, however many hold it. So each group of holders has two figures: what it
//! holds, and what it holds alone: that is what giving it up would free.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use boatyard_oci::Digest;

use crate::gc::GcError;
use crate::holders::{self, Holder};
use crate::local::{Root, entries};
use crate::repository::Repository;
use crate::store::{Doing as _, StoreError};

/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// Who holds blobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Repositories that were pushed to.
    Hosted,
    /// What is mirrored of an upstream, by its directory below `mirror/`.
    Mirror(String),
    /// The images of this machine.
    Images,
    /// The layers that the build cache keeps.
    BuildCache,
    /// What the cache proxy keeps.
    Proxy,
    /// The private packages.
    Packages,
}

/// A number of blobs or files, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What somebody holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of it.
    pub all: Sum,
    /// What nobody else holds.
    pub alone: Sum,
}

/// What takes the space of a root.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// All blobs.
    pub blobs: Sum,
    /// The blobs that no file holds: garbage, unless they are young or leased.
    pub unheld: Sum,
    /// What each group holds.
    pub groups: BTreeMap<Group, Held>,
    /// What each repository holds, by its directory below the root.
    pub repositories: BTreeMap<String, Held>,
    /// The directories that hold no blobs, and what they take on disk.
    pub directories: BTreeMap<&'static str, Sum>,
}

/// Measures a root.
///
/// # Errors
/// Where something cannot be listed.
pub fn measure(root: &Root) -> Result<Usage, GcError> {
    let mut holders = Holders::default();
    holders::each(root, &mut |blob, holder| holders.note(blob, holder))?;
    let mut usage = Usage::default();
    root.store().each_blocking(&mut |blob| {
        usage.blobs.add(blob.size);
        match holders.of.get(&blob.digest) {
            None => usage.unheld.add(blob.size),
            Some(who) => holders.count(who, blob.size, &mut usage),
        }
    })?;
    let layout = root.layout();
    let path = |name: &str| layout.root().join(name);
    for name in ["layers", "active", "contents", "cache", "ingest", "quarantine", "logs", "journal"]
    {
        usage.directories.insert(name, on_disk(&path(name))?);
    }
    Ok(usage)
}

/// Who holds which blob: groups and repositories by number.
#[derive(Default)]
struct Holders {
    of: HashMap<Digest, HashSet<usize>>,
    who: Vec<Who>,
    numbers: HashMap<Who, usize>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Who {
    Group(Group),
    Repository(String),
}

impl Holders {
    fn note(&mut self, blob: &Digest, holder: &Holder<'_>) {
        let repository = match holder {
            Holder::Link(repository)
            | Holder::Manifest(repository)
            | Holder::Needed { repository, .. } => Some(*repository),
            _ => None,
        };
        let group = self.number(Who::Group(match (repository, holder) {
            (Some(repository), _) => group_of(repository),
            (None, Holder::Layer(_)) => Group::BuildCache,
            (None, Holder::Package(_)) => Group::Packages,
            (None, _) => Group::Proxy,
        }));
        let repository =
            repository.map(|repository| self.number(Who::Repository(repository.key().to_owned())));
        match self.of.get_mut(blob) {
            Some(who) => who.extend(std::iter::once(group).chain(repository)),
            None => {
                let who = std::iter::once(group).chain(repository).collect();
                self.of.insert(blob.clone(), who);
            }
        }
    }

    fn number(&mut self, who: Who) -> usize {
        if let Some(number) = self.numbers.get(&who) {
            return *number;
        }
        let number = self.who.len();
        self.who.push(who.clone());
        self.numbers.insert(who, number);
        number
    }

    fn count(&self, who: &HashSet<usize>, bytes: u64, usage: &mut Usage) {
        let is_group = |number: &&usize| matches!(self.who[**number], Who::Group(_));
        let groups = who.iter().filter(is_group).count();
        let repositories = who.len() - groups;
        for number in who {
            let (held, is_alone) = match &self.who[*number] {
                Who::Group(group) => (usage.groups.entry(group.clone()).or_default(), groups == 1),
                Who::Repository(key) => (
                    usage.repositories.entry(key.clone()).or_default(),
                    // Whoever holds it beside repositories keeps it, too.
                    groups == 1 && repositories == 1,
                ),
            };
            held.all.add(bytes);
            if is_alone {
                held.alone.add(bytes);
            }
        }
    }
}

fn group_of(repository: &Repository) -> Group {
    let mut parts = repository.key().split('/');
    match (parts.next(), parts.next()) {
        (Some("hosted"), _) => Group::Hosted,
        (Some("mirror"), Some(upstream)) => Group::Mirror(upstream.to_owned()),
        _ => Group::Images,
    }
}

/// Returns what a directory takes on disk; what several names lead to counts once.
fn on_disk(directory: &Path) -> Result<Sum, StoreError> {
    let mut sum = Sum::default();
    let mut seen = HashSet::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in entries(&next) {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).doing("look at a file"),
            };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                sum.add(metadata.blocks() * BLOCK);
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::RootOptions;
    use crate::repository::Space;
    use crate::testing;

    #[test]
    fn what_is_shared_is_held_by_all_and_by_nobody_alone() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let lease = root.lease().unwrap();
        let put = |bytes: &[u8]| testing::put(&root, &lease, bytes);
        let (shared, own, _loose) = (put(b"shared"), put(b"own"), put(b"lo"));
        let repository =
            |space, name: &str| root.repositories().repository(&space, &name.parse().unwrap());
        let (one, two) = (repository(Space::Hosted, "one"), repository(Space::Hosted, "two"));
        let hub = repository(Space::Mirror("docker.io".to_owned()), "library/x");
        one.link_blob(&shared).unwrap();
        two.link_blob(&shared).unwrap();
        two.link_blob(&own).unwrap();
        hub.link_blob(&shared).unwrap();
        let usage = measure(&root).unwrap();
        let sum = |count, bytes| Sum { count, bytes };
        assert_eq!(usage.blobs, sum(3, 11));
        assert_eq!(usage.unheld, sum(1, 2));
        let hosted = usage.groups[&Group::Hosted];
        assert_eq!((hosted.all, hosted.alone), (sum(2, 9), sum(1, 3)));
        let hub = usage.groups[&Group::Mirror("docker.io".to_owned())];
        assert_eq!((hub.all, hub.alone), (sum(1, 6), sum(0, 0)));
        let two = usage.repositories["hosted/two"];
        assert_eq!((two.all, two.alone), (sum(2, 9), sum(1, 3)));
        assert_eq!(usage.repositories["hosted/one"].alone, sum(0, 0));
    }
}
