//! What goes wrong on real machines: processes die at any moment, disks fill up, clients lie. What
//! was acknowledged is whole, what is half is never served, and everything works again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "that is how a test fails")]

mod support;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use boatyard_oci::Digest;
use rustix::process::{Pid, Signal, kill_process};
use support::disk::SmallDisk;
use support::http::{Answer, Http, needs};
use support::place::text;
use support::server::wait_for;
use support::{Place, Server, images};

/// Pushes images until the server dies, and returns the tags that it acknowledged.
fn push_until_it_dies(http: &Http, round: u64) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let seed = round * 1000 + number;
        let layer = images::noise(seed, 20_000 + (seed as usize * 7919) % 300_000);
        let (config, manifest) = images::image_of(&layer);
        let tag = format!("r{round}-{number}");
        let pushed = [http.push_blob("kept", &layer), http.push_blob("kept", &config)];
        if pushed.iter().any(|answer| answer.status != 201) {
            return acknowledged;
        }
        if http.push_manifest("kept", &tag, &manifest).status != 201 {
            return acknowledged;
        }
        acknowledged.push(tag);
    }
    acknowledged
}

#[test]
fn a_server_killed_at_any_moment_keeps_what_it_acknowledged() {
    let place = Place::new();
    let mut acknowledged = Vec::new();
    // On a busy machine the first rounds may end before anything is acknowledged: there are more of
    // them then, and longer ones.
    for round in 0..200 {
        if round >= 25 && acknowledged.len() > 10 {
            break;
        }
        let server = Server::start(&place);
        let http = server.http();
        let pusher = std::thread::spawn(move || push_until_it_dies(&http, round));
        // Seeded, so that a round that fails can be had again: from the first request to the
        // fourth or fifth image.
        let longer = round / 25 * 200_000;
        std::thread::sleep(Duration::from_micros(5_000 + round * 7_919 % 25 * 9_000 + longer));
        server.kill();
        acknowledged.extend(pusher.join().unwrap());
    }
    assert!(acknowledged.len() > 10, "the rounds are too short: {acknowledged:?}");

    let server = Server::start(&place);
    let http = server.http();
    let listed = http.get("/v2/kept/tags/list");
    let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
    let listed: Vec<&str> =
        listed["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    for tag in &acknowledged {
        assert!(listed.contains(&tag.as_str()), "{tag} was acknowledged and is gone");
    }
    // Also what was served without having been acknowledged.
    for tag in listed {
        http.check_image("kept", tag);
    }
    server.stop();
    place.boatyard(["fsck"]).ok();
}

#[test]
fn uploads_that_lie_leave_nothing_behind() {
    let place = Place::new();
    let server = Server::start(&place);
    let http = server.http();
    let bytes = images::noise(7, 100_000);
    let digest = Digest::sha256(&bytes);
    let blob = format!("/v2/lies/blobs/{digest}");
    let session = || {
        let begun = http.send("POST", "/v2/lies/blobs/uploads/", "", &[]);
        begun.header("location").unwrap().to_owned()
    };
    let with_digest = |location: String| {
        let mark = if location.contains('?') { '&' } else { '?' };
        format!("{location}{mark}digest={digest}")
    };
    let binary = "Content-Type: application/octet-stream\r\n";

    // It ends before the promised length.
    let cut = http.send_claiming("PUT", &with_digest(session()), binary, &bytes[..50_000], 100_000);
    assert_ne!(cut.status, 201, "{cut:?}");
    assert_eq!(http.get(&blob).status, 404);
    // It is all there, but more was promised.
    let more = http.send_claiming("PUT", &with_digest(session()), binary, &bytes, 100_001);
    assert_ne!(more.status, 201, "{more:?}");
    assert_eq!(http.get(&blob).status, 404);
    // It is shorter than the digest's bytes, and other bytes.
    for wrong in [&bytes[..99_999], &images::noise(8, 100_000)] {
        let answer = http.push_blob_as("lies", wrong, &digest.to_string());
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.text().contains("DIGEST_INVALID"), "{}", answer.text());
        assert_eq!(http.get(&blob).status, 404);
    }
    // A manifest of what is not there.
    let (_, manifest) = images::image_of(&bytes);
    let answer = http.push_manifest("lies", "1", &manifest);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text().contains("MANIFEST_BLOB_UNKNOWN"), "{}", answer.text());
    assert_eq!(http.manifest("lies", "1").status, 404);
    // The truth is believed after all that.
    assert_eq!(http.push_blob("lies", &bytes).status, 201);
    http.check_blob("lies", &digest.to_string());
    server.stop();
    place.boatyard(["fsck"]).ok();
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert!(answer.status >= 400, "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|error| panic!("no JSON in the body ({error}): {answer:?}"));
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(!message.is_empty(), "{answer:?}");
}

