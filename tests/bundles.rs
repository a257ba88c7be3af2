//! Bundles: images for machines without a network, with skopeo as judge.

#![expect(clippy::unwrap_used, reason = "a step of the story that fails has failed the test")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use support::place::text;
use support::{Place, images, until};

/// A tenth of what the issue names, at the same ratio: 50 MB of files, a bundle of less than 100 kB.
const FILES: usize = 50;
const FILE_BYTES: usize = 1 << 20;
const BUNDLE_BYTES_MAX: u64 = 100_000;

/// Builds an image of one layer, `count` files and a script that says which version this is.
fn build(place: &Place, version: usize, count: usize) -> String {
    let name = format!("app:{version}");
    let context = place.context("app", "FROM scratch\nCOPY files /srv\nCMD [\"/srv/run\"]\n");
    let files = context.join("files");
    if !files.exists() {
        fs_err::create_dir(&files).unwrap();
        for number in 0..count {
            let bytes = images::noise(number as u64 + 1, FILE_BYTES);
            fs_err::write(files.join(format!("{number}.bin")), bytes).unwrap();
        }
    }
    let script = (0..2000).map(|line| format!("echo line {line}\n")).collect::<String>();
    let script = format!("{script}echo version {version}\n");
    fs_err::write(files.join("run"), script).unwrap();
    place.boatyard(["build", "-q", "-t", &name, text(&context)]).ok();
    name
}

fn size(path: &Path) -> u64 {
    fs_err::metadata(path).unwrap().len()
}

/// Returns an image's manifest.
fn manifest(place: &Place, root: &Path, name: &str) -> serde_json::Value {
    place.boatyard_at(root, ["inspect", "--raw", name]).ok().json()
}

#[test]
fn three_bundles_in_a_row_carry_a_changed_line_each() {
    let place = Place::new();
    let receiver = place.path("receiver");
    let first = build(&place, 1, FILES);
    let whole = place.path("whole.tar");
    place.boatyard(["save", "--format", "oci-archive", "-o", text(&whole), &first]).ok();
    place.boatyard_at(&receiver, ["load", "-i", text(&whole)]).ok();

    // What the receiver has is said in all three ways: an image, its own list, a former bundle.
    let list = place.path("list");
    place.boatyard_at(&receiver, ["save", "--list", "-o", text(&list)]).ok();
    let bundle = |number: usize| place.path(&format!("bundle-{number}"));
    let since = [first, text(&list).to_owned(), text(&bundle(2)).to_owned()];
    for (number, since) in since.iter().enumerate() {
        let number = number + 1;
        let name = build(&place, number + 1, FILES);
        let file = bundle(number);
        let saved = place.boatyard(["save", "--since", since, "-o", text(&file), &name]).ok();
        saved.says(["a delta that stands for 52"]);
        assert!(size(&file) < BUNDLE_BYTES_MAX, "{} bytes\n{saved}", size(&file));
        let loaded = place.boatyard_at(&receiver, ["load", "-i", text(&file)]).ok();
        assert_eq!(loaded.text(), format!("Loaded image: {name}"));
        let there = manifest(&place, &receiver, &name);
        assert_eq!(there, manifest(&place, &place.root(), &name));
    }
    let fsck = place.boatyard_at(&receiver, ["fsck"]).ok().text();
    assert!(fsck.ends_with("all is well"), "{fsck}");

    // Another tool unpacks what was put together.
    let copy = place.path("copy.tar");
    let save = ["save", "--format", "oci-archive", "-o", text(&copy), "app:4"];
    place.boatyard_at(&receiver, save).ok();
    let layout = format!("oci:{}:app", text(&place.path("layout")));
    let from = format!("oci-archive:{}", text(&copy));
    let policy = ["--insecure-policy", "copy", &from, &layout];
    place.run("skopeo", policy).ok();
    let inspected = place.run("skopeo", ["inspect", &layout]).ok().json();
    let layer = manifest(&place, &place.root(), "app:4")["layers"][0]["digest"].clone();
    assert_eq!(inspected["Layers"], serde_json::json!([layer]));
}

#[test]
fn who_lacks_the_base_is_told_which_image_to_load() {
    let place = Place::new();
    let (first, second) = (build(&place, 1, 4), build(&place, 2, 4));
    let file = place.path("bundle");
    place.boatyard(["save", "--since", &first, "-o", text(&file), &second]).ok();
    let nobody = place.path("nobody");
    let refused = place.boatyard_at(&nobody, ["load", "-i", text(&file)]).fails(1);
    refused.says(["the bundle needs sha256:", "of app:1, which is not here"]);
    refused.says(["hint: save without --since there, or load app:1 here first"]);
    assert_eq!(place.boatyard_at(&nobody, ["images", "-q"]).ok().text(), "");
    let usage = ["save", "--since", &first, "--format", "docker-archive", &second];
    place.boatyard(usage).fails(2).says(["a bundle is an oci-archive"]);
    let unknown = place.boatyard(["save", "--since", "nothing", "-o", text(&file), &second]);
    unknown.fails(1).says(["--since also takes a file"]);
}

#[test]
fn a_load_that_is_killed_names_nothing_and_is_done_again() {
    let place = Place::new();
    let receiver = place.path("receiver");
    let (first, second) = (build(&place, 1, 4), build(&place, 2, 4));
    let (whole, file) = (place.path("whole.tar"), place.path("bundle"));
    place.boatyard(["save", "--format", "oci-archive", "-o", text(&whole), &first]).ok();
    place.boatyard_at(&receiver, ["load", "-i", text(&whole)]).ok();
    place.boatyard(["save", "--since", &first, "-o", text(&file), &second]).ok();
    let bytes = fs_err::read(&file).unwrap();
    // What a kill can meet: before a blob has come, with some, and with all but the archive's end.
    for part in [1000, bytes.len() / 2, bytes.len() - 512] {
        let mut load = std::process::Command::new(env!("CARGO_BIN_EXE_boatyard"))
            .args(["load"])
            .env("BOATYARD_ROOT", &receiver)
            .env("HOME", place.path("home"))
            .env_remove("BOATYARD_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pipe = load.stdin.take().unwrap();
        pipe.write_all(&bytes[..part]).unwrap();
        let unread = || rustix::io::ioctl_fionread(&pipe).unwrap();
        until("all of it was read", || unread() == 0);
        load.kill().unwrap();
        load.wait().unwrap();
        let images = place.boatyard_at(&receiver, ["images", "-q"]).ok().text();
        assert_eq!(images.lines().count(), 1, "{images}");
    }
    place.boatyard_at(&receiver, ["load", "-i", text(&file)]).ok();
    let fsck = place.boatyard_at(&receiver, ["fsck"]).ok().text();
    assert!(fsck.ends_with("all is well"), "{fsck}");
    // What was left by those that were killed is garbage, and the images live.
    place.boatyard_at(&receiver, ["gc", "--grace", "0"]).ok();
    assert!(place.boatyard_at(&receiver, ["fsck"]).ok().text().ends_with("all is well"));
    assert_eq!(manifest(&place, &receiver, &second), manifest(&place, &place.root(), &second));
}
