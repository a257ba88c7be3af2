//! A root is looked after: garbage goes by itself, and what stays says why.

mod support;

use boatyard_oci::Digest;
use support::Place;
use support::http::Http;
use support::images::{self, image_of};
use support::server::{Server, wait_for};

/// Pushes an image of one layer.
fn push(http: &Http, repository: &str, tag: &str, layer: &[u8]) {
    let (config, manifest) = image_of(layer);
    for blob in [layer, &config] {
        assert_eq!(http.push_blob(repository, blob).status, 201);
    }
    assert_eq!(http.push_manifest(repository, tag, &manifest).status, 201);
}

#[test]
fn a_server_collects_by_itself_what_nobody_needs() {
    let place = Place::new();
    let before = Server::start(&place);
    push(&before.http(), "team/app", "1", &images::noise(1, 100_000));
    before.stop();
    let config = "[gc]\nevery = '1s'\ngrace_seconds = 0\n";
    let server = Server::configured(&place, &place.root(), config);
    let http = server.http();
    let loose = images::noise(2, 100_000);
    assert_eq!(http.push_blob("team/app", &loose).status, 201);
    let path = format!("/v2/team/app/blobs/{}", Digest::sha256(&loose));
    wait_for("the garbage to be gone", || http.get(&path).status == 404);
    wait_for("it to be said", || server.log().contains("collected 100kB in 1 blob"));
    http.check_image("team/app", "1");
}

#[test]
fn what_stays_says_why_and_what_it_takes() {
    let place = Place::new();
    let server = Server::start(&place);
    let http = server.http();
    let layer = images::noise(1, 1_000_000);
    push(&http, "one/app", "1.0", &layer);
    push(&http, "two/app", "2.0", &layer);
    let loose = images::noise(2, 5_000);
    assert_eq!(http.push_blob("two/app", &loose).status, 201);

    let digest = Digest::sha256(&layer).to_string();
    let said = place.boatyard(["gc", "--grace", "0", "--why", &digest]).ok().text();
    assert!(said.starts_with(&format!("{digest} (1MB) stays:\n")), "{said}");
    assert!(said.contains("of hosted/one/app needs it (tagged 1.0)"), "{said}");
    assert!(said.contains("of hosted/two/app needs it (tagged 2.0)"), "{said}");
    let absent = Digest::sha256(b"absent").to_string();
    assert!(place.boatyard(["gc", "--why", &absent]).fails(1).text().contains("is not here"));

    let shown = place.boatyard(["df", "--json"]).ok().json();
    let row = |list: &str, name: &str| {
        let rows = shown[list].as_array().unwrap();
        rows.iter().find(|row| row["Name"] == name).unwrap_or_else(|| panic!("{shown:#}")).clone()
    };
    // Kept once, needed by both, and by neither alone.
    let registry = row("Holders", "registry");
    assert_eq!(registry["Bytes"], registry["AloneBytes"]);
    assert_eq!(registry["Bytes"], shown["Blobs"]["Bytes"]);
    assert_eq!(row("Repositories", "hosted/one/app")["AloneBytes"], 0);
    assert_eq!(row("Repositories", "hosted/two/app")["AloneBytes"], 5_000);
    let table = place.boatyard(["df"]).ok().text();
    assert!(table.contains("registry") && table.contains("hosted/two/app"), "{table}");
}
