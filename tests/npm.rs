//! npm registries through the cache proxy, as npm, yarn and pnpm meet them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::json;
use support::npm::{ABBREVIATED, Package, Project};
use support::origin::{Origin, Reply};
use support::process::Run;
use support::proxy::{curl, proxy_of};
use support::{Place, Server};

/// A registry with a package that needs another, and a proxy that has it as `npm`.
struct World {
    origin: Origin,
    server: Server,
    place: Place,
    registry: String,
}

impl World {
    fn new() -> World {
        let (place, origin) = (Place::new(), Origin::start());
        Package::new(&origin, "left").version("1.0.0", json!({}));
        Package::new(&origin, "@scope/top").version("2.0.0", json!({ "left": "^1.0.0" }));
        let config = format!(
            "[proxy]\nlisten = ['127.0.0.1:0']\n[[proxy.upstream]]\nname = 'npm'\nurl = '{}'\n\
             ecosystem = 'npm'\n",
            origin.url("")
        );
        let server = Server::configured(&place, &place.root(), &config);
        let registry = format!("http://{}/npm/", proxy_of(&server));
        World { origin, server, place, registry }
    }

    fn project(&self, name: &str) -> Project<'_> {
        Project::new(&self.place, name, &self.registry, &json!({ "@scope/top": "^2.0.0" }))
    }

    fn get(&self, path: &str, more: &[&str]) -> support::proxy::Got {
        curl(&self.place, &[], more, &format!("{}{path}", self.registry))
    }
}

/// Says whether a client is here; a line says so where it is not.
#[expect(clippy::print_stderr, reason = "who reads the tests' output sees what was not tested")]
fn has(program: &str) -> bool {
    let found = Run::new("sh").args(["-c", &format!("command -v {program}")]).run().code == Some(0);
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Installs cold, then once more in a new home while the registry is away.
fn installs(program: &str, lock: &str) {
    let world = World::new();
    world.origin.put("/-/npm/v1/security/advisories/bulk", Reply::stale("{}"));
    let install = ["install", "--ignore-scripts"];
    let cold = world.project("cold");
    cold.run(program, &install).ok();
    assert_eq!(cold.exports("@scope/top"), "@scope/top 2.0.0");
    // pnpm shows a project what it named, and nothing else.
    if program != "pnpm" {
        assert_eq!(cold.exports("left"), "left 1.0.0");
    }
    let asked = world.origin.asked();
    let tarballs: Vec<_> = asked.iter().filter(|line| line.ends_with(".tgz")).collect();
    assert_eq!(tarballs.len(), 2, "each tarball once: {asked:?}");
    let audited = asked.iter().any(|line| line.starts_with("POST /-/npm/v1/security/"));
    assert_eq!(audited, program == "npm", "npm asks for advisories: {asked:?}");
    let proxy = world.registry.trim_start_matches("http://").split('/').next().unwrap();
    assert!(!cold.read(lock).contains(proxy), "{}", cold.read(lock));

    // An update is seen at once.
    Package::new(&world.origin, "@scope/top")
        .version("2.0.0", json!({ "left": "^1.0.0" }))
        .version("2.1.0", json!({ "left": "^1.0.0" }));
    let new = world.project("new");
    new.run(program, &install).ok();
    assert_eq!(new.exports("@scope/top"), "@scope/top 2.1.0");

    // This command forgets the path of the registry, and asks at our root.
    if program == "npm" {
        new.run("npm", &["pack", "left"]).ok();
        assert!(new.has("left-1.0.0.tgz"));
    }

    // With a lock file and without one, while the registry is away.
    world.origin.go_down();
    let fresh = world.project("fresh");
    fresh.run(program, &install).ok();
    assert_eq!(fresh.exports("@scope/top"), "@scope/top 2.1.0");
    let locked = world.project("locked");
    locked.write(lock, &cold.read(lock));
    locked.run(program, &install).ok();
    assert_eq!(locked.exports("@scope/top"), "@scope/top 2.0.0");
}

#[test]
fn npm_installs_through_us() {
    if has("npm") {
        installs("npm", "package-lock.json");
    }
}

#[test]
fn yarn_installs_through_us() {
    if has("yarnpkg") {
        installs("yarnpkg", "yarn.lock");
    }
}

#[test]
fn pnpm_installs_through_us() {
    if has("pnpm") {
        installs("pnpm", "pnpm-lock.yaml");
    }
}

#[test]
fn wrong_tarballs_are_refused_whatever_vouches_for_them() {
    let world = World::new();
    let tarball = "/left/-/left-1.0.0.tgz";
    let right = world.get(&tarball[1..], &[]);
    assert_eq!((right.status, right.cache()), (200, "MISS"));
    // Nobody asks for the document, and it is asked for all the same.
    let asked = world.origin.asked();
    assert_eq!(asked, ["GET /left", &format!("GET {tarball}")]);

    let wrong = |name: &'static str, dist: serde_json::Value| {
        let document = json!({ "name": name, "versions": { "1.0.0": { "dist": dist } } });
        world.origin.put(&format!("/{name}"), Reply::fresh(document.to_string()));
        let path = format!("/{name}/-/{name}-1.0.0.tgz");
        world.origin.put(&path, Reply::stale("something else"));
        world.get(&path[1..], &[])
    };
    let url = |name: &str| world.origin.url(&format!("/{name}/-/{name}-1.0.0.tgz"));
    let strong = support::npm::integrity(b"something good");
    let strong = wrong("strong", json!({ "tarball": url("strong"), "integrity": strong }));
    assert_ne!(strong.body, b"something else");
    let weak =
        json!({ "tarball": url("weak"), "shasum": "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33" });
    assert_eq!(wrong("weak", weak).status, 502);
    // The right bytes, once they are there.
    world.origin.put("/weak/-/weak-1.0.0.tgz", Reply::stale("foo"));
    assert_eq!(world.get("weak/-/weak-1.0.0.tgz", &[]).text(), "foo");
    assert_eq!(world.get("weak/-/weak-1.0.0.tgz", &[]).cache(), "HIT");
}

