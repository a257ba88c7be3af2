//! Builds that meet what happens on real machines: they are killed at any moment, their disk has no room
//! or no inode left, ten of them run at once while somebody collects garbage. The next build makes what
//! a clean one makes, and nothing is left behind.
//!
//! `BOATYARD_FAULT_ROUNDS` makes more rounds of it than CI has.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]
#![expect(clippy::disallowed_methods, reason = "a developer chooses how many rounds there are")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::built::Built;
use support::disk::SmallDisk;
use support::place::text;
use support::server::wait_for;
use support::{Place, Run, images};

const EPOCH: &str = "1700000000";

fn rounds(usually: usize) -> usize {
    let asked = std::env::var("BOATYARD_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(usually)
}

/// A place, and an image to begin with as an archive.
fn place() -> (Place, PathBuf) {
    let place = Place::new();
    images::busybox(&place);
    let base = place.path("base.tar");
    place.boatyard(["save", "-o", text(&base), "busybox"]).ok();
    (place, base)
}

/// An application with every kind of step; `word` makes it another one.
fn application(place: &Place, name: &str, word: &str) -> PathBuf {
    let context = place.context(
        name,
        "FROM busybox AS build\n\
         COPY . /src\n\
         RUN --mount=type=cache,target=/cache cat /src/word > /out; cat /src/noise >> /out\n\
         FROM busybox\n\
         WORKDIR /app\n\
         COPY --from=build /out /app/out\n\
         RUN mkdir many; for i in 1 2 3 4 5 6 7 8 9; do cp out many/$i; done; rm out\n\
         RUN cat many/1 > one\n",
    );
    place.write(&format!("{name}/word"), word);
    place.write(&format!("{name}/noise"), images::noise(3, 200_000));
    context
}

fn build_at(place: &Place, root: &Path, context: &Path) -> Run {
    let build = place.boatyard_at(root, ["build", "--progress=json", text(context)]);
    build.env("SOURCE_DATE_EPOCH", EPOCH)
}

/// Returns a root that has the base image and has built nothing.
fn fresh_root(place: &Place, base: &Path, name: &str) -> PathBuf {
    let root = place.path(name);
    place.boatyard_at(&root, ["load", "-q", "-i", text(base)]).ok();
    root
}

/// Returns the processes whose command line or environment names this.
fn processes(marker: &str) -> Vec<String> {
    let entries = fs_err::read_dir("/proc").unwrap().filter_map(Result::ok);
    let own = std::process::id().to_string();
    let entries = entries.filter(|entry| *entry.file_name().to_string_lossy() != *own);
    let holds = |path: PathBuf| {
        let bytes = fs_err::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(marker)
    };
    entries
        .filter(|entry| holds(entry.path().join("cmdline")) || holds(entry.path().join("environ")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn mounts(below: &Path) -> Vec<String> {
    let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter(|line| line.contains(text(below))).map(str::to_owned).collect()
}

/// Fails the test if anything of the builds of a root still runs or is mounted.
#[track_caller]
fn nothing_runs(root: &Path) {
    wait_for("all processes to end", || processes(text(root)).is_empty());
    assert_eq!(mounts(root), Vec::<String>::new());
}

/// Returns what lies in a root's directories for what is under way, at most two levels deep. Writes that
/// nobody takes up again are left out: a collection removes them after a minute.
fn under_way(root: &Path) -> Vec<PathBuf> {
    let list = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs_err::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let views = list(&root.join("active"));
    let active = views.iter().flat_map(|view| list(view));
    let ingests = list(&root.join("ingest")).into_iter();
    let ingests = ingests.filter(|path| !text(path).contains("/fleeting-"));
    active.chain(ingests).chain(list(&root.join("leases"))).collect()
}

/// Counts the files of a root, by the directory at its top.
fn files(root: &Path) -> BTreeMap<String, usize> {
    fn count(path: &Path) -> usize {
        let entries = fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap());
        entries.map(|it| if it.file_type().unwrap().is_dir() { count(&it.path()) } else { 1 }).sum()
    }
    let entries = fs_err::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    directories
        .map(|it| (it.file_name().to_string_lossy().into_owned(), count(&it.path())))
        .collect()
}

fn kill(mut build: Child) {
    let _ = build.kill();
    build.wait().unwrap();
}

/// Numbers that look like chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }
}

#[test]
fn a_build_killed_at_any_moment_leaves_nothing_and_the_next_one_is_as_a_clean_one() {
    let (place, base) = place();
    let root = fresh_root(&place, &base, "killed");
    let mut chance = Chance(17);
    for round in 0..rounds(2) {
        let word = format!("word {round}");
        let context = application(&place, "app", &word);
        let clean = fresh_root(&place, &base, &format!("clean-{round}"));
        let began = Instant::now();
        let expected = Built::of(&build_at(&place, &clean, &context).ok()).digest;
        // Anywhere in what a clean build takes; a late one comes after the end, which is a moment too.
        let whole = u64::try_from(began.elapsed().as_micros()).unwrap();
        for _ in 0..3 {
            let build = build_at(&place, &root, &context).spawn(Stdio::null(), Stdio::null());
            std::thread::sleep(Duration::from_micros(chance.below(whole)));
            kill(build);
            nothing_runs(&root);
        }
        let next = Built::of(&build_at(&place, &root, &context).ok());
        assert_eq!(next.digest, expected, "round {round}:\n{next}");
        place.boatyard_at(&root, ["fsck"]).ok();
        fs_err::remove_dir_all(&clean).unwrap();
    }
    // Whoever comes next tidies up after the dead.
    place.boatyard_at(&root, ["gc", "--grace", "0s"]).ok();
    nothing_runs(&root);
    assert_eq!(under_way(&root), Vec::<PathBuf>::new());
    let groups = Run::new("find").args(["/sys/fs/cgroup", "-name", "boatyard-step-*"]).run().text();
    let dead = groups.lines().filter(|path| {
        let pid = path.rsplit("boatyard-step-").next().and_then(|name| name.split('-').next());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    });
    assert_eq!(dead.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn a_disk_without_inodes_is_an_error_that_names_the_path() {
    let (place, base) = place();
    let context = application(&place, "app", "word");
    let clean = fresh_root(&place, &base, "clean");
    let expected = Built::of(&build_at(&place, &clean, &context).ok()).digest;
    let disk = SmallDisk::mount(&place, "100m");
    let root = fresh_root(&place, &base, "disk/root");
    let used = || {
        let disk = rustix::fs::statvfs(disk.path()).unwrap();
        disk.f_files - disk.f_ffree
    };
    let mut refused = 0;
    // With a few inodes more each time it gets further, through every phase in the end.
    for more in [0, 3, 10, 20, 30, 45, 60] {
        disk.limit_inodes(used() + more);
        let ran = build_at(&place, &root, &context).run();
        if ran.code != Some(0) {
            refused += 1;
            // The step's own command may be the one that meets it.
            ran.says(["No space left on device"]);
            let names = ["/", "`", "mkdir", "cp"].iter().any(|part| ran.stderr.contains(part));
            assert!(names, "it names no path:\n{ran}");
        }
        disk.limit_inodes(1_000_000);
        nothing_runs(&root);
        place.boatyard_at(&root, ["fsck"]).ok();
    }
    assert!(refused >= 2, "it was refused {refused} times");
    let next = Built::of(&build_at(&place, &root, &context).ok());
    assert_eq!(next.digest, expected, "{next}");
}

#[test]
fn a_full_disk_in_any_phase_leaves_a_store_that_is_whole() {
    let (place, base) = place();
    let context = application(&place, "app", "word");
    let clean = fresh_root(&place, &base, "clean");
    let expected = Built::of(&build_at(&place, &clean, &context).ok()).digest;
    let disk = SmallDisk::mount(&place, "60m");
    let root = fresh_root(&place, &base, "disk/root");
    let mut refused = 0;
    for left in [0, 50_000, 300_000, 700_000, 1_500_000, 2_500_000] {
        disk.fill_but(left);
        let ran = build_at(&place, &root, &context).run();
        if ran.code != Some(0) {
            refused += 1;
            ran.says(["No space left on device"]);
        }
        disk.make_space();
        nothing_runs(&root);
        place.boatyard_at(&root, ["fsck"]).ok();
    }
    assert!(refused >= 2, "it was refused {refused} times");
    let next = Built::of(&build_at(&place, &root, &context).ok());
    assert_eq!(next.digest, expected, "{next}");
}

#[test]
fn ten_builds_at_once_share_a_root_while_it_is_swept() {
    let (place, base) = place();
    let root = fresh_root(&place, &base, "root");
    let contexts: Vec<PathBuf> = (0..10)
        .map(|number| application(&place, &format!("app-{number}"), &format!("word {number}")))
        .collect();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            let mut sweeps = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                place.boatyard_at(&root, ["gc", "--grace", "0s"]).ok();
                sweeps += 1;
            }
            sweeps
        });
        let build = |context| build_at(&place, &root, context);
        let builds: Vec<_> =
            contexts.iter().map(|context| scope.spawn(move || build(context).run())).collect();
        let ended: Vec<_> = builds.into_iter().map(|build| build.join().unwrap()).collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(sweeping.join().unwrap() > 0);
        for ran in ended {
            assert_eq!(ran.code, Some(0), "{ran}");
        }
    });
    nothing_runs(&root);
    place.boatyard_at(&root, ["fsck"]).ok();
    // What they made is what one makes alone.
    let again = Built::of(&build_at(&place, &root, &contexts[3]).ok());
    again.ran([]);
    let clean = fresh_root(&place, &base, "clean");
    assert_eq!(Built::of(&build_at(&place, &clean, &contexts[3]).ok()).digest, again.digest);
}

