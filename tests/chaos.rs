//! Everything at once: pushes, pulls, deletions, a mirror, builds and collections, while the server and
//! the collector are killed again and again. No tagged image is ever broken, and the garbage goes.
//!
//! Some seconds of it by default; `BOATYARD_CHAOS_SECONDS=7200 cargo test --release --test chaos` makes
//! hours of it.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use boatyard_oci::Digest;
use support::Place;
use support::http::{Http, needs};
use support::images::{self, image_of};
use support::place::text;
use support::server::Server;

/// How many repositories are pushed to, each by a thread of its own.
const PUSHERS: u64 = 3;
/// How often the server is killed.
const KILL_EVERY: Duration = Duration::from_millis(1500);

fn seconds() -> u64 {
    let text = std::env::var_os("BOATYARD_CHAOS_SECONDS").unwrap_or_default();
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// What the threads share.
struct Yard {
    /// Where the server is now.
    address: Mutex<String>,
    on: AtomicBool,
    /// The images whose push was acknowledged and whose deletion was not asked for.
    tagged: Mutex<BTreeMap<(String, String), Digest>>,
    pushed_bytes: AtomicU64,
}

impl Yard {
    fn http(&self) -> Http {
        Http::new(&self.address.lock().unwrap())
    }

    fn goes_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Pushes an image; `None` where it was not acknowledged.
    fn push(&self, repository: &str, tag: &str, layer: &[u8]) -> Option<Digest> {
        let http = self.http();
        let (config, manifest) = image_of(layer);
        for blob in [layer, &config] {
            if http.push_blob(repository, blob).status != 201 {
                return None;
            }
        }
        self.pushed_bytes.fetch_add(layer.len() as u64, Ordering::Relaxed);
        let pushed = http.push_manifest(repository, tag, &manifest).status == 201;
        pushed.then(|| Digest::sha256(&manifest))
    }

    /// Pushes, and deletes most of what it pushed.
    fn churn(&self, number: u64) {
        let repository = format!("churn{number}");
        for round in 0.. {
            if !self.goes_on() {
                return;
            }
            let layer = images::noise(number * 1_000_000 + round, 60_000);
            let tag = format!("t{round}");
            let Some(digest) = self.push(&repository, &tag, &layer) else { continue };
            let key = (repository.clone(), tag);
            self.tagged.lock().unwrap().insert(key.clone(), digest.clone());
            if round % 4 != 0 {
                // Whether a deletion that was cut off took place, nobody knows.
                self.tagged.lock().unwrap().remove(&key);
                let path = format!("/v2/{repository}/manifests/{digest}");
                self.http().send("DELETE", &path, "", &[]);
            }
        }
    }

    /// Pulls what should be there. An answer that came is right, whatever was killed meanwhile.
    fn pull(&self) {
        while self.goes_on() {
            let some =
                self.tagged.lock().unwrap().iter().next_back().map(|(k, d)| (k.clone(), d.clone()));
            let Some(((repository, tag), digest)) = some else { continue };
            let http = self.http();
            let answer = http.manifest(&repository, &tag);
            if answer.status != 200 {
                continue;
            }
            assert_eq!(Digest::sha256(&answer.body), digest);
            for blob in needs(&answer.body) {
                let blob_answer = http.get(&format!("/v2/{repository}/blobs/{blob}"));
                let still =
                    || self.tagged.lock().unwrap().contains_key(&(repository.clone(), tag.clone()));
                assert!(blob_answer.status != 404 || !still(), "{repository}:{tag} lacks {blob}");
            }
        }
    }

    /// Pulls by a mirror, which keeps what it can.
    fn pull_mirrored(&self, tags: u64) {
        for round in 0.. {
            if !self.goes_on() {
                return;
            }
            let http = self.http();
            let answer = http.manifest("origin/app", &format!("t{}", round % tags));
            if answer.status == 200 {
                needs(&answer.body).iter().for_each(|blob| {
                    http.get(&format!("/v2/origin/app/blobs/{blob}"));
                });
            }
        }
    }
}

/// Returns the files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.map(|entry| entry.path()).flat_map(below).collect()
}

/// Returns all blobs and how large they are.
fn blobs(root: &Path) -> BTreeMap<String, u64> {
    let blobs = files(&root.join("blobs")).into_iter().map(|path| {
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        (digest, fs_err::metadata(&path).unwrap().len())
    });
    blobs.collect()
}

