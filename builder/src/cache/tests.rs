//! The cache on a root of its own: what is written is found, and what goes is what nobody needs.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boatyard_content::gc::{self, GcOptions};
use boatyard_content::local::RootOptions;
use boatyard_content::repository::Space;
use boatyard_content::{Expected, IngestKey, Lease, Root};
use boatyard_oci::{Descriptor, DiffId, Digest, MediaType};
use fs_err as fs;

use super::testing::record;
use super::*;
use crate::layer::{Chosen, ContentTimes, LayerWriter, Restamp, WriteOptions};
use crate::snapshot::{Layers, View, ViewKind};

struct World {
    cache: Cache,
    layers: Layers,
    root: Arc<Root>,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let layers = Layers::open(root.path(), Lease::unheld(), View::new(ViewKind::Root)).unwrap();
        World { cache: Cache::open(&root), layers, root, _directory: directory }
    }

    /// Lands a blob of this many bytes, and says that it holds the layer of a record.
    fn encode(&self, record: &Record, compression: &str, size: usize) -> Digest {
        let lease = self.root.lease().unwrap();
        let mut bytes = record.layer.diff_id.to_string().into_bytes();
        bytes.resize(size, b'.');
        let mut ingest = self.root.store().ingest_blocking(&IngestKey::random(), &lease).unwrap();
        ingest.write_all(&bytes).unwrap();
        ingest.write_all(compression.as_bytes()).unwrap();
        let blob = ingest.commit_blocking(&Expected::any()).unwrap().info().clone();
        let descriptor = Descriptor::new(MediaType::OCI_LAYER, blob.digest.clone(), blob.size);
        assert!(self.cache.put_encoding(&record.layer.diff_id, compression, &descriptor).unwrap());
        blob.digest
    }

    fn put(&self, record: &Record) -> Key {
        self.cache.put(&[record.key()], record).unwrap();
        record.key()
    }

    /// A step whose layer has a blob of 1000 bytes, used so many hours ago.
    fn step(&self, ordinal: u32, hours: u64) -> Record {
        let record = record(ordinal, &format!("RUN step {ordinal}"));
        self.encode(&record, "gzip", 996);
        self.age(&self.put(&record), hours);
        record
    }

    fn age(&self, key: &Key, hours: u64) {
        let used = SystemTime::now() - Duration::from_secs(hours * 3600 + 1);
        let file = fs::OpenOptions::new().write(true).open(self.cache.record_path(key)).unwrap();
        file.into_file().set_modified(used).unwrap();
    }

    fn prune(&self, rules: &Rules) -> Pruned {
        std::thread::sleep(Duration::from_millis(40));
        self.cache.prune(std::slice::from_ref(&self.layers), rules, &at_once()).unwrap()
    }

    fn has(&self, record: &Record) -> bool {
        matches!(self.cache.find(&record.key()).unwrap(), Lookup::Hit(_))
    }

    fn collect(&self) -> usize {
        std::thread::sleep(Duration::from_millis(40));
        gc::collect(&self.root, &at_once()).unwrap().freed.len()
    }

    /// Unpacks the layer of a record.
    fn unpack(&self, record: &Record, blob: &[u8]) -> PathBuf {
        let unpack = crate::snapshot::Unpack {
            blob,
            diff_id: &record.layer.diff_id,
            lowers: &[],
            threads: 1,
            limits: Default::default(),
            decompress: Default::default(),
        };
        self.layers.unpack(unpack).unwrap().path().to_path_buf()
    }
}

fn at_once() -> GcOptions {
    GcOptions { grace: Duration::ZERO, ..GcOptions::default() }
}

/// Returns an archive of nothing, and its diff ID.
fn empty_layer() -> (Vec<u8>, DiffId) {
    let options = WriteOptions { times: ContentTimes::None, restamp: Restamp::AS_MADE };
    let (bytes, written) = LayerWriter::new(Vec::new(), options).finish().unwrap();
    (bytes, written.diff_id)
}

