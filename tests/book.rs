//! What readers of the book suffer from, end to end: the forgotten `.git`, and the large layer. A
//! one-line change that installs nothing again is in `build_cache.rs`, the clean-up that frees
//! nothing in `cache_command.rs`. `docs/problems/` has a page for each, with what it takes.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use support::built::Built;
use support::place::text;
use support::{Place, Server, images};

/// Returns the bytes of all layers of an image in a registry.
fn layer_bytes(server: &Server, repository: &str) -> Vec<u64> {
    let manifest = server.http().manifest(repository, "1");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.body).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["size"].as_u64().unwrap()).collect()
}

#[test]
fn a_forgotten_git_is_read_only_where_nothing_ignores_it() {
    const HISTORY_BYTES: usize = 20 << 20;
    let place = Place::new();
    let server = Server::start(&place);
    let context = place.context("app", "FROM scratch\nCOPY . /app\n");
    place.write("app/app.rb", "puts 1\n");
    place.write("app/.git/pack", images::noise(1, HISTORY_BYTES));
    let build = |image: &str| {
        let options = ["build", "--progress=json", "--push", "-t", image, text(&context)];
        Built::of(&place.boatyard(options).ok())
    };
    build(&server.image("whole:1"));
    assert!(layer_bytes(&server, "whole")[0] > HISTORY_BYTES as u64);

    place.write("app/.dockerignore", ".git\n");
    build(&server.image("small:1"));
    assert!(layer_bytes(&server, "small")[0] < 1024);
    // What is ignored is not even looked at: the next build finds all it made.
    place.write("app/.git/pack", images::noise(2, HISTORY_BYTES));
    build(&server.image("small:1")).ran([]);
}

#[test]
fn a_large_layer_is_written_once_and_comes_back_as_it_was() {
    const MEGABYTES: u64 = 64;
    let place = Place::new();
    images::busybox(&place);
    let server = Server::start_at(&place, &place.path("registry"));
    let dockerfile =
        format!("FROM busybox\nRUN dd if=/dev/urandom of=/large bs=1M count={MEGABYTES}\n");
    let context = place.context("dd", &dockerfile);
    let image = server.image("large:1");
    place.boatyard(["build", "--push", "-t", &image, text(&context)]).ok();
    let layers = layer_bytes(&server, "large");
    let large = *layers.last().unwrap();
    let slack = (MEGABYTES << 20) / 100;
    // Random bytes do not compress, and are not made larger by trying.
    assert!(large.abs_diff(MEGABYTES << 20) < slack, "{large} bytes");

    let again = place.boatyard(["push", &image]).ok();
    again.says(["already"]);
    let elsewhere = place.path("elsewhere");
    place.boatyard_at(&elsewhere, ["pull", &image]).ok();
    let digest = |root: &std::path::Path| {
        let inspected = place.boatyard_at(root, ["inspect", &image]).ok().json();
        inspected[0]["RootFS"]["Layers"].clone()
    };
    assert_eq!(digest(&place.root()), digest(&elsewhere));
    assert!(digest(&elsewhere).as_array().is_some_and(|layers| layers.len() == 2));
}
