//! What is damaged is found, kept from everybody, and put right.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use boatyard_oci::Digest;
use serde_json::Value;
use support::Place;
use support::http::Http;
use support::images::{self, image_of};
use support::place::text;
use support::server::{Server, wait_for};

/// Pushes an image of one layer and returns its configuration and manifest.
fn push(http: &Http, repository: &str, tag: &str, layer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (config, manifest) = image_of(layer);
    for blob in [layer, &config] {
        assert_eq!(http.push_blob(repository, blob).status, 201);
    }
    assert_eq!(http.push_manifest(repository, tag, &manifest).status, 201);
    (config, manifest)
}

fn blob_path(place: &Place, digest: &Digest) -> PathBuf {
    place.root().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
}

/// Puts other bytes in the place of a blob's, as a bad disk does.
fn overwrite(place: &Place, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) {
    let path = blob_path(place, digest);
    let mut bytes = fs_err::read(&path).unwrap();
    change(&mut bytes);
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, bytes).unwrap();
}

fn losses(report: &Value) -> Vec<(String, String, Vec<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let losses = report["Losses"].as_array().unwrap().iter();
    losses.map(|loss| (text(&loss["Digest"]), text(&loss["How"]), texts(&loss["Breaks"]))).collect()
}

#[test]
fn a_check_names_what_each_loss_breaks_and_a_push_settles_it() {
    let place = Place::new();
    let server = Server::start(&place);
    let http = server.http();
    let [one, two, three] = [1, 2, 3].map(|seed| images::noise(seed, 100_000));
    let (_, _) = push(&http, "team/one", "1", &one);
    push(&http, "team/two", "2", &two);
    let (_, manifest) = push(&http, "other/three", "3", &three);
    push(&http, "other/copy", "latest", &one);
    let [one_digest, two_digest] = [&one, &two].map(|bytes| Digest::sha256(bytes));
    let manifest_digest = Digest::sha256(&manifest);
    assert_eq!(place.boatyard(["fsck", "--format", "json"]).ok().json()["IsClean"], true);

    overwrite(&place, &one_digest, |bytes| bytes[77_777] ^= 1);
    overwrite(&place, &two_digest, |bytes| bytes.truncate(50_000));
    fs_err::remove_file(blob_path(&place, &manifest_digest)).unwrap();
    // Sizes tell what was cut and what is gone; they do not tell what was flipped.
    let quick = ["fsck", "--quick", "--no-quarantine", "--format", "json"];
    let found = losses(&place.boatyard(quick).fails(1).json());
    assert_eq!(found.len(), 2, "{found:?}");
    let only = ["fsck", "--repository", "team/**", "--no-quarantine", "--format", "json"];
    let found = losses(&place.boatyard(only).fails(1).json());
    assert_eq!(found.len(), 2, "{found:?}");

    let mut found = losses(&place.boatyard(["fsck", "--format", "json"]).fails(1).json());
    let mut expected = vec![
        (one_digest.to_string(), "damaged", vec!["hosted/other/copy:latest", "hosted/team/one:1"]),
        (two_digest.to_string(), "damaged", vec!["hosted/team/two:2"]),
        (manifest_digest.to_string(), "missing", vec!["hosted/other/three:3"]),
    ];
    found.sort();
    expected.sort();
    let own = |(digest, how, breaks): (String, &str, Vec<&str>)| {
        (digest, how.to_owned(), breaks.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(found, expected.into_iter().map(own).collect::<Vec<_>>());
    // The running server, which had sent these bytes, gives them to nobody.
    let layer = format!("/v2/team/one/blobs/{one_digest}");
    assert_eq!(http.get(&layer).status, 404);
    assert!(place.root().join("quarantine").join(one_digest.to_string()).exists());

    for (repository, tag, layer) in
        [("team/one", "1", &one), ("team/two", "2", &two), ("other/three", "3", &three)]
    {
        push(&http, repository, tag, layer);
    }
    let said = place.boatyard(["fsck"]).ok().text();
    assert!(said.contains("all is well"), "{said}");
    assert!(said.contains("2 damaged files in ") && said.contains(", 2 of them"), "{said}");
    http.check_image("other/copy", "latest");
    http.check_image("other/three", "3");
}

#[test]
fn a_server_that_reads_a_damaged_manifest_puts_it_aside() {
    let place = Place::new();
    let first = Server::start(&place);
    let (_, manifest) = push(&first.http(), "app", "1", b"layer");
    first.stop();
    let digest = Digest::sha256(&manifest);
    overwrite(&place, &digest, |bytes| bytes[5] ^= 1);
    let server = Server::start(&place);
    let http = server.http();
    assert_eq!(http.manifest("app", "1").status, 500);
    assert!(place.root().join("quarantine").join(digest.to_string()).exists());
    assert_eq!(http.push_manifest("app", "1", &manifest).status, 201);
    http.check_image("app", "1");
}

#[test]
fn what_was_mirrored_comes_again_from_its_upstream_alone() {
    let origin_place = Place::new();
    let origin = Server::start(&origin_place);
    let layer = images::noise(1, 200_000);
    let (config, manifest) = push(&origin.http(), "team/app", "1", &layer);
    let place = Place::new();
    let config_file = format!(
        "[[mirror]]\nname = 'origin'\nurl = 'http://{}'\n[fsck]\nevery = 'none'\n",
        origin.address()
    );
    let server = Server::configured(&place, &place.root(), &config_file);
    let http = server.http();
    http.check_image("origin/team/app", "1");
    // One that was pushed here alone has no upstream.
    let own = images::noise(2, 1000);
    push(&http, "own", "1", &own);
    overwrite(&place, &Digest::sha256(&layer), |bytes| bytes[0] ^= 1);
    overwrite(&place, &Digest::sha256(&manifest), |bytes| bytes[0] ^= 1);
    fs_err::remove_file(blob_path(&place, &Digest::sha256(&config))).unwrap();
    overwrite(&place, &Digest::sha256(&own), |bytes| bytes[0] ^= 1);

    let before = requests(&origin);
    let config = place.path("root.toml");
    let run =
        || place.boatyard(["fsck", "--repair", "--format", "json"]).env("BOATYARD_CONFIG", &config);
    let report = run().fails(1).json();
    let of = |digest: &Digest| {
        let losses = report["Losses"].as_array().unwrap();
        losses.iter().find(|loss| loss["Digest"] == digest.to_string()).unwrap().clone()
    };
    let from = format!("it came again from {}/team/app", origin.address());
    for bytes in [&layer, &manifest] {
        assert_eq!(of(&Digest::sha256(bytes))["Mended"], *from, "{report:#}");
    }
    let trouble = of(&Digest::sha256(&own))["Trouble"].as_str().unwrap().to_owned();
    assert!(trouble.contains("push it again"), "{trouble}");
    assert_eq!(requests(&origin) - before, 3, "one for each: {}", origin.log());
    // A mirror that is asked is whole again, without a word to its upstream.
    http.check_image("origin/team/app", "1");
    push(&http, "own", "1", &own);
    let report = run().ok().json();
    assert_eq!(report["IsClean"], true, "{report:#}");
}

/// Returns how many requests for manifests and blobs a server has answered.
fn requests(server: &Server) -> usize {
    let log = server.log();
    let is_one = |line: &&str| line.contains("method=GET path=\"/v2/team/app/");
    log.lines().filter(is_one).count()
}

#[test]
fn a_server_checks_by_itself_and_stops_at_once() {
    let place = Place::new();
    let first = Server::start(&place);
    let layer = images::noise(1, 100_000);
    push(&first.http(), "app", "1", &layer);
    first.stop();
    overwrite(&place, &Digest::sha256(&layer), |bytes| bytes[0] ^= 1);
    let config = "[fsck]\nevery = '1s'\nrate = 'none'\n";
    let server = Server::configured(&place, &place.root(), config);
    wait_for("the damage to be found", || server.log().contains("breaks=\"hosted/app:1\""));
    assert!(server.log().contains("push it again"), "{}", server.log());
    push(&server.http(), "app", "1", &layer);
    wait_for("all to be well", || server.log().contains("all is well"));
    server.stop();
    // Slow as it is, a check does not keep a server from stopping.
    push_large(&place);
    let slow = "[fsck]\nevery = '1s'\nrate = '1MB'\n";
    let server = Server::configured(&place, &place.root(), slow);
    let state = place.root().join("index/fsck.json");
    let through = || fs_err::read_to_string(&state).unwrap_or_default();
    wait_for("a check to be under way", || through().contains("sha256/"));
    server.stop();
}

fn push_large(place: &Place) {
    let server = Server::start(place);
    for seed in 0..6 {
        let loose = images::noise(100 + seed, 4_000_000);
        assert_eq!(server.http().push_blob("app", &loose).status, 201);
    }
    server.stop();
}

#[test]
fn pushes_go_on_while_everything_is_checked() {
    let place = Place::new();
    let server = Server::start(&place);
    let pushing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let pushers: Vec<_> = (0..2)
        .map(|pusher| {
            let (http, pushing) = (server.http(), Arc::clone(&pushing));
            std::thread::spawn(move || {
                let mut tag = 0;
                while pushing.load(std::sync::atomic::Ordering::Relaxed) {
                    push(
                        &http,
                        &format!("app{pusher}"),
                        &tag.to_string(),
                        &images::noise(tag, 50_000),
                    );
                    tag += 1;
                }
                tag
            })
        })
        .collect();
    for _ in 0..8 {
        let report = place.boatyard(["fsck", "--repair", "--format", "json"]).ok().json();
        assert_eq!(report["IsClean"], true, "{report:#}");
    }
    pushing.store(false, std::sync::atomic::Ordering::Relaxed);
    for (pusher, tags) in pushers.into_iter().enumerate() {
        let tags = tags.join().unwrap();
        (0..tags).for_each(|tag| {
            drop(server.http().check_image(&format!("app{pusher}"), &tag.to_string()));
        });
    }
}

#[test]
fn an_unpacked_layer_that_changed_is_unpacked_again() {
    let place = Place::new();
    images::busybox(&place);
    let context = place.context("app", "FROM busybox\nRUN echo whole > /note\n");
    place.boatyard(["build", "-q", "-t", "app", text(&context)]).ok();
    place.boatyard(["fsck"]).ok();
    let layers = place.root().join("layers");
    let changed = walk(&layers).into_iter().find(|path| path.ends_with("etc/passwd")).unwrap();
    fs_err::write(&changed, "root::0:0::/:/bin/sh\n").unwrap();
    let said = place.boatyard(["fsck"]).fails(1).text();
    assert!(said.contains("differs in etc/passwd"), "{said}");
    place.boatyard(["fsck", "--repair"]).ok();
    assert!(!changed.exists());
    let context = place.context("more", "FROM busybox\nRUN grep -q app /etc/passwd\n");
    place.boatyard(["build", "-q", text(&context)]).ok();
    place.boatyard(["fsck"]).ok();
}

/// Returns the files below a directory.
fn walk(directory: &std::path::Path) -> Vec<PathBuf> {
    let paths = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() && !path.is_symlink() { walk(&path) } else { vec![path] }
    };
    paths.flat_map(below).collect()
}
