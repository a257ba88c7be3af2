//! What a root held is in its backups, whole, whatever else went on.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boatyard_oci::Digest;
use support::Place;
use support::http::Http;
use support::images::{self, image_of};
use support::place::text;
use support::server::{Server, wait_for};

/// What is printed on standard output.
trait Prints {
    /// Fails the test unless standard output has all of these in it.
    fn prints<const N: usize>(&self, parts: [&str; N]);
}

impl Prints for support::process::Ran {
    #[track_caller]
    fn prints<const N: usize>(&self, parts: [&str; N]) {
        for part in parts {
            assert!(self.text().contains(part), "should print {part:?}:\n{self}");
        }
    }
}

/// Pushes an image of one layer and returns the manifest's digest.
fn push(http: &Http, repository: &str, tag: &str, layer: &[u8]) -> Digest {
    let (config, manifest) = image_of(layer);
    for blob in [layer, &config] {
        assert_eq!(http.push_blob(repository, blob).status, 201);
    }
    assert_eq!(http.push_manifest(repository, tag, &manifest).status, 201);
    Digest::sha256(&manifest)
}

fn count_files(directory: &Path) -> usize {
    let entries =
        fs_err::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

#[test]
fn a_backup_grows_by_what_is_new_and_restores_every_name() {
    let place = Place::new();
    let backup = place.path("backup");
    let server = Server::start(&place);
    let http = server.http();
    let one = push(&http, "team/app", "1", &images::noise(1, 100_000));
    place.boatyard(["user", "add", "ann", "--password-stdin"]).input("wonderland-12").ok();
    let first = place.boatyard(["backup", text(&backup)]).ok().text();
    assert!(first.contains("1 repository, 1 tag, 3 blobs"), "{first}");
    let two = push(&http, "team/app", "2", &images::noise(2, 100_000));
    assert_eq!(http.send("DELETE", &format!("/v2/team/app/manifests/{one}"), "", &[]).status, 202);
    wait_for("what was deleted to be gone", || {
        place.boatyard(["gc", "--grace", "0"]).ok();
        count_files(&place.root().join("blobs")) == 3
    });
    let second = place.boatyard(["backup", text(&backup)]).ok().text();
    assert!(second.contains(" in 3 blobs new to the backup"), "{second}");
    let third = place.boatyard(["backup", text(&backup)]).ok().text();
    assert!(third.contains("0B in 0 blobs new"), "{third}");
    let listed = place.boatyard(["backup", "list", text(&backup), "--format", "json"]).ok().text();
    let names: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|snapshot| snapshot["Name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 3, "{listed}");
    place
        .boatyard(["backup", "verify", text(&backup)])
        .ok()
        .prints(["6 blobs", "3 snapshots whole, 0 broken"]);

    // Into an empty root: all names, users too. One that is in use, or has something, is refused.
    place.boatyard(["restore", text(&backup)]).fails(1).says(["is in use by", "boatyard serve"]);
    let other = place.path("other");
    let restore = |args: &[&str]| {
        place.boatyard_at(&other, ["restore", text(&backup)]).args(args.iter().copied())
    };
    restore(&["--snapshot", &names[0]]).ok().prints(["1 repository, 1 tag, 3 blobs"]);
    restore(&[]).fails(1).says(["is not empty", "--into-existing"]);
    let restored = Server::start_at(&place, &other);
    assert_eq!(restored.http().check_image("team/app", "1"), one);
    assert_eq!(restored.http().manifest("team/app", "2").status, 404);
    // What is there stays where it points, and what was missing comes.
    let own = push(&restored.http(), "team/app", "2", b"another");
    restore(&["--into-existing"]).ok().prints(["hosted/team/app:2 points elsewhere here"]);
    assert_eq!(restored.http().check_image("team/app", "2"), own);
    restored.http().check_image("team/app", &two.to_string());
    let users = |root: &Path| fs_err::read_to_string(root.join("access/users")).unwrap();
    assert_eq!(users(&other), users(&place.root()));
    place.boatyard_at(&other, ["fsck"]).ok();

    place.boatyard(["backup", "prune", text(&backup), "--keep", "1"]).ok().prints(["Gave up"]);
    assert_eq!(count_files(&backup.join("blobs")), 3, "those of the second image");
    let layer = Digest::sha256(&images::noise(2, 100_000));
    let path = backup.join("blobs/sha256").join(&layer.hex()[..2]).join(layer.hex());
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, "damaged").unwrap();
    place.boatyard(["backup", "verify", text(&backup)]).fails(1).prints(["lost: ", "1 broken"]);
    place.boatyard(["backup", text(&backup)]).ok().prints(["in 1 blob new"]);
    place.boatyard(["backup", "verify", text(&backup)]).ok();
}

#[test]
fn wrong_places_are_refused_with_what_to_do() {
    let place = Place::new();
    let foreign = place.path("home");
    place.write("home/notes", "x");
    let refused = place.boatyard(["backup", text(&foreign)]).fails(1);
    refused.says(["is not a backup of Boatyard", "hint: name an empty directory"]);
    place.boatyard(["restore", text(&foreign)]).fails(1).says(["there is no backup in"]);
    let inside = place.root().join("backup");
    place.boatyard(["backup", text(&inside)]).fails(2).says(["lies in the root"]);
    let backup = place.path("backup");
    place.boatyard(["backup", text(&backup)]).ok();
    let gone = ["restore", text(&backup), "--snapshot", "20200101T000000Z"];
    place.boatyard(gone).fails(1).says(["has no snapshot 20200101T000000Z", "backup list"]);
    let snapshot = fs_err::read_dir(backup.join("snapshots")).unwrap().next().unwrap().unwrap();
    let text_of = fs_err::read_to_string(snapshot.path()).unwrap();
    let cut = text_of.lines().next().unwrap().to_owned() + "\n";
    fs_err::write(snapshot.path(), cut).unwrap();
    let other = place.path("other");
    let refused = place.boatyard_at(&other, ["restore", text(&backup)]).fails(1);
    refused.says(["is damaged: it is not whole"]);
    // A snapshot that others wrote names no file outside of a root.
    let evil = text_of.replacen(
        "{\"End\":{\"Repositories\":0,\"Files\":0",
        "{\"File\":{\"Path\":\"access/../../evil\",\"Mode\":420,\"Modified\":null,\"Bytes\":\"eA==\"}}\n\
         {\"End\":{\"Repositories\":0,\"Files\":1",
        1,
    );
    assert_ne!(evil, text_of);
    fs_err::write(snapshot.path(), evil).unwrap();
    place.boatyard_at(&other, ["restore", text(&backup)]).ok();
    assert!(!place.path("evil").exists());
}

/// Pushes and deletes without a pause, until it is told to stop; returns the tags that stay.
fn churn(http: &Http, on: &AtomicBool, number: u64) -> BTreeMap<String, Digest> {
    let repository = format!("churn{number}");
    let mut stay = BTreeMap::new();
    let mut round = 0;
    while on.load(Ordering::Relaxed) {
        let layer = images::noise(number * 1_000_000 + round, 30_000);
        let tag = format!("t{round}");
        let digest = push(http, &repository, &tag, &layer);
        if round % 2 == 0 {
            stay.insert(format!("{repository}:{tag}"), digest);
        } else {
            let path = format!("/v2/{repository}/manifests/{digest}");
            assert_eq!(http.send("DELETE", &path, "", &[]).status, 202);
        }
        round += 1;
    }
    stay
}

#[test]
fn every_snapshot_is_whole_while_pushes_deletions_and_collections_go_on() {
    let place = Place::new();
    let backup = place.path("backup");
    let config = "[gc]\ngrace_seconds = 2\n[fsck]\nevery = 'none'\n";
    let server = Server::configured(&place, &place.root(), config);
    let on = Arc::new(AtomicBool::new(true));
    let churning: Vec<_> = (0..2)
        .map(|number| {
            let (http, on) = (server.http(), Arc::clone(&on));
            std::thread::spawn(move || churn(&http, &on, number))
        })
        .collect();
    for round in 0..4 {
        place.boatyard(["gc", "--grace", "2s"]).ok();
        // Every other backup is killed, somewhere in the middle, and the next one goes on.
        if round % 2 == 0 {
            let run = place.boatyard(["backup", "--quiet", text(&backup)]);
            let mut killed = run.spawn(Stdio::null(), Stdio::null());
            let staged = || count_files(&backup.join("blobs")) > 40 * round;
            wait_for("some blobs to come", || staged() || killed.try_wait().unwrap().is_some());
            let _ = killed.kill();
            killed.wait().unwrap();
        }
        place.boatyard(["backup", "--quiet", text(&backup)]).ok();
    }
    on.store(false, Ordering::Relaxed);
    let stay: Vec<_> = churning.into_iter().flat_map(|churn| churn.join().unwrap()).collect();
    place.boatyard(["backup", "--quiet", text(&backup)]).ok();
    place.boatyard(["backup", "verify", text(&backup)]).ok().prints([", 0 broken"]);
    server.kill();

    let listed = place.boatyard(["backup", "list", text(&backup), "--format", "json"]).ok().text();
    let names: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|snapshot| snapshot["Name"].as_str().unwrap().to_owned())
        .collect();
    for (number, name) in names.iter().enumerate() {
        let root = place.path(&format!("restored{number}"));
        let args = ["restore", text(&backup), "--snapshot", name];
        if number + 1 == names.len() {
            // One restore is killed, and is nothing that others could use until it is run again.
            let mut killed = place.boatyard_at(&root, args).spawn(Stdio::null(), Stdio::null());
            let came = || count_files(&root.join("blobs")) > 5;
            wait_for("some blobs to come", || came() || killed.try_wait().unwrap().is_some());
            let _ = killed.kill();
            killed.wait().unwrap();
            if root.join("restoring").exists() {
                let refused = place.boatyard_at(&root, ["images"]).fails(1);
                refused.says(["is being restored from a backup", "run `boatyard restore` again"]);
                place.boatyard_at(&root, args).ok();
            }
        } else {
            place.boatyard_at(&root, args).ok();
        }
        place.boatyard_at(&root, ["fsck"]).ok();
    }
    let last = Server::start_at(&place, &place.path(&format!("restored{}", names.len() - 1)));
    for (image, digest) in stay {
        let (repository, tag) = image.split_once(':').unwrap();
        assert_eq!(last.http().check_image(repository, tag), digest, "{image}");
    }
}