#[test]
fn documents_are_two_and_tarballs_are_where_each_client_needs_them() {
    let world = World::new();
    let accept = format!("Accept: {ABBREVIATED}; q=1.0, application/json; q=0.8, */*");
    let full = world.get("left", &[]);
    let short = world.get("left", &["-H", &accept]);
    assert!(full.text().contains("readme") && full.text().contains("\"time\""));
    assert!(short.text().contains("modified") && !short.text().contains("readme"));
    assert_eq!(world.get("left", &["-H", &accept]).cache(), "REVALIDATED");
    let tarball = |agent: &str| {
        let got = world.get("left", &["-A", agent]);
        let document: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        document["versions"]["1.0.0"]["dist"]["tarball"].as_str().unwrap().to_owned()
    };
    assert_eq!(tarball("npm/11.0.0 node/v20"), world.origin.url("/left/-/left-1.0.0.tgz"));
    assert_eq!(tarball("yarn/1.22.19 npm/?"), "left/-/left-1.0.0.tgz");
    let below = format!("{}left/-/left-1.0.0.tgz", world.registry);
    assert_eq!(tarball("pnpm/9.0.0 npm/?"), below);
    assert_eq!(tarball("yarn/4.1.0 npm/?"), below);

    // One scoped name, however it is written, and an answer of our own making has its own tag.
    world.origin.asked();
    let one = world.get("@scope%2ftop", &[]);
    let two = world.get("@scope/top", &["-H", "Cache-Control: max-stale"]);
    assert_eq!((one.status, &one.body), (200, &two.body));
    let asked = world.origin.asked();
    assert!(asked.iter().all(|line| line.starts_with("GET /@scope%2Ftop")), "{asked:?}");
    let tag = one.header("etag").unwrap();
    let same = world.get("@scope%2ftop", &["-H", &format!("If-None-Match: {tag}")]);
    assert_eq!(same.status, 304);

    // Audits and searches pass, and nothing of them is kept.
    let audit = "/-/npm/v1/security/advisories/bulk";
    world.origin.put(audit, Reply::fresh("{}"));
    world.origin.asked();
    for _ in 0..2 {
        let got = world.get(&audit[1..], &["-X", "POST", "-d", "{\"left\":[\"1.0.0\"]}"]);
        assert_eq!((got.status, got.text()), (200, "{}"));
    }
    assert_eq!(world.origin.asked().len(), 2);
}

