//! apt on other roads through the cache proxy: to archives by HTTPS, with half a file in its hands,
//! with many requests at once, to several mirrors, and what we say of all that.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use support::archive::{Apt, Edition, Key, Layout, Origin};
use support::proxy::{proxy_of, trusting};
use support::secure::Secure;
use support::server::wait_for;
use support::{Place, Server};

/// An archive, and a proxy that may fetch from it.
struct World {
    key: Key,
    origin: Origin,
    place: Place,
    server: Server,
}

impl World {
    /// Starts both; `also` are further servers of the archive.
    fn new(also: &[&Origin]) -> World {
        let (key, origin, place) = (Key::new(), Origin::start(), Place::new());
        let also: Vec<_> = also.iter().map(|origin| format!("'{}'", origin.url())).collect();
        let config = format!(
            "[[proxy.upstream]]\nname = 'deb'\nurl = '{}'\nalso = [{}]\n",
            origin.url(),
            also.join(", ")
        );
        let server = trusting(&place, None, &config);
        World { key, origin, place, server }
    }

    fn edition(&self, number: i64, packages: &[&str]) -> Edition {
        Edition::new(Layout::PLAIN, &self.key, number, packages)
    }

    fn client(&self) -> Apt {
        let source = Layout::PLAIN.source(&self.origin.url(), &self.key);
        Apt::new(&source, &format!("http://{}", proxy_of(&self.server)))
    }

    /// Returns what is said of a path of the archive.
    fn why(&self, path: &str) -> String {
        let url = format!("{}/{path}", self.origin.url());
        self.place.boatyard_at(&self.place.root(), ["proxy", "why", &url]).ok().text()
    }
}

#[test]
fn archives_by_https_are_kept() {
    let (key, place) = (Key::new(), Place::new());
    let edition = Edition::new(Layout::BY_HASH, &key, 1, &["hello", "world"]).whole();
    let files: BTreeMap<String, Vec<u8>> = edition
        .into_iter()
        .filter_map(|(path, bytes)| Some((format!("/debian/{path}"), bytes?)))
        .collect();
    let upstream = Secure::start(&place, move |path| files.get(path).cloned());
    let (address, port) = (upstream.address, upstream.address.port());
    let config = format!("allow_private = true\nallow_ports = [{port}]\n");
    let server = trusting(&place, Some(&upstream.authority), &config);
    let proxy = format!("http://{}", proxy_of(&server));
    let fresh = || {
        let url = format!("http://HTTPS///{address}/debian");
        Apt::new(&Layout::BY_HASH.source(&url, &key), &proxy)
    };
    let client = fresh();
    client.update().ok();
    client.download(&["hello", "world"]).ok();
    assert!(upstream.asked().iter().any(|line| line.ends_with("/pool/main/hello_1.0_all.deb")));
    let other = fresh();
    other.update().ok();
    other.download(&["hello", "world"]).ok();
    let asked = upstream.asked();
    assert!(asked.iter().all(|line| line.ends_with("Release")), "{asked:?}");
}

#[test]
fn half_a_file_is_completed() {
    let world = World::new(&[]);
    let edition = world.edition(1, &["hello"]);
    world.origin.make(&edition.whole());
    let client = world.client();
    client.update().ok();
    client.download(&["hello"]).ok();
    let deb = edition.packages["pool/main/hello_1.0_all.deb"].clone().unwrap();
    let url = format!("{}/pool/main/hello_1.0_all.deb", world.origin.url());
    let got = support::proxy::curl(
        &world.place,
        &["-x", &format!("http://{}", proxy_of(&world.server))],
        &[],
        &url,
    );
    let modified = got.header("last-modified").unwrap();
    let modified = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(modified).unwrap();
    world.origin.asked();
    for (bytes, shift, status) in
        [(&deb[..deb.len() / 2], 0, " 206 "), (b"other bytes", 9, " 200 ")]
    {
        let client = world.client();
        client.update().ok();
        let partial = client.path("archives/partial/hello_1.0_all.deb");
        let file = fs_err::File::create(&partial).unwrap();
        std::io::Write::write_all(&mut &file, bytes).unwrap();
        let second = u64::try_from(modified.as_second() - shift).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        let before = world.server.log().len();
        client.download(&["hello"]).ok();
        let line = format!("hello_1.0_all.deb\"{status}");
        wait_for("the answer to be logged", || world.server.log()[before..].contains(&line));
    }
    let asked = world.origin.asked();
    assert!(!asked.iter().any(|path| path.ends_with(".deb")), "{asked:?}");
}

