//! What the cache keeps, and what each of it would free.
//!
//! It goes by what steps made, because that is what takes space: a content, with the records that name
//! it, the layers that have it (one for each time policy), their blobs, unpacked trees and tables, and
//! the tables of what was copied into it. They come and go together. What belongs to no record any
//! more is kept on its own: a layer without records, a table of a base image, the stat cache of a
//! context, a cache that steps mount.
//!
//! Counted is what removing would free: blobs that no image and no repository holds as well, a tree
//! that is a layer's only form, and files of the cache's own. An unpacked tree of a layer that has
//! a blob is not counted: it is a cache of that blob, and `boatyard gc` removes it by its age.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use boatyard_content::Root;
use boatyard_content::encodings::Encoding;
use boatyard_content::gc::held_beside_builds;
use boatyard_content::lease::Holding;
use boatyard_oci::{Algorithm, ChainId, DiffId, Digest};

use super::key::Key;
use super::mounts::About;
use super::record::Record;
use super::{Cache, CacheError, Doing as _, Lookup, Storing as _, fetched, files};
use crate::layer::ContentId;

/// A file without a record may be one whose record is about to be written.
pub(super) const YOUNG: Duration = Duration::from_secs(3600);

/// One thing that the cache keeps, and that goes as a whole.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is.
    pub what: What,
    /// The records that name it, the one that was used last first.
    pub records: Vec<KeptRecord>,
    /// What is written about it, if it is a cache that steps mount.
    pub about: Option<About>,
    /// How many bytes removing it would free.
    pub bytes: u64,
    /// When it, or a step above it, was used last, give or take an hour.
    pub used: SystemTime,
    /// A running process relies on it: it stays.
    pub is_in_use: bool,
    /// An image has its blob, too: removing it frees no more than what the image does not have.
    pub is_shared: bool,
    /// Its layer can be had. Otherwise the records that name it find nothing any more.
    pub is_usable: bool,
    pub(super) holds: Holds,
}

/// What a thing is that the cache keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// What a step made: the layer that its newest record names.
    Layer(DiffId),
    /// The table of contents of a layer that no step made: of a base image.
    Contents(DiffId),
    /// What is remembered of a context's files.
    Stat(PathBuf),
    /// What steps keep in a cache that they mount, by the name of its directory.
    Mount(String),
    /// What was fetched for ADD or a context: where it came from.
    Fetched(String),
}

/// A record, and how it is found.
#[derive(Clone, Debug)]
pub struct KeptRecord {
    /// The key of its parts.
    pub key: Key,
    /// What it says.
    pub record: Record,
    /// When it was used last, give or take an hour.
    pub used: SystemTime,
    pub(super) files: Vec<PathBuf>,
}

/// What goes with a thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    /// Its layers.
    pub layers: Vec<Layer>,
    /// Files of the cache, with their sizes.
    pub files: Vec<(PathBuf, u64)>,
    /// The directory of something that was fetched.
    pub directory: Option<(PathBuf, u64)>,
}

/// A layer in all its forms.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// Its blobs that no image has, with their sizes.
    pub own: Vec<(Encoding, u64)>,
    /// Its other blobs.
    pub shared: Vec<Encoding>,
    /// Its unpacked trees, as leases name them.
    pub trees: Vec<String>,
}

impl Layer {
    fn has_blob(&self) -> bool {
        !self.shared.is_empty() || self.own.iter().any(|(_, size)| *size > 0)
    }

    /// Returns the trees that are its only form.
    pub(super) fn only_trees(&self) -> &[String] {
        if self.has_blob() { &[] } else { &self.trees }
    }
}

/// All that a cache keeps.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// It, in no order.
    pub kept: Vec<Kept>,
    /// Files that nothing needs any more and that are not young: they go with the next pruning.
    pub(super) orphans: Vec<PathBuf>,
}

impl Usage {
    /// Returns how many bytes removing all of it would free.
    pub fn bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes).sum()
    }
}

