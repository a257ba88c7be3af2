//! Random operations by several processes on one root, some of them killed, while the collector
//! sweeps without grace: every image that has a name stays whole, and so does every layer of the
//! build cache that has an encoding.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boatyard_content::gc::{GcError, GcOptions, collect, collect_only};
use boatyard_content::local::{Root, RootOptions};
use boatyard_content::repository::{Repository, Space};
use boatyard_content::{Expected, IngestKey, Lease, fsck};
use boatyard_oci::{Descriptor, DiffId, Digest, Manifest, MediaType, Raw, Tag};

/// Says to the test below that it is one of the processes, and which: `<seed> <root>`.
const ROLE: &str = "BOATYARD_CONTENT_TEST_ROLE";
const PROCESSES: u64 = 3;
/// How long they run at least.
const RUN: Duration = Duration::from_secs(6);
/// How long at most, on a machine that does other things meanwhile.
const RUN_MAX: Duration = Duration::from_secs(120);
/// More collections than this there must have been, and blobs that they freed.
const ENOUGH: usize = 20;

/// A small generator: the same seed, the same operations.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn open(path: &Path) -> Arc<Root> {
    Root::open(path, RootOptions::default()).unwrap()
}

fn put(root: &Root, lease: &Lease, bytes: &[u8]) -> Digest {
    let mut ingest = root.store().ingest_blocking(&IngestKey::random(), lease).unwrap();
    ingest.write_all(bytes).unwrap();
    ingest.commit_blocking(&Expected::any()).unwrap().info().digest.clone()
}

/// Pushes an image of a few layers, of which there are few in all: processes meet in them.
fn push(root: &Root, app: &Repository, tag: &Tag, chance: &mut Chance) {
    let lease = root.lease().unwrap();
    let mut layers = Vec::new();
    for _ in 0..=chance.below(3) {
        let text = format!("layer {}", chance.below(12));
        let digest = Digest::sha256(text.as_bytes());
        let held = root.store().hold_blocking(&digest, Some(&lease)).unwrap();
        if held.is_none() {
            assert_eq!(put(root, &lease, text.as_bytes()), digest);
        }
        app.link_blob(&digest).unwrap();
        layers.push(serde_json::json!({
            "mediaType": MediaType::OCI_LAYER, "digest": digest, "size": text.len(),
        }));
    }
    let config = put(root, &lease, b"{}");
    let text = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": MediaType::OCI_CONFIG, "digest": config, "size": 2},
        "layers": layers,
    });
    let manifest: Raw<Manifest> =
        Manifest::parse(text.to_string().into(), &MediaType::OCI_MANIFEST).unwrap();
    put(root, &lease, manifest.bytes());
    app.put_manifest(&manifest, &MediaType::OCI_MANIFEST, std::slice::from_ref(tag)).unwrap();
}

/// Reads what a tag points at: all of it is there, or the tag was moved or deleted meanwhile.
fn check(root: &Root, app: &Repository, tag: &Tag) {
    let Some(digest) = app.tag(tag).unwrap() else { return };
    let refs = app.refs(&digest).unwrap();
    for needed in refs.iter().chain([&digest]) {
        if root.store().stat_blocking(needed).unwrap().is_none() {
            let still = app.tag(tag).unwrap() == Some(digest.clone())
                && app.manifest(&digest).unwrap().is_some();
            let gone = root.store().stat_blocking(needed).unwrap().is_none();
            assert!(!(still && gone), "{tag} points at {digest}, which lacks {needed}");
        }
    }
}

/// Keeps a layer of the build cache, of which there are few: as a build that ran its step.
fn encode(root: &Root, chance: &mut Chance) {
    let lease = root.lease().unwrap();
    let text = format!("layer {}", chance.below(12));
    let digest = put(root, &lease, text.as_bytes());
    let blob = Descriptor::new(MediaType::OCI_LAYER, digest.clone(), text.len() as u64);
    let layer = DiffId::new(digest);
    assert!(root.encodings().put(&layer, "gzip", &blob).unwrap(), "the lease holds {layer}");
}