#[test]
fn files_on_other_hosts_are_fetched_where_a_document_names_them_and_nowhere_else() {
    let world = World::new();
    let files = Origin::start();
    files.put("/download/x", Reply::stale("bytes"));
    let dist = json!({
        "tarball": files.url("/download/x"), "integrity": support::npm::integrity(b"bytes"),
    });
    let document = json!({ "name": "far", "versions": { "1.0.0": { "dist": dist } } });
    world.origin.put("/far", Reply::fresh(document.to_string()));
    // A host that nobody configured may not be one of this machine.
    let got = world.get("far/-/far-1.0.0.tgz", &[]);
    assert_eq!(got.status, 403, "{}", got.text());
    assert_eq!(files.asked(), Vec::<String>::new());
}

/// A registry of private packages beside an upstream, where everybody on this machine may publish.
fn private(more: &str) -> World {
    let (place, origin) = (Place::new(), Origin::start());
    let config = format!(
        "[proxy]\nlisten = ['127.0.0.1:0']\n{more}\n[[proxy.upstream]]\nname = 'npm'\nurl = '{}'\n\
         ecosystem = 'npm'\nprivate = ['@acme/*']\n",
        origin.url("")
    );
    let server = Server::configured(&place, &place.root(), &config);
    let registry = format!("http://{}/npm/", proxy_of(&server));
    World { origin, server, place, registry }
}

#[test]
fn what_npm_publishes_is_private_and_stays() {
    if !has("npm") {
        return;
    }
    let world = private("");
    // The same name, and a higher version, upstream: nobody ever sees it.
    Package::new(&world.origin, "@acme/tool").version("9.0.0", json!({}));
    let scope = "packages/**:pull,push,delete";
    let token = world.place.boatyard(["token", "create", "ci", "--scope", scope]).ok().text();
    let host = world.registry.trim_start_matches("http:");
    let login = format!("{host}:_authToken={}\n", token.trim());
    let npm = |name: &str, version: &str, args: &[&str]| {
        let project = Project::new(&world.place, name, &world.registry, &json!({}));
        let about = json!({ "name": "@acme/tool", "version": version, "main": "index.js" });
        project.write("package.json", &about.to_string());
        project.write("index.js", &format!("module.exports = '{name} {version}'"));
        project.write(".npmrc", &login);
        project.run("npm", args).run()
    };
    let first = npm("first", "1.0.0", &["publish"]);
    assert_eq!(first.code, Some(0), "{first}");
    assert_eq!(npm("second", "1.1.0", &["publish"]).code, Some(0));
    let again = npm("again", "1.0.0", &["publish"]);
    assert_ne!(again.code, Some(0), "what is published stays: {again}");
    let foreign = world.get("left", &["-X", "PUT", "-d", "{}"]);
    assert_eq!(foreign.status, 404, "a public name is the upstream's: {}", foreign.text());
    let login = format!("Authorization: Bearer {}", token.trim());
    let change = |path: &str, how: &[&str]| {
        let got = world.get(path, &[&["-H", &login], how].concat());
        assert_eq!(got.status, 200, "{path}: {}", got.text());
    };

    let user = Project::new(&world.place, "user", &world.registry, &json!({ "@acme/tool": "*" }));
    user.run("npm", &["install"]).ok();
    assert_eq!(user.exports("@acme/tool"), "second 1.1.0");
    let asked = world.origin.asked();
    assert!(asked.iter().all(|line| !line.contains("GET /@acme")), "{asked:?}");

    let tag = "-/package/@acme%2ftool/dist-tags";
    change(&format!("{tag}/old"), &["-X", "PUT", "-d", "\"1.0.0\""]);
    assert!(world.get(tag, &[]).text().contains("\"old\":\"1.0.0\""));
    let deprecated = npm("third", "1.0.0", &["deprecate", "@acme/tool@1.0.0", "it is old"]);
    assert_eq!(deprecated.code, Some(0), "{deprecated}");
    assert!(world.get("@acme/tool/1.0.0", &[]).text().contains("\"deprecated\":\"it is old\""));
    let removed = npm("fourth", "1.0.0", &["unpublish", "--force", "@acme/tool@1.1.0"]);
    assert_eq!(removed.code, Some(0), "{removed}");
    let left: serde_json::Value =
        serde_json::from_slice(&world.get("@acme%2ftool", &[]).body).unwrap();
    assert_eq!(
        (&left["dist-tags"]["latest"], left["versions"].as_object().unwrap().len()),
        (&json!("1.0.0"), 1)
    );
    assert_eq!(world.get("@acme/other", &[]).status, 404);
}