impl Cache {
    /// Lists what the cache keeps.
    ///
    /// # Errors
    /// Where something cannot be listed.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        Survey::new(self)?.usage()
    }

    /// Returns the names of unpacked layers, as leases have them, that are the only form of a
    /// record's layer: the collector of layers leaves them alone.
    ///
    /// # Errors
    /// Where something cannot be listed.
    pub fn only_trees(&self) -> Result<HashSet<String>, CacheError> {
        let usage = self.usage()?;
        let layers = usage.kept.iter().flat_map(|kept| &kept.holds.layers);
        Ok(layers.flat_map(Layer::only_trees).cloned().collect())
    }
}

impl Kept {
    /// Says whether removing it frees anything.
    pub(super) fn frees(&self) -> bool {
        !self.is_shared || self.bytes > 0
    }

    fn blob_bytes(&self) -> u64 {
        let own = self.holds.layers.iter().flat_map(|layer| &layer.own);
        own.map(|(_, size)| size).sum()
    }

    /// Returns the size of the trees that are the only form of a layer: about, for a tree is as large
    /// as its archive only without holes.
    pub(super) fn tree_bytes(&self) -> u64 {
        let Some(newest) = self.records.first() else { return 0 };
        let trees = self.holds.layers.iter().filter(|layer| !layer.only_trees().is_empty());
        trees.count() as u64 * newest.record.layer.size
    }
}

/// What belongs together, before it is clear what it would free.
#[derive(Default)]
struct Gathered {
    records: BTreeMap<Key, KeptRecord>,
    layers: BTreeMap<DiffId, Vec<Encoding>>,
}

struct Survey<'a> {
    cache: &'a Cache,
    root: &'a Root,
    images: HashSet<Digest>,
    leased: HashSet<Holding>,
    views: Vec<String>,
    now: SystemTime,
}

