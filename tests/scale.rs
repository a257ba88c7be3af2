//! Many repositories and many tags: a server starts without looking at them, a page of a list costs
//! what is on it, and memory does not grow with them.
//!
//! 200 repositories and 2,000 tags by default; with `BOATYARD_SCALE=full` 10,000 and 100,000.
//! How long it takes is `bench/run --only scale`'s to say: here it is counted which directories are
//! read, which is the same on every machine.

#![expect(clippy::unwrap_used, reason = "a test fails by one and tells figures by the other")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use boatyard_oci::Digest;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use support::http::needs;
use support::images::{image_of, noise};
use support::server::wait_for;
use support::{Place, Server};

/// What a server may have that serves nobody, in kibibytes: 25 MB.
const IDLE_KIB_MAX: u64 = 25_000_000 / 1024;
/// How many repositories one team has: a directory.
const TEAM: usize = 20;
/// The repository that has half of all tags, among those that have a few each.
const BUSY: &str = "team000/app00";

/// A root with many repositories, which all have the same image under tags of their own.
struct Fleet {
    hosted: PathBuf,
    repositories: usize,
    busy_tags: usize,
}

impl Fleet {
    /// Writes the files that pushes would have left.
    fn build(place: &Place) -> Fleet {
        let is_full = std::env::var_os("BOATYARD_SCALE").is_some_and(|scale| scale == "full");
        let (repositories, tags) = if is_full { (10_000, 100_000) } else { (200, 2_000) };
        let hosted = place.root().join("hosted");
        let fleet = Fleet { hosted, repositories, busy_tags: tags / 2 };
        let layer = noise(1, 1000);
        let (config, manifest) = image_of(&layer);
        for blob in [&layer, &config, &manifest] {
            let digest = Digest::sha256(blob);
            let shard = format!("root/blobs/sha256/{}", &digest.hex()[..2]);
            place.write(&format!("{shard}/{}", digest.hex()), blob);
        }
        place.write("root/version", "boatyard 1\n");
        let target = Digest::sha256(&manifest);
        let needed = needs(&manifest);
        let refs: String = needed.iter().map(|blob| format!("blob {blob}\n")).collect();
        for number in 0..repositories {
            let repository = fleet.hosted.join(name(number));
            let kept = repository.join("_manifests").join(target.to_string());
            let (links, tagged) = (repository.join("_blobs"), repository.join("_tags"));
            for directory in [&kept, &links, &tagged] {
                fs_err::create_dir_all(directory).unwrap();
            }
            fs_err::write(kept.join("type"), "application/vnd.oci.image.manifest.v1+json").unwrap();
            fs_err::write(kept.join("refs"), &refs).unwrap();
            for blob in &needed {
                fs_err::write(links.join(blob), "").unwrap();
            }
            let own = if name(number) == BUSY { fleet.busy_tags } else { tags / 2 / repositories };
            for number in 0..own {
                fs_err::write(tagged.join(tag(number)), format!("{target}\n")).unwrap();
            }
        }
        fleet
    }

    /// Watches the directories of all teams and of some repositories, the last one among them.
    fn watch(&self) -> Watch {
        let mut watch = Watch::new();
        watch.add(&self.hosted);
        for number in (0..self.repositories).step_by(TEAM) {
            watch.add(self.hosted.join(name(number)).parent().unwrap());
        }
        watch.add(&self.hosted.join(BUSY));
        watch.add(&self.hosted.join(name(self.repositories - 1)));
        watch
    }
}

fn name(number: usize) -> String {
    format!("team{:03}/app{:02}", number / TEAM, number % TEAM)
}

fn tag(number: usize) -> String {
    format!("t{number:06}")
}

/// What the kernel tells of directories that are opened: whoever lists one opens it.
struct Watch {
    inotify: OwnedFd,
    watched: BTreeMap<i32, PathBuf>,
}

impl Watch {
    fn new() -> Watch {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        Watch { inotify, watched: BTreeMap::new() }
    }

    /// Watches the directories that are in one.
    fn add(&mut self, directory: &Path) {
        let watch = inotify::add_watch(&self.inotify, directory, WatchFlags::OPEN).unwrap();
        self.watched.insert(watch, directory.to_owned());
    }