#[test]
fn a_record_is_found_under_each_of_its_keys() {
    let world = World::new();
    let record = record(1, "RUN make");
    let definition = Parts::new("RUN").key();
    assert!(matches!(world.cache.find(&definition).unwrap(), Lookup::Miss));
    world.cache.put(&[definition, record.key()], &record).unwrap();
    for key in [definition, record.key()] {
        let Lookup::Hit(found) = world.cache.find(&key).unwrap() else { panic!("not found") };
        assert_eq!(*found, record);
    }
    let usage = world.cache.usage().unwrap();
    assert_eq!(usage.kept.len(), 1);
    assert_eq!(usage.kept[0].records.len(), 1, "two files, one record");
}

#[test]
fn what_is_torn_or_of_another_version_is_not_believed() {
    let world = World::new();
    let record = record(1, "RUN make");
    let path = world.cache.record_path(&world.put(&record));
    let whole = fs::read(&path).unwrap();
    let newer = String::from_utf8(whole.clone()).unwrap().replacen(":1,", ":2,", 1);
    fs::write(&path, newer).unwrap();
    assert!(matches!(world.cache.find(&record.key()).unwrap(), Lookup::Miss));
    let mut zeroed = whole.clone();
    zeroed[200..240].fill(0);
    let changed = String::from_utf8(whole.clone()).unwrap().replace("make", "fake").into_bytes();
    for torn in [&b""[..], &whole[..whole.len() / 2], &zeroed, &changed] {
        fs::write(&path, torn).unwrap();
        assert!(matches!(world.cache.find(&record.key()).unwrap(), Lookup::Damaged { .. }));
        assert!(!path.exists(), "it is reported once");
    }
}

#[test]
fn the_first_layer_of_a_content_is_adopted() {
    let world = World::new();
    let (first, second) = (record(1, "RUN a").layer, record(2, "RUN b").layer);
    let adopt =
        |times, diff_id| world.cache.adopt(&first.content, times, diff_id, &Chosen::None).unwrap();
    assert_eq!(adopt(TimePolicy::AsMade, &first.diff_id), first.diff_id);
    assert_eq!(adopt(TimePolicy::AsMade, &second.diff_id), first.diff_id);
    assert_eq!(adopt(TimePolicy::Epoch(0), &second.diff_id), second.diff_id);
    let readopted =
        world.cache.readopt(&first.content, TimePolicy::AsMade, &second.diff_id, &Chosen::None);
    readopted.unwrap();
    assert_eq!(adopt(TimePolicy::AsMade, &first.diff_id), second.diff_id);
    // As a power cut leaves it.
    fs::write(world.cache.layer_path(&first.content, TimePolicy::AsMade), "").unwrap();
    assert_eq!(adopt(TimePolicy::AsMade, &first.diff_id), first.diff_id);
}

#[test]
fn records_of_two_contents_share_a_layer() {
    let world = World::new();
    let (run, mut copy) = (record(1, "RUN make"), record(2, "COPY . ."));
    copy.layer.diff_id = run.layer.diff_id.clone();
    world.put(&run);
    world.put(&copy);
    world.encode(&run, "gzip", 10);
    let usage = world.cache.usage().unwrap();
    assert_eq!(usage.kept.len(), 1);
    assert_eq!(usage.kept[0].records.len(), 2);
    assert!(usage.kept[0].is_usable);
}

#[test]
fn layers_of_old_epochs_are_forgotten() {
    let world = World::new();
    let layer = record(1, "RUN a").layer;
    let chosen = Chosen::Outside { first: 5, last: 9, inherited: [3].into() };
    let adopt = |times| world.cache.adopt(&layer.content, times, &layer.diff_id, &chosen).unwrap();
    adopt(TimePolicy::AsMade);
    for epoch in 0..9 {
        adopt(TimePolicy::Epoch(epoch));
    }
    let layers = world.cache.layers(&layer.content).unwrap();
    assert_eq!(layers.len(), EPOCHS_MAX + 1);
    assert_eq!(layers[0].times, TimePolicy::AsMade);
    assert_eq!(layers[1].times, TimePolicy::Epoch(8));
    assert!(layers.iter().all(|named| named.chosen == chosen && named.diff_id == layer.diff_id));
}

