//! cargo, with a sparse index.

use std::path::Path;

use boatyard_oci::Digest;

use super::support::Run;
use super::support::origin::Reply;
use super::support::place::text;
use super::support::proxy::World;
use super::{asked, get, hosting, token, world};

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
    cargo_in(world, project, args)
}

/// Runs cargo with a home in a project.
fn cargo_in(world: &World, project: &str, args: &[&str]) -> Run {
    let place = &world.place;
    let program = Path::new(env!("CARGO"));
    place
        .run(text(program), [])
        .args(args)
        .current_dir(&place.path(project))
        .env("CARGO_HOME", place.path(&format!("{project}/home")))
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

#[test]
fn private_crates_are_published() {
    let world = hosting("cargo", "private = ['acme-*']", None);
    let place = &world.place;
    let url = world.origin.url("/files");
    world.origin.put("/config.json", Reply::stale(format!("{{\"dl\":\"{url}\"}}")));
    let mut listing = String::new();
    publish(&world, &mut listing, "1.0.0");
    // Somebody publishes a higher version of a private name.
    world.origin.put("/ac/me/acme-x", Reply::stale(listing.replace("alpha", "acme-x")));

    let crate_of = |name: &str, needs: &str| {
        let manifest = format!(
            "[package]\nname = '{name}'\nversion = '0.1.0'\nedition = '2021'\n\
             license = 'MIT'\ndescription = 'x'\n[dependencies]\n{needs}\n"
        );
        place.write(&format!("{name}/src/lib.rs"), "pub fn x() {}\n");
        place.write(&format!("{name}/Cargo.toml"), manifest);
        name.to_owned()
    };
    let token = token(place);
    let in_registry = |project: &str, args: &[&str]| in_registry(&world, &token, project, args);
    let mine = crate_of("acme-x", "alpha = { version = '1', registry = 'own' }");
    let publish = ["publish", "--registry", "own", "--no-verify", "--allow-dirty"];
    in_registry(&mine, &publish).ok();
    // A version is published once, and other names not at all.
    in_registry(&mine, &publish).fails(101);
    in_registry(&crate_of("beta", ""), &publish).fails(101);

    let app = crate_of("app", "acme-x = { version = '*', registry = 'own' }");
    in_registry(&app, &["fetch"]).ok();
    let lock = fs_err::read_to_string(place.path("app/Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"acme-x\"\nversion = \"0.1.0\""), "{lock}");
    let asked = asked(&world.origin);
    assert!(!asked.iter().any(|line| line.contains("acme")), "{asked:?}");

    in_registry(&mine, &["yank", "--registry", "own", "--version", "0.1.0"]).ok();
    assert!(get(&world, "/ac/me/acme-x", &[]).text().contains("\"yanked\":true"));
}

/// Runs cargo with a registry `own`.
fn in_registry(world: &World, token: &str, project: &str, args: &[&str]) -> Run {
    let run = cargo_in(world, project, args);
    let config = format!("[registries.own]\nindex = 'sparse+http://{}/one/'\n", world.proxy);
    world.place.write(&format!("{project}/home/config.toml"), config);
    run.env("CARGO_REGISTRIES_OWN_TOKEN", token)
}