    /// Returns those that were opened since it was asked before.
    fn opened(&self) -> BTreeSet<PathBuf> {
        let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut opened = BTreeSet::new();
        loop {
            let event = match events.next() {
                Err(Errno::WOULDBLOCK) => return opened,
                event => event.unwrap(),
            };
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "all is being listed");
            let name = event.file_name().map(|name| name.to_str().unwrap());
            if let Some(name) = name.filter(|_| event.events().contains(ReadFlags::ISDIR)) {
                opened.insert(self.watched[&event.wd()].join(name));
            }
        }
    }
}

/// Returns the strings of a list, the path of the next page, and the length of this one.
fn page(server: &Server, path: &str, key: &str) -> (Vec<String>, Option<String>, usize) {
    let answer = server.http().get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let list = serde_json::from_value(list[key].clone()).unwrap();
    let next = answer.header("link").map(|link| {
        let link = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        link.unwrap().to_owned()
    });
    (list, next, answer.body.len())
}

/// Returns what a process has, in kibibytes. Of a program that is built for tests the code alone is
/// larger than what is allowed: there it is what the process itself asked for.
fn resident(server: &Server) -> u64 {
    let counted = if cfg!(debug_assertions) { "RssAnon:" } else { "VmRSS:" };
    let status = fs_err::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(counted)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn a_start_and_a_page_do_not_look_at_everything() {
    let place = Place::new();
    let fleet = Fleet::build(&place);
    let watch = fleet.watch();
    let server = Server::start(&place);
    let opened = watch.opened();
    assert!(opened.is_empty(), "a start looked at {opened:?}");
    println!("{} KiB after the start", resident(&server));
    assert!(resident(&server) < IDLE_KIB_MAX, "{} KiB after the start", resident(&server));

    // Somewhere in the middle of one long list: that directory is read, and no other.
    let last = fleet.busy_tags / 2;
    let path = format!("/v2/{BUSY}/tags/list?n=20&last={}", tag(last));
    let (tags, next, length) = page(&server, &path, "tags");
    assert!(tags.iter().eq(&(last + 1..=last + 20).map(tag).collect::<Vec<_>>()), "{tags:?}");
    let following = format!("/v2/{BUSY}/tags/list?n=20&last={}", tag(last + 20));
    assert_eq!(next, Some(following));
    assert!(length < 500, "{length} bytes");
    assert_eq!(watch.opened(), BTreeSet::from([fleet.hosted.join(BUSY).join("_tags")]));

    // A page of the catalog reads its repositories, the two around it, and what leads to them.
    let last = fleet.repositories / 2 + 10;
    let path = format!("/v2/_catalog?n=20&last={}", name(last));
    let (names, next, length) = page(&server, &path, "repositories");
    assert!(names.iter().eq(&(last + 1..=last + 20).map(name).collect::<Vec<_>>()), "{names:?}");
    assert_eq!(next, Some(format!("/v2/_catalog?n=20&last={}", name(last + 20))));
    assert!(length < 600, "{length} bytes");
    let opened = watch.opened();
    assert!(opened.len() < 60, "a page of 20 looked at {}", opened.len());

    // Page by page, every tag comes once, in order.
    let mut next = Some(format!("/v2/{BUSY}/tags/list?n=200"));
    let mut all = Vec::new();
    while let Some(path) = next {
        let (tags, following, _) = page(&server, &path, "tags");
        all.extend(tags);
        next = following;
    }
    assert!(all.iter().eq(&(0..fleet.busy_tags).map(tag).collect::<Vec<_>>()));
    println!("{} KiB after the lists", resident(&server));
    assert!(resident(&server) < IDLE_KIB_MAX, "{} KiB after the lists", resident(&server));
    server.stop();
}

#[test]
fn a_collection_gives_its_memory_back() {
    let place = Place::new();
    let fleet = Fleet::build(&place);
    let loose = noise(2, 1000);
    let digest = Digest::sha256(&loose);
    let shard = format!("root/blobs/sha256/{}", &digest.hex()[..2]);
    let garbage = place.write(&format!("{shard}/{}", digest.hex()), &loose);
    let config = "[gc]\nevery = '1s'\ngrace_seconds = 1\n";
    let server = Server::configured(&place, &place.root(), config);
    wait_for("a collection", || !garbage.exists());
    wait_for("its memory to be given back", || resident(&server) < IDLE_KIB_MAX);
    println!("{} KiB after a collection", resident(&server));
    // And all that is tagged is there.
    for number in [0, fleet.repositories - 1] {
        server.http().check_image(&name(number), &tag(0));
    }
    server.stop();
}