#[test]
fn an_encoding_holds_its_blob_until_it_is_given_up() {
    let world = World::new();
    let record = record(1, "RUN make");
    let blob = world.encode(&record, "gzip", 10);
    assert_eq!(world.collect(), 0);
    let encodings = world.cache.encodings(&record.layer.diff_id).unwrap();
    assert_eq!((encodings[0].0.as_str(), &encodings[0].1.digest), ("gzip", &blob));
    let all = world.root.encodings().all().unwrap();
    let lease = world.root.lease().unwrap();
    world.root.store().hold_blocking(&blob, Some(&lease)).unwrap();
    assert_eq!(world.root.encodings().remove(&all).unwrap(), [], "somebody relies on it");
    lease.release();
    assert_eq!(world.root.encodings().remove(&all).unwrap(), all);
    assert_eq!(world.collect(), 1);
    let absent = Descriptor::new(MediaType::OCI_LAYER, blob, 10);
    assert!(!world.cache.put_encoding(&record.layer.diff_id, "gzip", &absent).unwrap());
}

/// Returns the ordinals of the steps that went, in their order.
fn gone(pruned: &Pruned) -> Vec<u32> {
    pruned.removed.iter().map(|kept| kept.records[0].record.ordinal).collect()
}

#[test]
fn the_least_recently_used_goes_first() {
    let world = World::new();
    let steps = [world.step(1, 4), world.step(2, 3), world.step(3, 1), world.step(4, 9)];
    let total = world.cache.usage().unwrap().bytes();
    let rules = Rules { keep_bytes: Some(total - 2500), ..Rules::default() };
    let pruned = world.prune(&rules);
    assert_eq!(gone(&pruned), [4, 1]);
    assert_eq!((pruned.freed_bytes, pruned.waiting_bytes), (total - pruned.left_bytes, 0));
    assert_eq!(world.cache.usage().unwrap().bytes(), pruned.left_bytes);
    let rules = Rules { older_than: Some(Duration::from_secs(2 * 3600)), ..Rules::default() };
    assert_eq!(gone(&world.prune(&rules)), [2]);
    assert_eq!(steps.each_ref().map(|step| world.has(step)), [false, false, true, false]);
}

#[test]
fn a_step_stays_as_long_as_one_above_it() {
    let world = World::new();
    let base = world.step(1, 9);
    let mut above = record(2, "RUN above");
    let step = Below { step: "RUN step 1".into(), content: base.layer.content };
    above.ground.steps = vec![step];
    world.encode(&above, "gzip", 996);
    world.put(&above);
    // Looked at by itself, the base was not used for hours.
    world.step(3, 5);
    let rules = Rules { keep_bytes: Some(4500), ..Rules::default() };
    assert_eq!(gone(&world.prune(&rules)), [3]);
    let rules = Rules { keep_bytes: Some(2500), ..Rules::default() };
    assert_eq!(gone(&world.prune(&rules)), [2], "the higher one first");
}

#[test]
fn what_an_image_has_too_frees_nothing_and_stays_unless_all_is_asked_for() {
    let world = World::new();
    let record = world.step(1, 5);
    let blob = world.cache.encodings(&record.layer.diff_id).unwrap()[0].1.digest.clone();
    let app = world.root.repositories().repository(&Space::Hosted, &"app".parse().unwrap());
    app.link_blob(&blob).unwrap();
    let usage = world.cache.usage().unwrap();
    assert!(usage.kept[0].is_shared);
    assert_eq!(usage.bytes(), 0);
    assert_eq!(world.prune(&Rules::default()).removed.len(), 0);
    // Another packing of the layer is the cache's alone.
    let zstd = world.encode(&record, "zstd", 500);
    assert_eq!(world.prune(&Rules::default()).freed_bytes, 504);
    assert!(world.has(&record) && world.root.store().stat_blocking(&zstd).unwrap().is_none());
    world.prune(&Rules { all: true, ..Rules::default() });
    assert!(!world.has(&record) && world.root.store().stat_blocking(&blob).unwrap().is_some());
}

#[test]
fn what_is_in_use_stays() {
    let world = World::new();
    let record = world.step(1, 5);
    let blob = world.cache.encodings(&record.layer.diff_id).unwrap()[0].1.digest.clone();
    let lease = world.root.lease().unwrap();
    world.root.store().hold_blocking(&blob, Some(&lease)).unwrap();
    assert!(world.cache.usage().unwrap().kept[0].is_in_use);
    let all = Rules { all: true, ..Rules::default() };
    assert_eq!(world.prune(&all).removed.len(), 0);
    lease.release();
    assert_eq!(world.prune(&all).removed.len(), 1);
}

