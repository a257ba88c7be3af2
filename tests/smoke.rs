//! Real upstreams through the cache proxy, with the clients that people use. Which ones the
//! environment says: `BOATYARD_SMOKE_NPM=https://registry.example`, and likewise `_PYPI` (the index
//! above `simple/`), `_GEM`, `_CARGO` (the sparse index) and `_GO`. Where there is none, or the client
//! is not here, a test is skipped with a line that says so.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says why it does not begin"
)]

mod support;

use std::path::Path;

use serde_json::json;
use support::npm::Project;
use support::proxy::proxy_of;
use support::pypi::Machine;
use support::{Place, Run, Server};

/// A proxy that has a real upstream as `up`.
struct World {
    server: Server,
    place: Place,
    url: String,
}

/// Starts a proxy for an ecosystem's upstream, where the environment names one.
fn world(ecosystem: &str, client: &str) -> Option<World> {
    let variable = format!("BOATYARD_SMOKE_{}", ecosystem.to_uppercase());
    let Some(url) = std::env::var(&variable).ok().filter(|url| !url.is_empty()) else {
        eprintln!("skipped: {variable} is not set");
        return None;
    };
    if Run::new("sh").args(["-c", &format!("command -v {client}")]).run().code != Some(0) {
        eprintln!("skipped: {client} is not installed");
        return None;
    }
    let place = Place::new();
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n[[proxy.upstream]]\nname = 'up'\nurl = '{url}'\n\
         ecosystem = '{ecosystem}'\n"
    );
    let server = Server::configured(&place, &place.root(), &config);
    let url = format!("http://{}/up/", proxy_of(&server));
    Some(World { server, place, url })
}

impl World {
    /// Installs with two clients that have never seen a package; the second one gets what is kept.
    fn installs(&self, install: impl Fn(&str) -> Run) {
        install("first").ok();
        install("second").ok();
        let log = self.server.log();
        let is_kept = [" HIT ", " REVALIDATED "].iter().any(|outcome| log.contains(outcome));
        assert!(is_kept, "what the first one fetched is kept: {log}");
    }

    /// Returns a client that runs in a directory of its own, which is its home too.
    fn run(&self, name: &str, program: &str) -> Run {
        let home = self.place.path(name);
        fs_err::create_dir_all(&home).unwrap();
        let run = self.place.run(program, []).current_dir(&home).env("HOME", &home);
        run.env_remove("http_proxy").env_remove("https_proxy")
    }
}

#[test]
fn npm() {
    let Some(world) = world("npm", "npm") else { return };
    world.installs(|name| {
        let project =
            Project::new(&world.place, name, &world.url, &json!({ "is-number": "^7.0.0" }));
        project.run("npm", &["install", "--ignore-scripts"])
    });
}

#[test]
fn pip() {
    let Some(world) = world("pypi", "pip3") else { return };
    world.installs(|name| {
        Machine::new(&world.place, name, &format!("{}simple/", world.url)).pip(&["six"])
    });
}

#[test]
fn gem() {
    let Some(world) = world("gem", "gem") else { return };
    world.installs(|name| {
        let run = world.run(name, "gem").args(["install", "rake", "--clear-sources"]);
        let run = run.args(["--no-document", "--install-dir", "gems", "--source"]);
        run.arg(&world.url).env_remove("RUBYOPT")
    });
}

#[test]
fn cargo() {
    let Some(world) = world("cargo", "cargo") else { return };
    let program = Path::new(env!("CARGO"));
    world.installs(|name| {
        let manifest = "[package]\nname = 'app'\nversion = '0.0.0'\nedition = '2021'\n\
                        [dependencies]\nitoa = '1'\n";
        world.place.write(&format!("{name}/Cargo.toml"), manifest);
        world.place.write(&format!("{name}/src/lib.rs"), "");
        let config = format!(
            "[source.crates-io]\nreplace-with = 'up'\n[source.up]\nregistry = 'sparse+{}'\n",
            world.url
        );
        world.place.write(&format!("{name}/cargo/config.toml"), config);
        let home = world.place.path(&format!("{name}/cargo"));
        let run = world.run(name, &program.display().to_string()).arg("fetch");
        run.env("CARGO_HOME", home).env("RUSTC", program.with_file_name("rustc"))
    });
}

#[test]
fn go() {
    let Some(world) = world("go", "go") else { return };
    world.installs(|name| {
        world.place.write(&format!("{name}/go.mod"), "module app\n\ngo 1.19\n");
        let home = world.place.path(name);
        let run = world.run(name, "go").args([
            "mod",
            "download",
            "-json",
            "github.com/pkg/errors@v0.9.1",
        ]);
        run.env("GOPROXY", world.url.trim_end_matches('/'))
            .env("GOSUMDB", "off")
            .env("GOFLAGS", "-modcacherw")
            .env("GOPATH", home.join("go"))
            .env("GOCACHE", home.join("cache"))
    });
}