#[test]
fn a_full_disk_is_an_answer_and_then_all_is_well() {
    let place = Place::new();
    let disk = SmallDisk::mount(&place, "8m");
    let server = Server::start_at(&place, &disk.root());
    let http = server.http();
    let kept = images::noise(1, 500_000);
    let (config, manifest) = images::image_of(&kept);
    let refused = images::noise(2, 3_000_000);

    assert_eq!(http.push_blob("app", &kept).status, 201);
    // Larger than the disk; then with no space for a layer, a config, and a manifest.
    assert_refused(&http.push_blob("app", &images::noise(3, 12_000_000)));
    disk.fill_but(1_000_000);
    assert_refused(&http.push_blob("app", &refused));
    disk.make_space();
    disk.fill_but(0);
    assert_refused(&http.push_blob("app", &config));
    disk.make_space();
    let again = http.push_blob("app", &config);
    assert_eq!(again.status, 201, "{}\n{}", again.text(), server.log());
    disk.fill_but(0);
    assert_refused(&http.push_manifest("app", "1", &manifest));
    // Reading needs no space.
    http.check_blob("app", &needs(&manifest)[1]);
    assert_eq!(http.manifest("app", "1").status, 404);
    disk.make_space();

    assert_eq!(http.push_manifest("app", "1", &manifest).status, 201);
    let again = http.push_blob("app", &refused);
    assert_eq!(again.status, 201, "there is space again: {}\n{}", again.text(), server.log());
    http.check_image("app", "1");
    server.stop();
    place.boatyard_at(&disk.root(), ["fsck"]).ok();
}

#[test]
fn a_build_on_a_full_disk_names_what_it_could_not_write() {
    let place = Place::new();
    let disk = SmallDisk::mount(&place, "8m");
    let context = place.context("app", "FROM scratch\nCOPY large /dir/large\n");
    place.write("app/large", images::noise(1, 12_000_000));
    let build = || place.boatyard_at(&disk.root(), ["build", "-t", "app", text(&context)]);
    build().fails(1).says(["large", "No space left on device", "the disk is full"]);
    place.write("app/large", images::noise(1, 1_000_000));
    build().ok();
    place.boatyard_at(&disk.root(), ["fsck"]).ok();
}

/// Returns the processes whose command line holds this.
fn processes(marker: &str) -> Vec<String> {
    let entries = fs_err::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs_err::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(marker))
        .collect()
}

/// Returns the mounts below a directory.
fn mounts(directory: &Path) -> Vec<String> {
    let mounts = fs_err::read_to_string("/proc/mounts").unwrap();
    mounts.lines().filter(|line| line.contains(text(directory))).map(str::to_owned).collect()
}

/// Starts a build whose step sleeps, and waits until it does.
fn sleeping_build(place: &Place, marker: &str) -> Child {
    let dockerfile = format!("FROM busybox\nRUN touch /left-over; sleep {marker}; true\n");
    let context = place.context("sleeping", &dockerfile);
    let build = place
        .boatyard(["build", "--progress=plain", "-t", "sleeping", text(&context)])
        .spawn(Stdio::null(), Stdio::null());
    let step = format!("sleep {marker} ");
    wait_for("the step to sleep", || processes(&step).contains(&step));
    build
}

fn nothing_is_left(place: &Place, marker: &str) {
    wait_for("the step to end", || processes(marker).is_empty());
    wait_for("the helper to end", || processes(text(&place.root())).is_empty());
    assert_eq!(mounts(&place.path("")), Vec::<String>::new());
    let context = place.context("next", "FROM busybox\nRUN test ! -e /left-over\n");
    place.boatyard(["build", "-t", "next", text(&context)]).ok();
    place.boatyard(["fsck"]).ok();
}

#[test]
fn a_build_that_is_killed_leaves_no_process_and_no_mount() {
    let place = Place::new();
    images::busybox(&place);
    let mut build = sleeping_build(&place, "98761.5");
    build.kill().unwrap();
    build.wait().unwrap();
    nothing_is_left(&place, "98761.5");
}

#[test]
fn a_build_that_is_interrupted_ends_at_once() {
    let place = Place::new();
    images::busybox(&place);
    for (signal, marker) in [(Signal::INT, "98762.5"), (Signal::TERM, "98763.5")] {
        let mut build = sleeping_build(&place, marker);
        let asked = Instant::now();
        kill_process(Pid::from_child(&build), signal).unwrap();
        let status = build.wait().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
        assert!(!status.success());
        nothing_is_left(&place, marker);
    }
}
