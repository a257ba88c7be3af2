//! Ruby's gems, Rust's crates and Go's modules through the cache proxy, with the clients that people
//! use. Each has a home of its own, and nothing but addresses of this machine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "ecosystems/cargo.rs"]
mod cargo;
#[path = "ecosystems/checksums.rs"]
mod checksums;
#[path = "ecosystems/gem.rs"]
mod gem;
#[path = "ecosystems/go.rs"]
mod go;
mod support;

use support::origin::Origin;
use support::proxy::{Got, World, curl, proxy_of};
use support::{Place, Server};

/// Starts a proxy with an upstream for each origin, called `one`, `two`, of an ecosystem.
fn world(ecosystem: &str, second: Option<&Origin>) -> World {
    hosting(ecosystem, "", second)
}

/// Starts one whose first upstream has more settings.
fn hosting(ecosystem: &str, more: &str, second: Option<&Origin>) -> World {
    let (place, origin) = (Place::new(), Origin::start());
    let upstream = |name: &str, origin: &Origin| {
        let url = origin.url("");
        format!("[[proxy.upstream]]\nname = '{name}'\nurl = '{url}'\necosystem = '{ecosystem}'\n")
    };
    let two = second.map(|second| upstream("two", second)).unwrap_or_default();
    let one = upstream("one", &origin);
    let config = format!("[proxy]\nlisten = ['127.0.0.1:0']\n{one}{more}\n{two}");
    let server = Server::configured(&place, &place.root(), &config);
    let proxy = proxy_of(&server);
    World { origin, server, proxy, place }
}

/// Returns a token that publishes.
fn token(place: &Place) -> String {
    let scope = "packages/**:pull,push,delete";
    place.boatyard(["token", "create", "ci", "--scope", scope]).ok().text()
}

/// Asks for a path below the first upstream.
fn get(world: &World, path: &str, more: &[&str]) -> Got {
    curl(&world.place, &[], more, &format!("http://{}/one{path}", world.proxy))
}

/// Returns what an origin was asked since the last time, in order of the alphabet, without headers.
fn asked(origin: &Origin) -> Vec<String> {
    let mut asked: Vec<String> = origin.asked().iter().map(|line| plain(line)).collect();
    asked.sort();
    asked
}

fn plain(line: &str) -> String {
    line.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