/// Returns every digest that a file of a repository or a build has in its name or names inside.
/// A mirror's manifests name what was not fetched: only what was is counted.
fn referred(root: &Path) -> BTreeSet<String> {
    let mut referred = BTreeSet::new();
    for path in
        ["hosted", "mirror", "images", "cache"].iter().flat_map(|part| files(&root.join(part)))
    {
        let mirrored = path.starts_with(root.join("mirror"));
        let mut said = text(path.strip_prefix(root).unwrap()).to_owned();
        if !mirrored {
            said.push_str(&String::from_utf8_lossy(&fs_err::read(&path).unwrap_or_default()));
        }
        let digests = said.split("sha256:").skip(1).filter_map(|rest| rest.get(..64));
        referred.extend(digests.map(|hex| format!("sha256:{hex}")));
    }
    referred
}

#[test]
fn no_tagged_image_is_ever_broken_and_the_garbage_goes() {
    let origin_place = Place::new();
    let origin = Server::start(&origin_place);
    for tag in 0..5 {
        let (config, manifest) = image_of(&images::noise(9_000_000 + tag, 50_000));
        for blob in [&images::noise(9_000_000 + tag, 50_000), &config] {
            assert_eq!(origin.http().push_blob("app", blob).status, 201);
        }
        assert_eq!(origin.http().push_manifest("app", &format!("t{tag}"), &manifest).status, 201);
    }
    let place = Place::new();
    let config = format!(
        "[gc]\nevery = '1s'\ngrace_seconds = 1\n[fsck]\nevery = 'none'\n[[mirror]]\nname = 'origin'\n\
         url = 'http://{}'\n",
        origin.address()
    );
    let start = || Server::configured(&place, &place.root(), &config);
    let mut server = start();
    let yard = Arc::new(Yard {
        address: Mutex::new(server.address().to_owned()),
        on: AtomicBool::new(true),
        tagged: Mutex::default(),
        pushed_bytes: AtomicU64::new(0),
    });
    let mut threads = Vec::new();
    let mut spawn = |work: Box<dyn FnOnce(&Yard) + Send>| {
        let yard = Arc::clone(&yard);
        threads.push(std::thread::spawn(move || work(&yard)));
    };
    (0..PUSHERS).for_each(|number| spawn(Box::new(move |yard| yard.churn(number))));
    spawn(Box::new(Yard::pull));
    spawn(Box::new(|yard| yard.pull_mirrored(5)));

    let context = place.context("built", "FROM scratch\nCOPY round /\n");
    let ends = Instant::now() + Duration::from_secs(seconds());
    let mut killed = Instant::now();
    let mut round = 0;
    while Instant::now() < ends {
        round += 1;
        place.write("built/round", round.to_string());
        place.boatyard(["build", "-q", "-t", "built", text(&context)]).ok();
        let mut collecting =
            place.boatyard(["gc", "--grace", "1s"]).spawn(Stdio::null(), Stdio::null());
        if round % 3 == 0 {
            let _ = collecting.kill();
        }
        collecting.wait().unwrap();
        if killed.elapsed() > KILL_EVERY {
            server.kill();
            server = start();
            *yard.address.lock().unwrap() = server.address().to_owned();
            killed = Instant::now();
        }
    }
    yard.on.store(false, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    let http = server.http();
    let tagged = yard.tagged.lock().unwrap().clone();
    assert!(!tagged.is_empty());
    for ((repository, tag), digest) in &tagged {
        assert_eq!(http.check_image(repository, tag), *digest, "{repository}:{tag}");
    }
    (0..5).for_each(|tag| drop(http.check_image("origin/app", &format!("t{tag}"))));
    server.stop();
    let report = place.boatyard(["fsck", "--format", "json"]).ok().json();
    assert_eq!(report["IsClean"], true, "{report:#}");

    // Nobody is told of anything any more: two collections without a grace, the first of which gives
    // up links of pushes that were cut off. Then what nobody refers to is less than a twentieth of
    // what there ever was of it.
    for _ in 0..2 {
        place.boatyard(["gc", "--grace", "0s"]).ok();
    }
    let blobs = blobs(&place.root());
    let referred = referred(&place.root());
    let unreferred = blobs.iter().filter(|(blob, _)| !referred.contains(*blob));
    let left: u64 = unreferred.map(|(_, size)| size).sum();
    let kept: u64 = blobs.values().sum::<u64>() - left;
    let garbage = yard.pushed_bytes.load(Ordering::Relaxed).saturating_sub(kept);
    assert!(left <= garbage / 20, "{left} bytes of {garbage} are left, beside {kept}");
}