/// Gives up a layer and frees its blob, as pruning does.
fn give_up(root: &Root, chance: &mut Chance) {
    let all = root.encodings().all().unwrap();
    if all.is_empty() {
        return;
    }
    let at = usize::try_from(chance.below(all.len() as u64)).unwrap();
    let removed = root.encodings().remove(&all[at..=at]).unwrap();
    let blobs: Vec<Digest> = removed.into_iter().map(|encoding| encoding.blob).collect();
    let collected = collect_only(root, &blobs, &at_once());
    assert!(matches!(collected, Ok(_) | Err(GcError::Running)), "{collected:?}");
}

/// Uses the layers of the build cache, as a build does: what is held stays, and what cannot be held
/// was given up.
fn use_encodings(root: &Root) {
    for encoding in root.encodings().all().unwrap() {
        let lease = root.lease().unwrap();
        let written = root.encodings().written(&encoding).unwrap();
        let hold = || root.store().hold_blocking(&encoding.blob, Some(&lease)).unwrap();
        if hold().is_some() {
            assert!(root.store().stat_blocking(&encoding.blob).unwrap().is_some(), "{encoding:?}");
            continue;
        }
        // Somebody may have given it up, and another made it again meanwhile.
        let again = root.encodings().written(&encoding).unwrap();
        assert!(written.is_none() || written != again || hold().is_some(), "{encoding:?}");
    }
}

fn at_once() -> GcOptions {
    GcOptions { grace: Duration::ZERO, ..GcOptions::default() }
}

fn be_one_of_them(role: &str) {
    let (seed, path) = role.split_once(' ').unwrap();
    let mut chance = Chance(seed.parse().unwrap());
    let root = open(Path::new(path));
    let (enough, began) = (enough(&root), Instant::now());
    while !enough.exists() && began.elapsed() < RUN_MAX {
        let name = format!("app{}", chance.below(3)).parse().unwrap();
        let app = root.repositories().repository(&Space::Hosted, &name);
        let tag: Tag = format!("v{}", chance.below(4)).parse().unwrap();
        match chance.below(14) {
            0..=4 => push(&root, &app, &tag, &mut chance),
            5 => drop(app.delete_tag(&tag).unwrap()),
            6 => {
                if let Some(digest) = app.tag(&tag).unwrap() {
                    app.delete_manifest(&digest).unwrap();
                }
            }
            7..=9 => check(&root, &app, &tag),
            10..=11 => encode(&root, &mut chance),
            12 => give_up(&root, &mut chance),
            _ => use_encodings(&root),
        }
    }
}

/// The file that tells the processes to end.
fn enough(root: &Root) -> PathBuf {
    root.path().with_file_name("enough")
}

fn start(seed: u64, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "names_stay_whole", "--nocapture"])
        .env(ROLE, format!("{seed} {}", root.display()))
        .spawn()
        .unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the processes are told by it who they are")]
fn names_stay_whole() {
    if let Ok(role) = std::env::var(ROLE) {
        return be_one_of_them(&role);
    }
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("root");
    let root = open(&path);
    let mut processes: Vec<Child> = (1..=PROCESSES).map(|seed| start(seed, &path)).collect();
    let mut doomed = start(99, &path);
    let began = Instant::now();
    let (mut collections, mut freed) = (0, 0);
    let is_enough = |collections: usize, freed: usize| collections > ENOUGH && freed > ENOUGH;
    while began.elapsed() < RUN || !is_enough(collections, freed) {
        if began.elapsed() > RUN_MAX {
            break;
        }
        match collect(&root, &at_once()) {
            Ok(report) => freed += report.freed.len(),
            Err(GcError::Running) => {}
            Err(error) => panic!("{error}"),
        }
        collections += 1;
        if collections % 20 == 0 {
            doomed.kill().unwrap();
            doomed.wait().unwrap();
            doomed = start(100 + collections as u64, &path);
        }
    }
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    fs_err::write(enough(&root), "").unwrap();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    for encoding in root.encodings().all().unwrap() {
        assert!(root.store().stat_blocking(&encoding.blob).unwrap().is_some(), "{encoding:?}");
    }
    let report = fsck::check(&root, &fsck::FsckOptions::default(), &mut fsck::Nobody).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(is_enough(collections, freed), "{collections} collections freed {freed} blobs");
    assert_eq!(root.members().unwrap().len(), 1, "dead processes are noticed");
}
