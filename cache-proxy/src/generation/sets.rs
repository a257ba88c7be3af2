//! The index sets of one format, at whatever addresses clients use.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use boatyard_content::Root;
use boatyard_oci::Digest;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::format::Format;
use super::set::{Options, Set};
use crate::ecosystem::Fetcher;
use crate::entry::Entry;
use crate::target::Target;

/// How many sets are known at once.
const SETS_MAX: usize = 10_000;

type Slot = Arc<OnceCell<Arc<Set>>>;

/// The sets of a root that are of one format.
#[derive(Debug)]
pub struct Sets {
    root: Arc<Root>,
    format: Arc<dyn Format>,
    options: Options,
    sets: Mutex<BTreeMap<String, Slot>>,
}

impl Sets {
    /// Returns the sets of a root, with those that are held there. Blocking.
    pub fn new(root: Arc<Root>, format: Arc<dyn Format>, options: Options) -> Sets {
        let known = Set::addresses(&root, format.kind());
        let sets = known.into_iter().map(|address| (address.as_str().to_owned(), Slot::default()));
        let sets = Mutex::new(sets.collect());
        Sets { root, format, options, sets }
    }

    /// Returns the set at an address, which is made known.
    pub async fn at(&self, address: &Target) -> Option<Arc<Set>> {
        let slot = {
            let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            if sets.len() >= SETS_MAX && !sets.contains_key(address.as_str()) {
                return None;
            }
            Arc::clone(sets.entry(address.as_str().to_owned()).or_default())
        };
        let opened = slot.get_or_try_init(|| async {
            let (address, root) = (address.clone(), Arc::clone(&self.root));
            let (format, options) = (Arc::clone(&self.format), self.options.clone());
            let open = move || Set::open(address, root, format, options);
            match tokio::task::spawn_blocking(open).await {
                Ok(Ok(set)) => Ok(Arc::new(set)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        match opened.await {
            Ok(set) => Some(Arc::clone(set)),
            Err(error) => {
                tracing::warn!(set = %address, error, "cannot read what is held of an archive");
                None
            }
        }
    }

    /// Forgets a set of which nothing is held: what is no archive is not remembered.
    pub fn forget(&self, set: &Set) {
        if set.is_empty() {
            let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            sets.remove(set.address().as_str());
        }
    }

    /// Says whether a set is known above a target.
    pub fn is_below(&self, target: &Target) -> bool {
        let (path, url) = (target.path(), target.as_str());
        let origin = target.url().origin().ascii_serialization().len();
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        directories(path).any(|directory| {
            url.get(..origin + directory.len()).is_some_and(|url| sets.contains_key(url))
        })
    }

    fn is_known(&self, address: &str) -> bool {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).contains_key(address)
    }

    /// Returns the sets above a target, the nearest first, each with the path of the target below it.
    pub async fn above(&self, target: &Target) -> Vec<(Arc<Set>, String)> {
        let mut above = Vec::new();
        for directory in directories(target.path()) {
            let Ok(address) = target.at(directory) else { continue };
            if !self.is_known(address.as_str()) {
                continue;
            }
            let Some(below) = target.path().strip_prefix(directory).and_then(decode) else {
                continue;
            };
            above.extend(self.at(&address).await.map(|set| (set, below)));
        }
        above
    }

    /// Returns the sets of the same server, each with the names that a target may have in its
    /// indexes, which `names` tells from the directory of a set.
    pub async fn beside(
        &self,
        target: &Target,
        names: impl Fn(&str) -> Vec<String>,
    ) -> Vec<(Arc<Set>, Vec<String>)> {
        let origin = target.url().origin().ascii_serialization();
        let from = format!("{origin}/");
        let known: Vec<String> = {
            let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            let known = sets.range(from.clone()..).map(|(address, _)| address);
            known.take_while(|address| address.starts_with(&from)).cloned().collect()
        };
        let mut beside = Vec::new();
        for known in known {
            let names = names(&known[origin.len()..]);
            if names.is_empty() {
                continue;
            }
            if let Ok(address) = known.parse() {
                beside.extend(self.at(&address).await.map(|set| (set, names)));
            }
        }
        beside
    }

    /// Says what is known of the sets above a target, a line each.
    pub async fn describe(&self, target: &Target, now: Timestamp) -> Vec<String> {
        let above = self.above(target).await;
        above.iter().flat_map(|(set, _)| set.describe(now)).collect()
    }

    /// Takes note of what was kept of a target: it may be a child that went to its client while it
    /// arrived. `directory` returns the directory that lists it, from its path below a set.
    pub async fn landed(
        &self,
        entry: &Entry,
        fetcher: &dyn Fetcher,
        directory: impl Fn(&str) -> String,
    ) {
        let now = fetcher.now();
        for (set, below) in self.above(&entry.target).await {
            let (directory, blob) = (directory(&below), entry.blob.clone());
            // A stop of the server may come in between: then it is noted when it is asked for.
            let noted = tokio::task::spawn_blocking(move || set.landed(&directory, &blob, now));
            let _ = noted.await;
        }
    }

    /// Returns the root that they are on.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Returns all blobs that generations hold. Blocking.
    pub fn needed(&self) -> HashSet<Digest> {
        self.root.generations().held().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list what generations hold");
            HashSet::new()
        })
    }
}

/// Returns the directories above a file, nearest first, each with a slash at its end.
pub fn directories(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(slash, _)| &path[..=slash])
}

/// Splits a path behind its last slash.
pub fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

/// Decodes the `%XX` of a path; `None` where the result is no text.
pub fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%').then(|| std::str::from_utf8(tail.get(..2)?).ok()).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_once() {
        for (text, expected) in [("a%2Bb", "a+b"), ("%253a", "%3a"), ("%", "%"), ("%zz%4", "%zz%4")]
        {
            assert_eq!(decode(text).as_deref(), Some(expected));
        }
        assert_eq!(decode("%ff"), None);
        let above: Vec<&str> = directories("/a/b/c").collect();
        assert_eq!(above, ["/a/b/", "/a/", "/"]);
    }
}