impl<'a> Survey<'a> {
    fn new(cache: &'a Cache) -> Result<Survey<'a>, CacheError> {
        let root: &Root = &cache.root;
        let images = held_beside_builds(root)
            .map_err(|source| CacheError::Collect { doing: "tell what others hold", source })?;
        let views = files::list(&root.path().join("layers")).doing("list unpacked layers")?;
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(Survey {
            cache,
            root,
            images,
            leased: root.holdings().storing("read the leases")?,
            views: views.iter().filter_map(name).collect(),
            now: SystemTime::now(),
        })
    }

    fn usage(&self) -> Result<Usage, CacheError> {
        let mut usage = Usage::default();
        let mut at: HashMap<DiffId, usize> = HashMap::new();
        for gathered in self.gather()? {
            for diff_id in gathered.layers.keys() {
                at.insert(diff_id.clone(), usage.kept.len());
            }
            usage.kept.extend(self.kept(gathered)?);
        }
        self.adopted(&mut usage, &at)?;
        self.inputs(&mut usage)?;
        self.contents(&mut usage, &at)?;
        self.stat_caches(&mut usage)?;
        self.mounts(&mut usage)?;
        self.fetched(&mut usage)?;
        for kept in &mut usage.kept {
            let files: u64 = kept.holds.files.iter().map(|(_, size)| size).sum();
            // As long as an image has the layer, so do its records stay.
            kept.bytes += if kept.is_shared { 0 } else { files };
        }
        lift(&mut usage.kept);
        Ok(usage)
    }

    /// Gathers what belongs together: by content, contents that have a layer in common, and layers
    /// without a record on their own.
    fn gather(&self) -> Result<Vec<Gathered>, CacheError> {
        let mut by_content = self.records()?;
        let mut pairs: Vec<(DiffId, ContentId)> = Vec::new();
        for (path, diff_id) in self.layer_names()? {
            let content = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let content = content.and_then(|name| name.parse::<ContentId>().ok());
            let content = content.filter(|content| by_content.contains_key(content));
            pairs.extend(content.map(|content| (diff_id, content)));
        }
        for (content, gathered) in &by_content {
            let named = gathered.records.values().map(|kept| kept.record.layer.diff_id.clone());
            pairs.extend(named.map(|diff_id| (diff_id, *content)));
        }
        // A RUN and the COPY of all that it made differ in which times count, and have one archive.
        let mut contents: HashMap<DiffId, ContentId> = HashMap::new();
        let mut joined: HashMap<ContentId, ContentId> = HashMap::new();
        let head = |joined: &HashMap<ContentId, ContentId>, mut content: ContentId| {
            while let Some(next) = joined.get(&content) {
                content = *next;
            }
            content
        };
        for (diff_id, content) in pairs {
            let content = head(&joined, content);
            let first = *contents.entry(diff_id).or_insert(content);
            let first = head(&joined, first);
            if first != content
                && let Some(other) = by_content.remove(&content)
            {
                by_content.entry(first).or_default().records.extend(other.records);
                joined.insert(content, first);
            }
        }
        for content in contents.values_mut() {
            *content = head(&joined, *content);
        }
        let mut alone: BTreeMap<DiffId, Gathered> = BTreeMap::new();
        for (diff_id, content) in &contents {
            let gathered = by_content.entry(*content).or_default();
            gathered.layers.entry(diff_id.clone()).or_default();
        }
        for encoding in self.root.encodings().all().storing("list the encodings")? {
            let diff_id = encoding.diff_id.clone();
            let gathered = match contents.get(&diff_id) {
                Some(content) => by_content.entry(*content).or_default(),
                None => alone.entry(diff_id.clone()).or_default(),
            };
            gathered.layers.entry(diff_id).or_default().push(encoding);
        }
        Ok(by_content.into_values().chain(alone.into_values()).collect())
    }

    /// Reads all records, by the contents of their layers.
    fn records(&self) -> Result<BTreeMap<ContentId, Gathered>, CacheError> {
        let mut by_content: BTreeMap<ContentId, Gathered> = BTreeMap::new();
        for path in files::walk(&self.cache.records()).doing("list the records")? {
            let Some((_, used)) = files::size_and_time(&path).doing("look at a record")? else {
                continue;
            };
            // What is damaged, or of another version, is the business of whoever looks it up.
            let Lookup::Hit(record) = self.cache.read(&path)? else { continue };
            let gathered = by_content.entry(record.layer.content).or_default();
            let key = record.key();
            let record = KeptRecord { key, record: *record, used, files: vec![path] };
            match gathered.records.entry(key) {
                Entry::Vacant(place) => drop(place.insert(record)),
                Entry::Occupied(mut place) => place.get_mut().join(record),
            }
        }
        Ok(by_content)
    }

    fn kept(&self, gathered: Gathered) -> Result<Option<Kept>, CacheError> {
        let mut records: Vec<KeptRecord> = gathered.records.into_values().collect();
        records.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.key.cmp(&b.key)));
        let newest = records.first().map(|kept| kept.record.layer.diff_id.clone());
        let Some(name) = newest.or_else(|| gathered.layers.keys().next().cloned()) else {
            return Ok(None);
        };
        let mut used = records.first().map(|record| record.used);
        let mut holds = Holds::default();
        for (diff_id, encodings) in gathered.layers {
            for encoding in encodings.iter().filter(|_| records.is_empty()) {
                let written = self.root.encodings().written(encoding);
                used = used.max(written.storing("look at an encoding")?);
            }
            holds.layers.push(self.layer(&diff_id, encodings, &records)?);
        }
        for path in records.iter().flat_map(|record| &record.files) {
            if let Some((size, _)) = files::size_and_time(path).doing("look at a record")? {
                holds.files.push((path.clone(), size));
            }
        }
        let has = |is: fn(&Layer) -> bool| holds.layers.iter().any(is);
        let mut kept = Kept {
            what: What::Layer(name),
            bytes: 0,
            used: used.unwrap_or(self.now),
            is_in_use: holds.layers.iter().any(|layer| self.is_leased(layer)),
            is_shared: has(|layer| !layer.shared.is_empty()),
            is_usable: has(|layer| layer.has_blob() || !layer.trees.is_empty()),
            records,
            about: None,
            holds,
        };
        kept.bytes = kept.blob_bytes() + kept.tree_bytes();
        Ok(Some(kept))
    }

    fn layer(
        &self,
        diff_id: &DiffId,
        encodings: Vec<Encoding>,
        records: &[KeptRecord],
    ) -> Result<Layer, CacheError> {
        let of_it = records.iter().map(|kept| &kept.record.layer);
        let chains = of_it.filter(|layer| layer.diff_id == *diff_id).map(|layer| &layer.chain_id);
        let mut layer = Layer { trees: self.trees(diff_id, chains), ..Layer::default() };
        for encoding in encodings {
            let blob =
                self.root.store().stat_blocking(&encoding.blob).storing("look for a blob")?;
            match blob {
                Some(_) if self.images.contains(&encoding.blob) => layer.shared.push(encoding),
                blob => layer.own.push((encoding, blob.map_or(0, |blob| blob.size))),
            }
        }
        Ok(layer)
    }

    /// Says whether a living process relies on a layer.
    fn is_leased(&self, layer: &Layer) -> bool {
        let blobs = layer.own.iter().map(|(encoding, _)| encoding).chain(&layer.shared);
        let mut blobs = blobs.map(|encoding| Holding::Blob(encoding.blob.clone()));
        let mut trees = layer.trees.iter().map(|tree| Holding::Layer(tree.clone()));
        blobs.any(|blob| self.leased.contains(&blob))
            || trees.any(|tree| self.leased.contains(&tree))
    }

    /// Returns the unpacked trees of a layer, as leases name them.
    fn trees<'b>(
        &self,
        diff_id: &DiffId,
        chains: impl Iterator<Item = &'b ChainId>,
    ) -> Vec<String> {
        let name = |kind: &str, digest: &Digest| {
            format!("{kind}/{}/{}", digest.algorithm().name(), digest.hex())
        };
        let mut names = BTreeSet::from([name("diff", diff_id.digest())]);
        names.extend(chains.map(|chain| name("chain", chain.digest())));
        let layers = self.root.path().join("layers");
        let trees = self
            .views
            .iter()
            .flat_map(|view| names.iter().rev().map(move |name| format!("{view}/{name}")));
        trees.filter(|tree| layers.join(tree).exists()).collect()
    }

    /// Adds the names of adopted layers to what they name.
    fn adopted(&self, usage: &mut Usage, at: &HashMap<DiffId, usize>) -> Result<(), CacheError> {
        for (path, diff_id) in self.layer_names()? {
            self.give(usage, at.get(&diff_id).copied(), path)?;
        }
        Ok(())
    }

    /// Reads the names of adopted layers; those that a power cut tore are nobody's.
    fn layer_names(&self) -> Result<Vec<(PathBuf, DiffId)>, CacheError> {
        let mut names = Vec::new();
        for path in files::walk(&self.cache.directory.join("layers")).doing("list the layers")? {
            let text = files::read(&path).doing("read a layer's name")?.unwrap_or_default();
            names.extend(super::named_layer(&text).map(|diff_id| (path, diff_id)));
        }
        Ok(names)
    }

    /// Adds the tables of what was copied to the layers that came of it.
    fn inputs(&self, usage: &mut Usage) -> Result<(), CacheError> {
        let mut needed: HashMap<String, (SystemTime, usize)> = HashMap::new();
        for (place, kept) in usage.kept.iter().enumerate() {
            for input in kept.records.iter().flat_map(|kept| &kept.record.inputs) {
                let newest = needed.entry(input.content.to_string()).or_insert((kept.used, place));
                *newest = (*newest).max((kept.used, place));
            }
        }
        for path in files::walk(&self.cache.directory.join("inputs")).doing("list the inputs")? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let place = needed.get(name).map(|(_, place)| *place);
            self.give(usage, place, path)?;
        }
        Ok(())
    }

    /// Lets a file go with a thing; one that belongs to none is an orphan once it is not young.
    fn give(
        &self,
        usage: &mut Usage,
        place: Option<usize>,
        path: PathBuf,
    ) -> Result<(), CacheError> {
        let Some((size, time)) = files::size_and_time(&path).doing("look at a file")? else {
            return Ok(());
        };
        match place {
            Some(place) => usage.kept[place].holds.files.push((path, size)),
            None if is_older(time, YOUNG, self.now) => usage.orphans.push(path),
            None => {}
        }
        Ok(())
    }

    /// Adds the tables of contents, those of base images on their own.
    fn contents(&self, usage: &mut Usage, at: &HashMap<DiffId, usize>) -> Result<(), CacheError> {
        for algorithm in Algorithm::ALL {
            let directory = self.root.path().join("contents").join(algorithm.name());
            for path in files::walk(&directory).doing("list the tables of contents")? {
                let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Ok(digest) = Digest::from_parts(algorithm, hex) else { continue };
                let diff_id = DiffId::new(digest);
                match at.get(&diff_id) {
                    Some(place) => self.give(usage, Some(*place), path)?,
                    None => usage.kept.extend(self.alone(What::Contents(diff_id), &path)?),
                }
            }
        }
        Ok(())
    }

    fn stat_caches(&self, usage: &mut Usage) -> Result<(), CacheError> {
        for path in files::walk(&self.cache.directory.join("stat")).doing("list the stat caches")? {
            usage.kept.extend(self.alone(What::Stat(path.clone()), &path)?);
        }
        Ok(())
    }

    /// Adds the caches that steps mount.
    fn mounts(&self, usage: &mut Usage) -> Result<(), CacheError> {
        for mount in self.cache.mounts().list()? {
            let is_leased = self.leased.contains(&Holding::Mount(mount.name.clone()));
            usage.kept.push(Kept {
                what: What::Mount(mount.name),
                records: Vec::new(),
                about: mount.about,
                bytes: mount.bytes,
                used: mount.used,
                is_in_use: mount.is_locked || is_leased,
                is_shared: false,
                is_usable: true,
                holds: Holds::default(),
            });
        }
        Ok(())
    }

    fn fetched(&self, usage: &mut Usage) -> Result<(), CacheError> {
        let listed = fetched::list(&self.cache.directory).doing("list what was fetched")?;
        let (found, lost) = listed;
        for path in lost {
            self.give(usage, None, path)?;
        }
        for fetched in found {
            let place = usage.kept.len();
            usage.kept.push(Kept {
                what: What::Fetched(fetched.name),
                records: Vec::new(),
                about: None,
                bytes: fetched.bytes,
                used: fetched.used,
                is_in_use: fetched.is_in_use,
                is_shared: false,
                is_usable: true,
                holds: Holds {
                    directory: Some((fetched.directory, fetched.bytes)),
                    ..Holds::default()
                },
            });
            for path in fetched.names {
                self.give(usage, Some(place), path)?;
            }
        }
        Ok(())
    }

    /// Returns a file that is kept for itself.
    fn alone(&self, what: What, path: &Path) -> Result<Option<Kept>, CacheError> {
        let found = files::size_and_time(path).doing("look at a file")?;
        Ok(found.map(|(size, used)| Kept {
            what,
            records: Vec::new(),
            about: None,
            bytes: 0,
            used,
            is_in_use: false,
            is_shared: false,
            is_usable: true,
            holds: Holds { files: vec![(path.to_path_buf(), size)], ..Holds::default() },
        }))
    }
}

