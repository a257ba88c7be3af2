//! apt itself through the cache proxy, against archives that change while it reads.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod support;

use support::archive::{Apt, Edition, Fault, Key, Layout, Origin, Step};
use support::{Place, Server};

/// An archive, a proxy, and clients of both.
struct Lab {
    key: Key,
    origin: Origin,
    place: Place,
    /// Stopped before another one begins on the same root.
    server: Option<Server>,
    layout: Layout,
}

impl Lab {
    fn new(layout: Layout) -> Lab {
        let (key, origin, place) = (Key::new(), Origin::start(), Place::new());
        let mut lab = Lab { key, origin, place, server: None, layout };
        lab.start();
        lab
    }

    fn start(&mut self) {
        let config = format!(
            "[proxy]\nlisten = [\"127.0.0.1:0\"]\nallow_private = true\nallow_ports = [{}]\n\
             [[proxy.upstream]]\nname = \"deb\"\nurl = \"{}\"\n",
            self.origin.port(),
            self.origin.url()
        );
        self.server = Some(Server::configured(&self.place, &self.place.root(), &config));
    }

    /// Ends the server as a power cut would, and starts another one on its root.
    fn restart(&mut self) {
        self.server.take().unwrap().kill();
        self.start();
    }

    /// Returns the URL of the proxy.
    fn proxy(&self) -> String {
        let log = self.server.as_ref().unwrap().log();
        let said = log.lines().find_map(|line| line.split_once("the cache proxy listens on "));
        format!("http://{}", said.unwrap().1.trim())
    }

    fn edition(&self, number: i64) -> Edition {
        Edition::new(self.layout, &self.key, number, &["hello", "world"])
    }

    /// A machine that has never seen the archive.
    fn client(&self) -> Apt {
        Apt::new(&self.layout.source(&self.origin.url(), &self.key), &self.proxy())
    }

    /// A machine whose sources name the proxy.
    fn client_of_path(&self) -> Apt {
        let url = format!("{}/deb", self.proxy());
        Apt::new(&self.layout.source(&url, &self.key), "")
    }
}

/// Updates and downloads, and checks that all is of one edition.
#[track_caller]
fn use_archive(client: &Apt) -> String {
    let version = update(client);
    client.download(&["hello", "world"]).ok();
    version
}

/// Updates, and checks that all is of one edition.
#[track_caller]
fn update(client: &Apt) -> String {
    client.update().ok();
    let version = client.version("hello");
    assert_eq!(client.version("world"), version);
    version
}

#[test]
fn a_fresh_client_needs_no_upstream() {
    let layouts = [Layout::PLAIN, Layout::BY_HASH, Layout::FLAT, Layout::SPLIT];
    for layout in layouts {
        let mut lab = Lab::new(layout);
        lab.origin.make(&lab.edition(1).whole());
        assert_eq!(use_archive(&lab.client()), "1.0", "{layout:?}");
        lab.origin.set_stopped(true);
        lab.restart();
        lab.origin.asked();
        // What was fetched before is there, under both of its addresses.
        assert_eq!(use_archive(&lab.client()), "1.0", "{layout:?}");
        assert_eq!(use_archive(&lab.client_of_path()), "1.0", "{layout:?}");
        assert_eq!(lab.origin.asked(), [""; 0], "{layout:?}");
    }
}

/// Returns all orders of some parts.
fn orders(parts: &[Step]) -> Vec<Vec<Step>> {
    if parts.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..parts.len() {
        let mut rest = parts.to_vec();
        let first = rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|tail| [vec![first.clone()], tail].concat()));
    }
    all
}

/// Each order of publishing, all at once or spread over the requests that an update causes.
fn while_it_is_published(layout: Layout) {
    let lab = Lab::new(layout);
    lab.origin.make(&lab.edition(1).whole());
    let old = lab.client();
    assert_eq!(use_archive(&old), "1.0");
    let mut number = 1;
    for order in orders(&lab.edition(1).parts()) {
        for spread in [0, 1] {
            number += 1;
            let next = lab.edition(number);
            // The same order, of the next edition's parts.
            let places: Vec<usize> = order
                .iter()
                .map(|part| {
                    lab.edition(1).parts().iter().position(|other| keys(other) == keys(part))
                })
                .map(Option::unwrap)
                .collect();
            let steps = places.iter().map(|at| next.parts()[*at].clone()).collect::<Vec<_>>();
            let last = format!("{}.0", number - 1);
            for (done, step) in steps.iter().enumerate() {
                // It arrives while the first client updates; the second one is fresh.
                lab.origin.script([(spread, step.clone())]);
                for client in [&old, &lab.client()] {
                    let seen = update(client);
                    let whole = format!("{number}.0");
                    assert!(seen == last || seen == whole, "{seen} after {done} of {places:?}");
                    // An archive that lists packages before it has them gives nobody any.
                    if seen == last || places[..=done].contains(&0) {
                        client.download(&["hello", "world"]).ok();
                    }
                }
                lab.origin.finish();
            }
            assert_eq!(use_archive(&lab.client()), format!("{number}.0"), "{places:?}");
            // What was is gone, as in an archive that keeps one version.
            let gone = lab.edition(number - 1).packages.into_keys().map(|path| (path, None));
            lab.origin.make(&gone.collect());
        }
    }
}

