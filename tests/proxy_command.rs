//! `boatyard proxy`, `boatyard config init`, and what the metrics say of the cache proxy.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use boatyard_oci::Digest;
use serde_json::Value;
use support::http::{Answer, Http};
use support::origin::{Origin, Reply};
use support::process::Ran;
use support::server::wait_for;
use support::{Place, Server};

/// Fails the test unless standard output has all of these in it.
#[track_caller]
fn prints<const N: usize>(ran: &Ran, parts: [&str; N]) {
    for part in parts {
        assert!(ran.text().contains(part), "should print {part:?}:\n{ran}");
    }
}

/// An upstream, and a server whose proxy knows it as `o`.
struct World {
    origin: Origin,
    place: Place,
    /// Stopped before another one begins on the same root.
    server: Option<Server>,
}

impl World {
    fn new() -> World {
        let mut world = World { origin: Origin::start(), place: Place::new(), server: None };
        world.start();
        world
    }

    fn start(&mut self) {
        self.server = Some(Server::configured(&self.place, &self.place.root(), &self.config()));
    }

    fn config(&self) -> String {
        let url = self.origin.url("");
        format!(
            "[proxy]\nlisten = ['127.0.0.1:0']\n[[proxy.upstream]]\nname = 'o'\nurl = '{url}'\n"
        )
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Asks the proxy for a path of the upstream.
    fn get(&self, path: &str) -> Answer {
        let mark = "the cache proxy listens on ";
        let log = self.server().log();
        let address = log.split_once(mark).unwrap().1.lines().next().unwrap().trim();
        Http::new(address).get(&format!("/o{path}"))
    }

    fn cache(&self, path: &str) -> String {
        self.get(path).header("x-cache").unwrap_or_default().to_owned()
    }

    fn proxy<const N: usize>(&self, args: [&str; N]) -> Ran {
        let config = self.place.write("proxy.toml", self.config());
        self.place.boatyard(["proxy"]).args(args).env("BOATYARD_CONFIG", config).ok()
    }

    fn tally(&self, by: &str) -> Value {
        let stats = self.proxy(["stats", "--json"]).json();
        let rows = stats["Tallies"].as_array().unwrap().iter();
        rows.filter(|row| row["By"] == by).map(Clone::clone).next().unwrap_or_default()
    }
}

#[test]
fn what_was_served_is_counted_across_restarts_and_in_the_metrics() {
    let mut world = World::new();
    prints(&world.proxy(["stats"]), ["Nothing was served yet."]);
    world.origin.put("/a", Reply::fresh("12345"));
    assert_eq!(world.cache("/a"), "MISS");
    assert_eq!(world.cache("/a"), "HIT");
    wait_for("the counts to be written", || world.tally("all")["Hits"] == 1);
    let text = world.server().http().get("/metrics").text();
    for line in [
        "boatyard_proxy_requests_total{ecosystem=\"other\",result=\"miss\"} 1",
        "boatyard_proxy_requests_total{ecosystem=\"other\",result=\"hit\"} 1",
        "boatyard_proxy_bytes_total{ecosystem=\"other\",source=\"cache\"} 5",
        "boatyard_proxy_bytes_total{ecosystem=\"other\",source=\"upstream\"} 5",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    world.server.take().unwrap().stop();
    world.start();
    assert_eq!(world.cache("/a"), "HIT");
    wait_for("the counts to go on", || world.tally("client")["Hits"] == 2);
    let upstream = world.tally("upstream");
    let of = |key: &str| upstream[key].clone();
    assert_eq!((of("Name"), of("Misses"), of("BytesSaved")), ("o".into(), 1.into(), 10.into()));
    prints(&world.proxy(["stats"]), ["upstream", "HIT RATE", "66%", "127.0.0.1"]);

    // They may be lost, and nothing else with them.
    world.server.take().unwrap().stop();
    fs_err::remove_dir_all(world.place.root().join("index")).unwrap();
    world.start();
    assert_eq!(world.cache("/a"), "HIT");
    wait_for("the counts to begin anew", || world.tally("all")["Hits"] == 1);
}

#[test]
fn what_is_kept_is_found_explained_and_given_up() {
    let world = World::new();
    world.origin.put("/files/fresh", Reply::fresh("fresh").tagged("x"));
    world.origin.put("/stale", Reply::stale("stale").with("Cache-Control: max-age=0\r\n"));
    let (fresh, stale) = (world.origin.url("/files/fresh"), world.origin.url("/stale"));
    world.get("/files/fresh");
    world.get("/stale");
    wait_for("both to be kept", || world.proxy(["search", "--json"]).text().lines().count() == 2);
    let found = world.proxy(["search", "*/files/*", "--json"]).json();
    assert_eq!(found["Url"], fresh);
    assert_eq!(found["Digest"], Digest::sha256(b"fresh").to_string());
    assert_eq!(world.proxy(["search", "nothing-like-it", "--json"]).text(), "");
    prints(&world.proxy(["search", "stale"]), ["URL", &stale, "5B"]);

    let why = |url: &str| world.proxy(["why", url, "--json"]).json();
    let explained = why("o/files/fresh");
    assert_eq!((&explained["Would"], &explained["Upstream"]), (&"serve".into(), &"o".into()));
    assert_eq!(explained["Kept"][0]["Bytes"], 5);
    prints(
        &world.proxy(["why", &fresh]),
        ["it is fresh: `Cache-Control: max-age=600`", "etag: \"x\""],
    );
    assert_eq!(why(&stale)["Would"], "revalidate");
    assert_eq!(why("o/never")["Would"], "fetch");
    let last = |url: &str| why(url)["Last"]["Outcome"].clone();
    wait_for("the decision to be written", || last(&fresh) == "MISS");
    world.origin.asked();
    world.place.boatyard(["proxy", "why", "no address"]).fails(2).says(["is no address"]);

    prints(&world.proxy(["purge", "--dry-run", "*/files/*"]), [&fresh, "Would give up 1 address"]);
    assert_eq!(world.cache("/files/fresh"), "HIT");
    prints(&world.proxy(["purge", "o/files/fresh"]), [&fresh, "Gave up 1 address"]);
    assert_eq!(world.cache("/files/fresh"), "MISS", "the server that runs notices");
    assert_eq!(world.origin.asked(), ["GET /files/fresh"], "nobody else asked");
    prints(&world.proxy(["purge", "stale"]), ["Gave up 1 address"]);
    prints(&world.proxy(["purge", "stale"]), ["Gave up 0 addresses"]);
}

#[test]
fn what_others_keep_is_taken_in() {
    let mut world = World::new();
    world.server.take().unwrap().stop();
    let (package, named) = (&b"a package"[..], &b"another one"[..]);
    let source = world.origin.url("/debian/pool/a_1%2b2.deb");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 \
         GMT\r\nX-Original-Source: {source}\r\n\r\n",
        package.len()
    );
    world.place.write("acng/debrep/pool/a_1%2b2.deb", package);
    world.place.write("acng/debrep/pool/a_1%2b2.deb.head", &head);
    world.place.write("acng/debrep/pool/cut.deb", "a pack");
    world.place.write("acng/debrep/pool/cut.deb.head", &head);
    world.place.write("acng/_import/x.deb", "nobody's");
    let place = |name: &str| world.place.path(name).to_str().unwrap().to_owned();
    let cache = place("acng");
    let incomplete = "cut.deb   left out: it is incomplete";
    prints(&world.proxy(["import", &cache]), [incomplete, "Imported 1 file, 9B; 1 file left out"]);
    prints(&world.proxy(["import", &cache]), ["1 file kept already"]);

    world.place.write("packages/b.deb", named);
    let packages = place("packages");
    prints(&world.proxy(["import", &packages]), ["Imported 1 file, 11B"]);
    prints(
        &world.proxy(["import", "--as", &world.origin.url("/mirror"), &packages]),
        ["Imported 1"],
    );
    let found = world.proxy(["search", "/mirror/", "--json"]).json();
    assert_eq!(found["Url"], world.origin.url("/mirror/b.deb"));

    // The upstream is away: what has an address is there, and what has a digest is found by it.
    world.origin.go_down();
    world.start();
    let kept = world.get("/debian/pool/a_1%2b2.deb");
    assert_eq!((kept.status, &*kept.body), (200, package));
    let hex = Digest::sha256(named).hex().to_owned();
    let found = world.get(&format!("/any/by-hash/SHA256/{hex}"));
    assert_eq!((found.header("x-cache"), &*found.body), (Some("HIT"), named));
    let url = format!("o/any/by-hash/SHA256/{hex}");
    prints(&world.proxy(["why", &url]), ["serve", "its own name"]);
}

#[test]
fn a_configuration_comes_from_what_the_clients_say() {
    let place = Place::new();
    let client = |name: &str, says: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let program = place.write(&format!("bin/{name}"), format!("#!/bin/sh\n{says}\n"));
        fs_err::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    client(
        "apt-get",
        "[ \"$1 $3\" = 'indextargets $(REPO_URI)' ] && echo http://deb.example/debian/ && \
         echo http://deb.example/debian/ && echo cdrom:[disc]/",
    );
    client(
        "pip",
        "[ $1 = config ] && exit 1; echo '-i, --index-url <url>  Base URL (default'; \
         echo '   https://pypi.example/simple). This'",
    );
    client("npm", "echo https://user:secret@npm.example/");
    client(
        "cargo",
        "PATH=/usr/bin:/bin; [ $1 = fetch ] && curl -s -x $CARGO_HTTP_PROXY \
         https://index.crates.example/; exit 0",
    );
    client("gem", "exit 3");
    let init = || {
        let run = place.boatyard(["config", "init"]).env("PATH", place.path("bin"));
        run.env_remove("CARGO_HOME").env_remove("https_proxy").env_remove("no_proxy")
    };
    let text = init().ok().text();
    let expected = [
        ("debian", "http://deb.example/debian"),
        ("pypi", "https://pypi.example"),
        ("npm", "https://npm.example"),
        ("cargo", "https://index.crates.example"),
    ];
    for (name, url) in expected {
        let table = format!("[[proxy.upstream]]\nname = \"{name}\"\nurl = \"{url}\"\n");
        assert!(text.contains(&table), "{name}: {text}");
    }
    assert_eq!(text.matches("[[proxy.upstream]]").count(), expected.len(), "{text}");
    assert!(text.ends_with("# go: not installed"), "{text}");
    assert!(text.contains("# gem: it does not say where it fetches from\n"), "{text}");
    assert!(!text.contains("secret"), "{text}");

    let file = place.path("new/boatyard.toml");
    let write = format!("--write={}", file.display());
    prints(&init().arg(&write).ok(), ["Wrote"]);
    assert_eq!(fs_err::read_to_string(&file).unwrap().trim_end(), text);
    init().arg(&write).fails(1).says(["stays as it is"]);
    place.boatyard(["config", "check", file.to_str().unwrap()]).ok();
}
