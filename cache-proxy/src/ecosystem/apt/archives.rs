//! The archives that clients use, and the answers to what they ask of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use boatyard_content::Root;
use boatyard_oci::{Algorithm, Digest};
use http::Method;
use tokio::sync::OnceCell;

use super::address::{self, ByHash};
use super::catalogue::{self, CatalogueError, Listed};
use super::format::Suites;
use super::stanza::StanzaError;
use super::unpack::{Limits, unpack};
use crate::class::{Class, Promise};
use crate::ecosystem::{Classified, Ecosystem, Explained, Fetcher, Resolution};
use crate::entry::Entry;
use crate::generation::{Asking, Generation, Options, Set};
use crate::request::Request;
use crate::target::Target;

/// How many suites are known at once.
const SETS_MAX: usize = 10_000;

/// What the file names of packages end with, wherever they are. Sources have names as others have.
const PACKAGES: [&str; 4] = [".deb", ".udeb", ".ddeb", ".dsc"];

/// apt's archives: suites and flat repositories of whatever hosts.
#[derive(Debug)]
pub struct Apt {
    root: Arc<Root>,
    options: Options,
    sets: Mutex<BTreeMap<String, Slot>>,
}

type Slot = Arc<OnceCell<Arc<Set>>>;

impl Apt {
    /// Returns the ecosystem of apt on a root, with the suites that are held there. Blocking.
    pub fn new(root: Arc<Root>, options: Options) -> Apt {
        let known = Set::addresses(&root);
        let sets = known.into_iter().map(|address| (address.as_str().to_owned(), Slot::default()));
        let sets = Mutex::new(sets.collect());
        Apt { root, options, sets }
    }

    /// Says what is known of the suites above a target, a line each.
    pub async fn describe(&self, target: &Target, now: jiff::Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for set in self.above(target).await {
            lines.extend(set.describe(now));
        }
        lines
    }

    /// Returns the set at an address, which is made known.
    async fn set(&self, address: &Target) -> Option<Arc<Set>> {
        let slot = {
            let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            if sets.len() >= SETS_MAX && !sets.contains_key(address.as_str()) {
                return None;
            }
            Arc::clone(sets.entry(address.as_str().to_owned()).or_default())
        };
        self.open(address, &slot).await
    }

