//! cargo, with a sparse index.

use std::path::Path;

use boatyard_oci::Digest;

use super::support::Run;
use super::support::origin::Reply;
use super::support::place::text;
use super::support::proxy::World;
use super::{asked, get, world};

/// Publishes a crate; `listing` is its file of the index.
fn publish(world: &World, listing: &mut String, version: &str) {
    let manifest = format!("[package]\nname = 'alpha'\nversion = '{version}'\nedition = '2021'\n");
    let directory = format!("alpha-{version}");
    world.place.write(&format!("{directory}/Cargo.toml"), manifest);
    world.place.write(&format!("{directory}/src/lib.rs"), "");
    let archive = world.place.path("alpha.crate");
    let place = world.place.path("");
    world.place.run("tar", ["-czf", text(&archive), "-C", text(&place), &directory]).ok();
    let bytes = fs_err::read(&archive).unwrap();
    let sum = Digest::sha256(&bytes);
    let line = format!(
        "{{\"name\":\"alpha\",\"vers\":\"{version}\",\"deps\":[],\"cksum\":\"{}\",\"features\":{{}},\
         \"yanked\":false}}\n",
        sum.hex()
    );
    listing.push_str(&line);
    world.origin.put("/al/ph/alpha", Reply::stale(listing.as_str()).tagged(version));
    world.origin.put(&format!("/files/alpha/{version}/download"), Reply::fresh(bytes));
}

/// Runs cargo on a project of its own, whose crates come through the proxy.
fn cargo(world: &World, project: &str, args: &[&str]) -> Run {
    let place = &world.place;
    let name = |file: &str| format!("{project}/{file}");
    let manifest = "[package]\nname = 'app'\nversion = '0.0.0'\nedition = '2021'\n[dependencies]\n\
                    alpha = '1'\n";
    place.write(&name("Cargo.toml"), manifest);
    place.write(&name("src/lib.rs"), "");
    let config = format!(
        "[source.crates-io]\nreplace-with = 'boatyard'\n\
         [source.boatyard]\nregistry = 'sparse+http://{}/one/'\n[net]\nretry = 0\n",
        world.proxy
    );
    place.write(&name("home/config.toml"), config);
    let program = Path::new(env!("CARGO"));
    place
        .run(text(program), [])
        .args(args)
        .current_dir(&place.path(project))
        .env("CARGO_HOME", place.path(&name("home")))
        .env("RUSTC", program.with_file_name("rustc"))
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .env_remove("CARGO_HTTP_PROXY")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_REGISTRIES_CRATES_IO_PROTOCOL")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .env_remove("CARGO_TARGET_DIR")
}

#[test]
fn cargo_fetches_through_the_proxy() {
    let world = world("cargo", None);
    let config = format!(
        "{{\"dl\":\"{}\",\"api\":\"{}\"}}",
        world.origin.url("/files"),
        world.origin.url("/interface")
    );
    world.origin.put("/config.json", Reply::stale(config.clone()).tagged("c"));
    let mut listing = String::new();
    publish(&world, &mut listing, "1.0.0");

    cargo(&world, "first", &["fetch"]).ok();
    let expected = ["GET /al/ph/alpha", "GET /config.json", "GET /files/alpha/1.0.0/download"];
    assert_eq!(asked(&world.origin), expected);
    let lock = fs_err::read_to_string(world.place.path("first/Cargo.lock")).unwrap();
    assert!(lock.contains("source = \"registry+https://"), "{lock}");
    assert!(!lock.contains("127.0.0.1"), "{lock}");
    let cached = get(&world, "/config.json", &[]).text().to_owned();
    assert!(cached.contains(&format!("http://{}/one/-/crates/", world.proxy)), "{cached}");
    assert!(cached.contains(&format!("\"api\":\"http://{}/one/-\"", world.proxy)), "{cached}");
    world.origin.put("/interface/api/v1/crates?q=al", Reply::stale("found"));
    assert_eq!(get(&world, "/-/api/v1/crates?q=al", &[]).text(), "found");

    // A new version is seen.
    publish(&world, &mut listing, "1.1.0");
    cargo(&world, "first", &["update"]).ok();
    cargo(&world, "first", &["fetch"]).ok();
    let lock = fs_err::read_to_string(world.place.path("first/Cargo.lock")).unwrap();
    assert!(lock.contains("version = \"1.1.0\""), "{lock}");

    // Wrong bytes are refused by us, and a checksum that the index does not have opens nothing.
    publish(&world, &mut listing, "1.2.0");
    let sum = listing.lines().last().unwrap().split("cksum\":\"").nth(1).unwrap()[..64].to_owned();
    world.origin.put("/files/alpha/1.2.0/download", Reply::fresh("wrong"));
    let wrong = get(&world, &format!("/-/crates/alpha/1.2.0/{sum}.crate"), &[]);
    assert!(wrong.status == 502 || wrong.body.len() < 5, "{}", wrong.status);
    let secret = Digest::sha256(config.as_bytes());
    let other = get(&world, &format!("/-/crates/alpha/1.0.0/{}.crate", secret.hex()), &[]);
    assert_eq!(other.status, 404);
    // What was withdrawn from the index is not asked for by anybody.
    let good = listing.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    world.origin.put("/al/ph/alpha", Reply::stale(good).tagged("good"));
    assert_eq!(get(&world, "/al/ph/alpha", &[]).status, 200);

    // A fresh client needs no upstream.
    world.origin.go_down();
    cargo(&world, "second", &["fetch"]).ok();
    let lock = fs_err::read_to_string(world.place.path("second/Cargo.lock")).unwrap();
    assert!(lock.contains("version = \"1.1.0\""), "{lock}");
}