/// Makes everything as recently used as what lies above it: nothing finds a step whose parent is gone.
fn lift(kept: &mut [Kept]) {
    let mut needed: HashMap<ContentId, SystemTime> = HashMap::new();
    for (used, record) in kept.iter().flat_map(|kept| kept.records.iter().map(|r| (kept.used, r))) {
        for below in &record.record.ground.steps {
            let latest = needed.entry(below.content).or_insert(used);
            *latest = used.max(*latest);
        }
    }
    for kept in kept {
        let content = kept.records.first().map(|kept| kept.record.layer.content);
        if let Some(above) = content.and_then(|content| needed.get(&content)) {
            kept.used = kept.used.max(*above);
        }
    }
}

impl KeptRecord {
    /// Returns all that it is found by.
    pub fn keys(&self) -> Vec<Key> {
        let names = self.files.iter().filter_map(|path| path.file_name()?.to_str());
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// Adds the file of the same record under another key. The newest says what the record is.
    fn join(&mut self, other: KeptRecord) {
        self.files.extend(other.files);
        self.used = self.used.max(other.used);
        if other.record.created > self.record.created {
            self.record = other.record;
        }
    }
}

/// Says whether a time is longer ago than that. One in the future is not.
pub(super) fn is_older(time: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(time).is_ok_and(|since| since > age)
}