    async fn open(&self, address: &Target, slot: &Slot) -> Option<Arc<Set>> {
        let opened = slot.get_or_try_init(|| async {
            let (address, root) = (address.clone(), Arc::clone(&self.root));
            let options = self.options.clone();
            let open = move || Set::open(address, root, Arc::new(Suites), options);
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
    fn forget(&self, set: &Set) {
        if set.is_empty() {
            let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            sets.remove(set.address().as_str());
        }
    }

    fn is_known(&self, address: &str) -> bool {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).contains_key(address)
    }

    /// Returns the sets above a target, the nearest first.
    async fn above(&self, target: &Target) -> Vec<Arc<Set>> {
        let mut above = Vec::new();
        for directory in address::directories(target.path()) {
            let Ok(address) = target.at(directory) else { continue };
            if self.is_known(address.as_str()) {
                above.extend(self.set(&address).await);
            }
        }
        above
    }

    /// Returns the sets of the same server, each with the names that a target may have in its
    /// indexes.
    async fn beside(&self, target: &Target) -> Vec<(Arc<Set>, Vec<String>)> {
        let origin = target.url().origin().ascii_serialization();
        let from = format!("{origin}/");
        let known: Vec<String> = {
            let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            let known = sets.range(from.clone()..).map(|(address, _)| address);
            known.take_while(|address| address.starts_with(&from)).cloned().collect()
        };
        let mut beside = Vec::new();
        for known in known {
            let names = names_in(&known[origin.len()..], target.path());
            if names.is_empty() {
                continue;
            }
            if let Ok(address) = known.parse() {
                beside.extend(self.set(&address).await.map(|set| (set, names)));
            }
        }
        beside
    }

    /// Returns what an index that is held says of a package file: the index of the generation that
    /// the client has, then the newest, then older ones.
    async fn package(&self, request: &Request) -> Option<Promise> {
        let beside = self.beside(&request.target).await;
        let request = request.clone();
        let root = Arc::clone(&self.root);
        let found = tokio::task::spawn_blocking(move || {
            let mut candidates = Vec::new();
            for (set, names) in &beside {
                for (age, generation) in set.generations(&request).into_iter().enumerate() {
                    candidates.push((age, set, generation, names));
                }
            }
            candidates.sort_by_key(|(age, ..)| *age);
            candidates.into_iter().find_map(|(_, set, generation, names)| {
                let listed = names.iter().find_map(|name| listed(&root, set, &generation, name))?;
                let by = set.address().to_string();
                Some(Promise { digest: listed.digest, size: Some(listed.size), by })
            })
        });
        found.await.ok()?
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

/// Decodes the `%XX` of a path; `None` where the result is no text.
fn decode(path: &str) -> Option<String> {
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

/// Looks a package file up in the indexes of a generation. Blocking.
fn listed(root: &Root, set: &Set, generation: &Generation, name: &str) -> Option<Listed> {
    let children = set.held_children(generation).ok()?;
    let indexes = children.iter().filter(|(path, _)| address::lists_packages(path));
    for (path, digest) in indexes {
        let found = look_up(root, set, digest, name).unwrap_or_else(|error| {
            tracing::warn!(set = %set.address(), path = &**path, %error, "cannot use an index of packages");
            None
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

fn look_up(
    root: &Root,
    set: &Set,
    index: &Digest,
    name: &str,
) -> Result<Option<Listed>, CatalogueError> {
    let path = set.derived(index);
    if let Ok(found) = catalogue::look_up(&path, name) {
        return Ok(found.into_iter().next());
    }
    let Some(blob) = root.store().open_blocking(index)? else { return Ok(None) };
    let unpacked = unpack(blob.into_file(), Limits::default()).map_err(StanzaError::Read)?;
    catalogue::make(unpacked, &path)?;
    Ok(catalogue::look_up(&path, name)?.into_iter().next())
}

#[async_trait]
impl Ecosystem for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn classify(&self, request: &Request) -> Option<Classified> {
        if !matches!(request.method, Method::GET | Method::HEAD)
            || request.target.url().query().is_some()
        {
            return None;
        }
        let (path, url) = (request.target.path(), request.target.as_str());
        let is_package = || PACKAGES.iter().any(|end| path.ends_with(end));
        let is_below = || {
            let origin = url.len() - path.len();
            let mut above = address::directories(path);
            above.any(|directory| self.is_known(&url[..origin + directory.len()]))
        };
        let mine = address::root(path).is_some()
            || ["/dists/", "/pool/"].iter().any(|part| path.contains(part))
            || address::by_hash(path).is_some()
            || is_package()
            || is_below();
        mine.then_some(Classified::Resolve)
    }

    async fn resolve(&self, request: &Request, fetcher: &dyn Fetcher) -> Resolution {
        let path = request.target.path();
        let asking = Asking { request, fetcher };
        if let Some(root) = address::root(path)
            && let Ok(address) = request.target.at(root.directory)
            && let Some(set) = self.set(&address).await
        {
            let resolution = set.root(asking, root.name).await;
            self.forget(&set);
            return resolution.unwrap_or(Resolution::Class(Class::index()));
        }
        for set in self.above(&request.target).await {
            let Some(below) = path.strip_prefix(set.address().path()).and_then(decode) else {
                continue;
            };
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
        let now = fetcher.now();
        for set in self.above(&entry.target).await {
            let path = entry.target.path();
            let Some(below) = path.strip_prefix(set.address().path()).and_then(decode) else {
                continue;
            };
            let by_hash = address::by_hash(&below).map(|by_hash| by_hash.directory.to_owned());
            let directory = by_hash.unwrap_or_else(|| address::split(&below).0.to_owned());
            let blob = entry.blob.clone();
            // A stop of the server may come in between: then it is noted when it is asked for.
            let noted = tokio::task::spawn_blocking(move || set.landed(&directory, &blob, now));
            let _ = noted.await;
        }
    }

    fn needed(&self) -> HashSet<Digest> {
        match self.root.generations().held() {
            Ok(held) => held.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "cannot list what generations hold");
                HashSet::new()
            }
        }
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

    #[test]
    fn texts_are_decoded_once() {
        for (text, expected) in [("a%2Bb", "a+b"), ("%253a", "%3a"), ("%", "%"), ("%zz%4", "%zz%4")]
        {
            assert_eq!(decode(text).as_deref(), Some(expected));
        }
        assert_eq!(decode("%ff"), None);
    }
}
