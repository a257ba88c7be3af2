//! Dockerfiles that nobody wrote are built by us and by others, and the images compared: every file
//! with type, mode, owner, content, link target and xattrs, and every field of the configuration.
//! What differs is a row of docs/differences.md, or it is a fault.
//!
//! `BOATYARD_DIFFERENTIAL` is how many are built (40), `BOATYARD_DIFFERENTIAL_SEED` with which one it
//! begins (1), and `BOATYARD_DIFFERENTIAL_PEERS` with whom it is compared: `buildah` (the default),
//! `docker` (the classic builder) and `buildkit`, separated by commas. An hour of it:
//!
//! ```text
//! BOATYARD_DIFFERENTIAL=1000 BOATYARD_DIFFERENTIAL_PEERS=buildah,docker,buildkit \
//!     cargo nextest run --profile hours --test differential --no-capture
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential {
    pub mod explain;
    pub mod generate;
    pub mod peers;
}
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use differential::explain::{self, Difference, EXPLAINED};
use differential::generate::{self, BASE, Case};
use differential::peers::{Peer, ours};
use support::Place;
use support::clients::Docker;
use support::images::{archive, busybox_tree};
use support::place::text;

#[expect(clippy::disallowed_methods, reason = "how much is asked of it is said from outside")]
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[test]
fn what_others_build_differently_is_explained() {
    let count: u64 = setting("BOATYARD_DIFFERENTIAL", "40").parse().unwrap();
    let first: u64 = setting("BOATYARD_DIFFERENTIAL_SEED", "1").parse().unwrap();
    let names = setting("BOATYARD_DIFFERENTIAL_PEERS", "buildah");
    let place = Place::new();
    let base = place.context("base", "FROM scratch\nADD base.tar /\nENV PATH=/bin\n");
    archive(&place, &busybox_tree(&place), "base/base.tar");
    place.boatyard(["build", "-q", "-t", BASE, text(&base)]).ok();
    let saved = place.path("base.tar");
    place.boatyard(["save", "-o", text(&saved), BASE]).ok();
    let docker = names.split(',').any(|name| name != "buildah").then(|| Docker::start(&place));
    let peers: Vec<Peer<'_>> = names
        .split(',')
        .map(|name| match (name, &docker) {
            ("buildah", _) => Peer::Buildah(&place),
            ("docker", Some(docker)) => Peer::Classic(docker),
            ("buildkit", Some(docker)) => Peer::Buildkit(docker),
            _ => panic!("nobody is called {name}"),
        })
        .collect();
    for peer in &peers {
        peer.load(&saved);
    }
    let context = place.path("context");
    fs_err::create_dir(&context).unwrap();
    generate::context(&place, &context);
    let mut unexplained = String::new();
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    let mut built = 0;
    for seed in first..first + count {
        let case = generate::case(seed);
        fs_err::write(context.join("Dockerfile"), &case.dockerfile).unwrap();
        let ignore = context.join(".dockerignore");
        match &case.ignore {
            Some(text) => fs_err::write(&ignore, text).unwrap(),
            None => drop(fs_err::remove_file(&ignore)),
        }
        let mine = ours(&place, &context);
        built += u32::from(mine.is_ok());
        for peer in &peers {
            let theirs = peer.build(&place, &context);
            for difference in explain::differences(&mine, &theirs) {
                let explained = EXPLAINED.iter().find(|row| {
                    row.peers.contains(&peer.name()) && (row.explains)(&difference, &case)
                });
                match explained {
                    Some(row) => *met.entry(row.name).or_default() += 1,
                    None => tell(&mut unexplained, peer.name(), &case, &difference),
                }
            }
        }
    }
    eprintln!("{built} of {count} were built; differences that are explained: {met:?}");
    assert!(u64::from(built) * 2 >= count, "most cases should be worth building");
    assert!(unexplained.is_empty(), "these are not explained:\n{unexplained}");
}

fn tell(to: &mut String, peer: &str, case: &Case, difference: &Difference) {
    if !to.contains(&format!("seed {}:", case.seed)) {
        let _ = writeln!(to, "\nseed {}:\n{}", case.seed, case.dockerfile);
        if let Some(ignore) = &case.ignore {
            let _ = writeln!(to, ".dockerignore:\n{ignore}");
        }
    }
    let _ = writeln!(to, "  {peer}: {difference:?}");
}

#[test]
fn every_explanation_is_a_row_of_the_table() {
    let page = fs_err::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md"),
    )
    .unwrap();
    let table = page.split("## What the test meets").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names: Vec<&str> = EXPLAINED.iter().map(|row| row.name).collect();
    assert_eq!(rows, names);
}