#[test]
fn versions_too_young_or_deprecated_are_not_shown() {
    let world = private("minimum_release_age = '3d'\nwithdrawn = 'refuse'");
    let dist = |version: &str| json!({ "tarball": world.origin.url(&format!("/left/-/left-{version}.tgz")) });
    let document = json!({
        "name": "left", "dist-tags": { "latest": "3.0.0", "next": "3.0.0" },
        "versions": {
            "1.0.0": { "dist": dist("1.0.0") },
            "2.0.0": { "dist": dist("2.0.0"), "deprecated": "it is bad" },
            "3.0.0": { "dist": dist("3.0.0") },
        },
        "time": { "1.0.0": "2020-01-01T00:00:00.000Z", "2.0.0": "2020-01-02T00:00:00.000Z",
            "3.0.0": "2999-01-01T00:00:00.000Z" },
    });
    world.origin.put("/left", Reply::fresh(document.to_string()));
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        world.origin.put(&format!("/left/-/left-{version}.tgz"), Reply::fresh("bytes"));
    }
    for agent in ["npm/11.0.0", "pnpm/9.0.0 npm/?"] {
        let got = world.get("left", &["-A", agent]);
        let shown: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(shown["dist-tags"], json!({ "latest": "1.0.0" }), "{agent}");
        let versions: Vec<_> = shown["versions"].as_object().unwrap().keys().collect();
        assert_eq!(versions, ["1.0.0"], "{agent}");
    }
    let statuses = ["1.0.0", "2.0.0", "3.0.0"]
        .map(|version| world.get(&format!("left/-/left-{version}.tgz"), &[]).status);
    assert_eq!(statuses, [200, 403, 403]);

    // The documents of single versions, whatever tag leads to them.
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        let document = json!({ "version": version, "dist": dist(version) });
        world.origin.put(&format!("/left/{version}"), Reply::fresh(document.to_string()));
    }
    world.origin.put("/left/latest", Reply::fresh("{\"version\":\"3.0.0\"}"));
    let wanted = ["1.0.0", "2.0.0", "3.0.0", "latest", "next", "4.0.0"];
    let statuses = wanted.map(|version| world.get(&format!("left/{version}"), &[]).status);
    assert_eq!(statuses, [200, 403, 403, 200, 404, 404]);
    assert!(world.get("left/latest", &[]).text().contains("\"version\":\"1.0.0\""));
}

#[test]
fn what_is_deprecated_is_served_with_a_warning() {
    let world = private("withdrawn = 'warn'");
    let tarball = world.origin.url("/left/-/left-1.0.0.tgz");
    let version = json!({ "dist": { "tarball": tarball }, "deprecated": "it is bad" });
    let document = json!({ "name": "left", "versions": { "1.0.0": version } });
    world.origin.put("/left", Reply::fresh(document.to_string()));
    world.origin.put("/left/-/left-1.0.0.tgz", Reply::fresh("bytes"));
    assert!(world.get("left", &[]).text().contains("it is bad"));
    assert_eq!(world.get("left/-/left-1.0.0.tgz", &[]).text(), "bytes");
    let log = world.server.log();
    assert!(log.contains("it is deprecated, and served") && log.contains("it is bad"), "{log}");
}