#[test]
fn the_same_build_ten_times_at_once_runs_each_step_once() {
    let (place, base) = place();
    let root = fresh_root(&place, &base, "root");
    let context = application(&place, "app", "word");
    let built: Vec<Built> = std::thread::scope(|scope| {
        let build = || Built::of(&build_at(&place, &root, &context).ok());
        let builds: Vec<_> = (0..10).map(|_| scope.spawn(build)).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    let mut ran: BTreeMap<String, usize> = BTreeMap::new();
    for built in &built {
        built.that_are("done").into_iter().for_each(|step| *ran.entry(step).or_default() += 1);
    }
    assert_eq!(ran.len(), 6, "{ran:#?}");
    assert!(ran.values().all(|times| *times == 1), "{ran:#?}");
    assert!(built.iter().all(|other| other.digest == built[0].digest));
}

#[test]
fn after_many_builds_a_machine_is_as_it_was() {
    let (place, base) = place();
    let root = fresh_root(&place, &base, "root");
    let tidy = || {
        place.boatyard_at(&root, ["cache", "prune", "--all"]).ok();
        place.boatyard_at(&root, ["gc", "--grace", "0s", "--layers", "0s"]).ok();
    };
    let namespaces = || Run::new("ip").args(["netns", "list"]).run().text();
    let build = |word: String| {
        let context = application(&place, "app", &word);
        build_at(&place, &root, &context).ok();
    };
    build("first".to_owned());
    tidy();
    let (before, names) = (files(&root), namespaces());
    for round in 0..rounds(4) {
        build(format!("word {round}"));
    }
    tidy();
    nothing_runs(&root);
    assert_eq!(namespaces(), names);
    assert_eq!(under_way(&root), Vec::<PathBuf>::new());
    let mut after = files(&root);
    // One lock file for each name that was ever locked is bounded by the hash of the name.
    let mut before = before;
    for kept in ["journal", "locks", "logs"] {
        before.remove(kept);
        let count = after.remove(kept).unwrap_or_default();
        assert!(count < 600, "{count} files in {kept}");
    }
    assert_eq!(after, before);
}