fn keys(step: &Step) -> Vec<String> {
    // File names of packages have versions; those of indexes by digest have digests.
    let plain = step.keys().filter(|path| !path.contains("by-hash") && !path.ends_with(".deb"));
    plain.cloned().collect()
}

#[test]
fn no_mixture_while_it_is_published() {
    while_it_is_published(Layout::PLAIN);
}

#[test]
fn no_mixture_by_hash_while_it_is_published() {
    while_it_is_published(Layout::BY_HASH);
}

#[test]
fn no_mixture_of_a_flat_repository_while_it_is_published() {
    while_it_is_published(Layout::FLAT);
}

#[test]
fn a_package_that_is_replaced_is_fetched_anew() {
    let lab = Lab::new(Layout::PLAIN);
    let client = lab.client();
    for number in 1..=3 {
        lab.origin.make(&Edition::replacing(lab.layout, &lab.key, number, "hello").whole());
        client.update().ok();
        assert_eq!(client.version("hello"), format!("{number}.0"));
        client.download(&["hello"]).ok();
        lab.origin.asked();
        lab.client().update().ok();
        client.download(&["hello"]).ok();
        let asked = lab.origin.asked();
        assert!(!asked.iter().any(|path| path.ends_with(".deb")), "{asked:?}");
    }
}

#[test]
fn wrong_and_short_bytes_are_refused() {
    let lab = Lab::new(Layout::PLAIN);
    lab.origin.make(&lab.edition(1).whole());
    let client = lab.client();
    assert_eq!(use_archive(&client), "1.0");
    let next = lab.edition(2);
    lab.origin.make(&next.whole());
    let index = "dists/sid/main/binary-amd64/Packages.xz";
    for path in ["dists/sid/InRelease", index] {
        for fault in [Fault::Corrupt, Fault::Truncate(20)] {
            lab.origin.harm(path, fault.clone());
            assert_eq!(use_archive(&client), "1.0", "{path}: {fault:?}");
            assert_eq!(use_archive(&lab.client()), "1.0", "{path}: {fault:?}");
            lab.origin.heal();
        }
    }
    client.update().ok();
    assert_eq!(client.version("hello"), "2.0");
    let deb = "pool/main/hello_2.0_all.deb";
    for fault in [Fault::Corrupt, Fault::Truncate(20)] {
        lab.origin.harm(deb, fault);
        assert!(!client.download(&["hello"]).is_ok);
        lab.origin.heal();
    }
    client.download(&["hello"]).ok();
}

#[test]
fn an_index_that_is_no_longer_valid_is_refused_with_the_reason() {
    // Editions are dated some hours ago; this one was valid for an hour.
    let layout = Layout { valid_for: Some(3600), ..Layout::PLAIN };
    let lab = Lab::new(layout);
    lab.origin.make(&lab.edition(1).whole());
    // The upstream has nothing newer: the client decides.
    lab.client().update().fails_with("Release file for");
    lab.origin.set_stopped(true);
    let refused = lab.client().update().fails_with("503");
    assert!(!refused.text.contains("Hash Sum mismatch"), "{}", refused.text);
}

/// What the tests here would see without a proxy: they can fail.
#[test]
fn without_the_proxy_there_is_a_mixture() {
    let (key, origin, layout) = (Key::new(), Origin::start(), Layout::PLAIN);
    let edition = |number| Edition::new(layout, &key, number, &["hello"]);
    origin.make(&edition(1).whole());
    let client = || Apt::new(&layout.source(&origin.url(), &key), "");
    client().update().ok();
    origin.make(&edition(2).root);
    let failed = client().update();
    let says = ["Hash Sum mismatch", "unexpected size"].map(|text| failed.text.contains(text));
    assert!(!failed.is_ok && says.contains(&true), "{}", failed.text);
}

/// The upstream's root goes first, and the rest never comes: clients of the old set have all of it,
/// and new machines too.
#[test]
fn half_a_set_is_shown_to_nobody() {
    for layout in [Layout::PLAIN, Layout::BY_HASH, Layout::SPLIT] {
        let lab = Lab::new(layout);
        lab.origin.make(&lab.edition(1).whole());
        assert_eq!(use_archive(&lab.client()), "1.0", "{layout:?}");
        let mut next = lab.edition(2);
        lab.origin.make(&next.root);
        // The names by digest of the old set are gone already.
        lab.origin.make(&lab.edition(1).by_hash.into_keys().map(|path| (path, None)).collect());
        lab.origin.asked();
        for _ in 0..3 {
            assert_eq!(use_archive(&lab.client()), "1.0", "{layout:?}");
        }
        let asked = lab.origin.asked();
        // The root, its signature, and what is missing, in two places at most, also where it was
        // tried again meanwhile: no loop.
        assert!(asked.len() <= 10 * 6, "{asked:?}");
        next.root.clear();
        lab.origin.make(&next.whole());
        assert_eq!(use_archive(&lab.client()), "2.0", "{layout:?}");
    }
}
