//! The registry as clients see it that we did not write: each pushes and pulls, and what one
//! pushed the others pull. Digests agree, and so does every byte.

mod support;

use boatyard_oci::Digest;
use support::clients::{self, Client};
use support::http::needs;
use support::place::text;
use support::{Place, Server, images};

#[test]
fn what_each_client_pushes_every_client_pulls() {
    let place = Place::new();
    let rootfs = images::archive(&place, &images::busybox_tree(&place), "rootfs.tar");
    let server = Server::start(&place);
    let clients = clients::all(&place);
    for pusher in &clients {
        let repository = format!("from/{}", pusher.name());
        let image = server.image(&format!("{repository}:1"));
        let pushed = pusher.push_new(&rootfs, &image);
        assert_eq!(server.http().check_image(&repository, "1"), pushed, "{}", pusher.name());
        for puller in &clients {
            let pulled = puller.pull(&image);
            assert_eq!(pulled, pushed, "{} pulls what {} pushed", puller.name(), pusher.name());
        }
    }
    let catalog = server.http().get("/v2/_catalog");
    assert_eq!(
        catalog.text().trim(),
        r#"{"repositories":["from/ctr","from/dockerd","from/podman","from/skopeo"]}"#
    );
    drop(clients);
    server.stop();
}

#[test]
fn curl_pushes_in_pieces_and_pulls_ranges() {
    let place = Place::new();
    let server = Server::start(&place);
    let url = |path: &str| format!("http://{}/v2/by/curl/{path}", server.address());
    let curl = || place.run("curl", ["-sS", "--fail-with-body"]);
    let layer = images::noise(1, 300_000);
    let (config, manifest) = images::image_of(&layer);
    let layer_file = place.write("layer", &layer);

    // The layer in two chunks, the config in one request.
    let location = |head: &str| {
        let mut lines = head.lines();
        let value = lines.find(|line| line.to_lowercase().starts_with("location:"));
        let path = value.unwrap().split_once(':').unwrap().1.trim().to_owned();
        if path.starts_with('/') { format!("http://{}{path}", server.address()) } else { path }
    };
    let begun = curl().args(["-X", "POST", "-D", "-", &url("blobs/uploads/")]).ok().text();
    let mut session = location(&begun);
    for (from, to) in [(0, 199_999), (200_000, 299_999)] {
        let range = format!("Content-Range: {from}-{to}");
        let patch = curl()
            .args(["-X", "PATCH", "-D", "-", "-H", &range, "--data-binary", "@-"])
            .args(["-H", "Content-Type: application/octet-stream", &session])
            .input(&layer[from..=to]);
        session = location(&patch.ok().text());
    }
    let mark = if session.contains('?') { '&' } else { '?' };
    let end = format!("{session}{mark}digest={}", Digest::sha256(&layer));
    curl().args(["-X", "PUT", "-H", "Content-Length: 0", &end]).ok();
    let single = url(&format!("blobs/uploads/?digest={}", Digest::sha256(&config)));
    curl()
        .args(["-X", "POST", "--data-binary", "@-", &single])
        .args(["-H", "Content-Type: application/octet-stream"])
        .input(config)
        .ok();

    let media_type = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    curl()
        .args(["-X", "PUT", "-H", media_type, "--data-binary", "@-", &url("manifests/1")])
        .input(manifest.clone())
        .ok();

    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    assert_eq!(curl().args(["-H", accept, &url("manifests/1")]).ok().stdout, manifest);
    let layer_url = url(&format!("blobs/{}", Digest::sha256(&layer)));
    assert_eq!(curl().arg(&layer_url).ok().stdout, layer);
    let part = curl().args(["-r", "1000-1999", &layer_url]).ok().stdout;
    assert_eq!(part, &layer[1000..2000]);
    // A download that stopped goes on where it was.
    let half = place.write("half", &layer[..123_456]);
    curl().args(["-C", "-", "-o", text(&half), &layer_url]).ok();
    assert_eq!(fs_err::read(half).unwrap(), fs_err::read(layer_file).unwrap());
    server.stop();
}

#[test]
fn what_a_client_pushed_survives_a_restart_of_the_server() {
    let place = Place::new();
    let rootfs = images::archive(&place, &images::busybox_tree(&place), "rootfs.tar");
    let skopeo = clients::Skopeo::new(&place);
    let server = Server::start(&place);
    let pushed = skopeo.push_new(&rootfs, &server.image("kept:1"));
    server.stop();
    let server = Server::start(&place);
    assert_eq!(skopeo.pull(&server.image("kept:1")), pushed);
    let manifest = server.http().manifest("kept", "1");
    assert_eq!(needs(&manifest.body).len(), 2);
    server.kill();
    let server = Server::start(&place);
    assert_eq!(server.http().check_image("kept", "1"), pushed);
}