#[test]
fn a_young_blob_waits_for_the_grace_period() {
    let world = World::new();
    let record = world.step(1, 5);
    let pruned = world.cache.prune(
        std::slice::from_ref(&world.layers),
        &Rules::default(),
        &GcOptions::default(),
    );
    let pruned = pruned.unwrap();
    assert_eq!((pruned.removed.len(), pruned.waiting_bytes), (1, 1000));
    assert!(!world.has(&record));
    let pruned = world.prune(&Rules::default());
    assert_eq!((pruned.freed_bytes, pruned.waiting_bytes), (1000, 0), "it is asked again");
}

#[test]
fn a_tree_that_is_the_only_form_of_a_layer_is_cache_and_not_garbage() {
    let world = World::new();
    let (archive, diff_id) = empty_layer();
    let mut record = record(1, "RUN true");
    record.layer.diff_id = diff_id;
    let tree = world.unpack(&record, &archive);
    assert_eq!(
        world
            .cache
            .sweep_unpacked(std::slice::from_ref(&world.layers), Duration::ZERO, true)
            .unwrap(),
        1
    );
    world.put(&record);
    assert_eq!(
        world
            .cache
            .sweep_unpacked(std::slice::from_ref(&world.layers), Duration::ZERO, false)
            .unwrap(),
        0
    );
    let usage = world.cache.usage().unwrap();
    assert!(usage.bytes() > 5000 && usage.bytes() < 7000, "{}", usage.bytes());
    let pruned = world.prune(&Rules::default());
    assert_eq!(pruned.freed_bytes, usage.bytes());
    assert!(!tree.exists() && !world.has(&record));
    // With a blob beside it, it is a cache of the blob.
    let tree = world.unpack(&record, &archive);
    world.encode(&record, "gzip", 10);
    world.put(&record);
    assert_eq!(
        world
            .cache
            .sweep_unpacked(std::slice::from_ref(&world.layers), Duration::ZERO, false)
            .unwrap(),
        1
    );
    assert!(!tree.exists() && world.has(&record));
}

#[test]
fn a_record_without_a_layer_goes_whatever_the_limits_are() {
    let world = World::new();
    let record = record(1, "RUN make");
    world.age(&world.put(&record), 0);
    let rules = Rules { keep_bytes: Some(u64::MAX), ..Rules::default() };
    assert_eq!(world.prune(&rules).removed.len(), 1);
}

#[test]
fn limits_are_looked_at_once_an_hour_or_when_they_are_passed() {
    let world = World::new();
    let limits = |max| Limits {
        max_size: Some(Amount::Bytes(max)),
        min_free: None,
        gc: at_once(),
        ..Limits::default()
    };
    let enforce = |max| {
        std::thread::sleep(Duration::from_millis(40));
        world.cache.enforce(std::slice::from_ref(&world.layers), &limits(max)).unwrap()
    };
    assert!(enforce(5000).is_some(), "the first time");
    let first = world.step(1, 2);
    assert!(enforce(5000).is_none());
    let second = world.step(2, 1);
    let pruned = enforce(3000).unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert!(!world.has(&first) && world.has(&second));
    assert!(enforce(3000).is_none());
    // Nothing was added since: what it can do it has done.
    assert!(enforce(1).is_none());
}

#[test]
fn the_nearest_record_is_of_the_same_place_or_else_of_the_same_text() {
    let world = World::new();
    let find = |record: &Record| world.cache.nearest(record).map(|found| found.text);
    let of = |text: &str, directory: &str, ordinal| {
        let mut record = record(ordinal, text);
        record.parts.push("directory", directory);
        record
    };
    let now = of("RUN make", "/src", 3);
    assert_eq!(find(&now), None);
    world.put(&of("RUN other", "/x", 3));
    assert_eq!(find(&now).as_deref(), Some("RUN other"));
    // Another project of the same layout: the one that agrees more is meant.
    world.put(&of("RUN make -k", "/src", 3));
    world.put(&of("RUN third", "/y", 3));
    assert_eq!(find(&now).as_deref(), Some("RUN make -k"));
    // A step that was moved.
    let moved = of("RUN make -k", "/elsewhere", 8);
    assert_eq!(find(&moved).as_deref(), Some("RUN make -k"));
    world.put(&now);
    assert_ne!(find(&now).as_deref(), Some("RUN make"), "never itself");
}
