//! Random operations by several processes on one root, some of them killed, while the collector
//! sweeps without grace: every image that has a name stays whole.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boatyard_content::gc::{GcError, GcOptions, collect};
use boatyard_content::local::{Root, RootOptions};
use boatyard_content::repository::{Repository, Space};
use boatyard_content::{Expected, IngestKey, Lease, fsck};
use boatyard_oci::{Digest, Manifest, MediaType, Raw, Tag};

/// Says to the test below that it is one of the processes, and which: `<seed> <root>`.
const ROLE: &str = "BOATYARD_CONTENT_TEST_ROLE";
const PROCESSES: u64 = 3;
const RUN: Duration = Duration::from_secs(6);

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

fn be_one_of_them(role: &str) {
    let (seed, path) = role.split_once(' ').unwrap();
    let mut chance = Chance(seed.parse().unwrap());
    let root = open(Path::new(path));
    let began = Instant::now();
    while began.elapsed() < RUN {
        let name = format!("app{}", chance.below(3)).parse().unwrap();
        let app = root.repositories().repository(&Space::Hosted, &name);
        let tag: Tag = format!("v{}", chance.below(4)).parse().unwrap();
        match chance.below(10) {
            0..=4 => push(&root, &app, &tag, &mut chance),
            5 => drop(app.delete_tag(&tag).unwrap()),
            6 => {
                if let Some(digest) = app.tag(&tag).unwrap() {
                    app.delete_manifest(&digest).unwrap();
                }
            }
            _ => check(&root, &app, &tag),
        }
    }
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
    let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
    while began.elapsed() < RUN + Duration::from_millis(500) {
        match collect(&root, &options) {
            Ok(report) => freed += report.freed.len(),
            Err(GcError::Running) => {}
            Err(error) => panic!("{error}"),
        }
        collections += 1;
        if collections % 20 == 0 {
            doomed.kill().unwrap();
            doomed.wait().unwrap();
            doomed = start(100 + collections, &path);
        }
    }
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    let report = fsck::check(&root, false, &mut |_| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(collections > 20 && freed > 20, "{collections} collections freed {freed} blobs");
    assert_eq!(root.members().unwrap().len(), 1, "dead processes are noticed");
}