#[test]
fn what_apt_asks_for_at_once_is_fetched_at_once() {
    const COUNT: usize = 6;
    let more: Vec<String> = (0..2 * COUNT).map(|at| format!("b{at}-more")).collect();
    // apt asks for one alone, to see whom it talks to.
    let names: Vec<&str> = ["a-first"].into_iter().chain(more.iter().map(String::as_str)).collect();
    let world = World::new(&[]);
    world.origin.make(&world.edition(1, &names).whole());
    let client = world.client();
    client.update().ok();
    // Nobody gets any before so many are asked for.
    world.origin.gather("-more_1.0_all.deb", COUNT);
    let depth = "Acquire::http::Pipeline-Depth=10";
    let args = ["install", "--download-only", "--yes", "-o", depth];
    client.run("apt-get", &[&args[..], &names].concat()).ok();
    assert!(world.origin.has_gathered());
    let asked = world.origin.asked();
    let debs = asked.iter().filter(|path| path.ends_with(".deb")).count();
    assert_eq!(debs, names.len(), "{asked:?}");
}

#[test]
fn we_say_why_apt_gets_what_it_gets() {
    let world = World::new(&[]);
    world.origin.make(&world.edition(1, &["hello"]).whole());
    let (root, deb) = ("dists/sid/InRelease", "pool/main/hello_1.0_all.deb");
    let before = world.why(root);
    assert!(before.contains("apt") && !before.contains("generation 1"), "{before}");
    let client = world.client();
    client.update().ok();
    let known = world.why(deb);
    assert!(known.contains("fetch: nothing is kept; ") && known.contains("dists/sid/"), "{known}");
    client.download(&["hello"]).ok();
    wait_for("it to be kept", || world.why(deb).contains("would       serve: "));
    let root_known = world.why(root);
    assert!(root_known.contains("generation 1 of "), "{root_known}");
    assert!(root_known.contains("its ecosystem answers for it"), "{root_known}");
    let asked = world.origin.asked().len();
    world.why(deb);
    assert_eq!((asked > 0, world.origin.asked().len()), (true, 0), "nobody is asked for that");
}

#[test]
fn what_is_listed_and_not_there_yet_is_had_from_another_or_said() {
    let mirror = Origin::start();
    let world = World::new(&[&mirror]);
    let mut edition = world.edition(1, &["hello"]);
    let packages = std::mem::take(&mut edition.packages);
    world.origin.make(&edition.whole());
    let client = world.client();
    client.update().ok();
    world.origin.asked();
    let refused = client.download(&["hello"]).fails_with("404");
    assert!(refused.text.contains("Listed but not at the upstream"), "{}", refused.text);
    let deb = ["pool/main/hello_1.0_all.deb"];
    assert_eq!(
        (world.origin.asked(), mirror.asked()),
        (deb.map(String::from).into(), deb.map(String::from).into())
    );
    let log = world.server.log();
    assert!(log.contains("all 2 servers of the upstream answer 404"), "{log}");
    // It is not remembered: the next one gets it from whoever has it.
    mirror.make(&packages);
    client.download(&["hello"]).ok();
}

#[test]
fn half_a_set_is_completed_though_nobody_asks() {
    let world = World::new(&[]);
    world.origin.make(&world.edition(1, &["hello"]).whole());
    world.client().update().ok();
    let mut next = world.edition(2, &["hello"]);
    world.origin.make(&next.root);
    let client = world.client();
    client.update().ok();
    assert_eq!(client.version("hello"), "1.0");
    next.root.clear();
    world.origin.make(&next.whole());
    world.origin.asked();
    wait_for("the rest to be fetched", || {
        world.why("dists/sid/InRelease").contains("generation 2 of ")
    });
    world.origin.set_stopped(true);
    let client = world.client();
    client.update().ok();
    assert_eq!(client.version("hello"), "2.0");
}
