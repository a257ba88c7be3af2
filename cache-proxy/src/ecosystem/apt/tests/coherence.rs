//! No client sees a mixed set, whatever changes when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use boatyard_oci::Digest;

use super::upstream::{Step, World};

/// The first day of the archives here, in seconds since 1970.
pub const DAY: i64 = 20_000 * 86_400;

/// How an archive tells its clients what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub by_hash: bool,
    /// `Release` alone instead of `InRelease`.
    pub is_split: bool,
    /// The directory of the suite.
    pub directory: &'static str,
}

pub const PLAIN: Kind = Kind { by_hash: false, is_split: false, directory: "/debian/dists/sid/" };
pub const BY_HASH: Kind = Kind { by_hash: true, ..PLAIN };
pub const FLAT: Kind = Kind { directory: "/flat/", ..PLAIN };
pub const SPLIT: Kind = Kind { is_split: true, ..PLAIN };

pub const CHILDREN: [&str; 2] = ["main/binary-amd64/Packages", "main/source/Sources"];

impl Kind {
    pub fn root(self) -> String {
        format!("{}{}", self.directory, if self.is_split { "Release" } else { "InRelease" })
    }

    pub fn child(self, at: usize) -> String {
        format!("{}{}", self.directory, CHILDREN[at])
    }

    /// Returns where a child of a generation is to be asked for.
    pub fn asked(self, generation: usize, at: usize) -> String {
        if !self.by_hash {
            return self.child(at);
        }
        let directory = CHILDREN[at].rsplit_once('/').unwrap().0;
        let digest = Digest::sha256(&content(self, generation, at));
        format!("{}{directory}/by-hash/SHA256/{}", self.directory, digest.hex())
    }
}

/// Returns the bytes of a child; no two archives share any, for one that is in the store is not
/// fetched.
pub fn content(kind: Kind, generation: usize, child: usize) -> Vec<u8> {
    let archive = kind.directory;
    format!("Package: p{child}\nVersion: {generation}\nArchive: {archive}\n\n").into_bytes()
}

/// Returns the text of a root.
pub fn root(kind: Kind, generation: usize, valid_days: Option<i64>) -> Vec<u8> {
    let files =
        CHILDREN.iter().enumerate().map(|(at, path)| (*path, content(kind, generation, at)));
    root_of(kind, generation, valid_days, &files.collect())
}

pub fn root_of(
    kind: Kind,
    generation: usize,
    valid_days: Option<i64>,
    files: &BTreeMap<&str, Vec<u8>>,
) -> Vec<u8> {
    let day = |day: i64| {
        let time = jiff::Timestamp::from_second(DAY + day * 86_400).unwrap();
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap()
    };
    let mut text = format!("Suite: sid\nDate: {}\n", day(generation as i64));
    if let Some(days) = valid_days {
        let _ = writeln!(text, "Valid-Until: {}", day(generation as i64 + days));
    }
    if kind.by_hash {
        text.push_str("Acquire-By-Hash: yes\n");
    }
    text.push_str("SHA256:\n");
    for (path, bytes) in files {
        let _ = writeln!(text, " {} {} {path}", Digest::sha256(bytes).hex(), bytes.len());
    }
    if !kind.is_split {
        text = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}-----BEGIN PGP SIGNATURE-----\n\n\
             eA==\n-----END PGP SIGNATURE-----\n"
        );
    }
    text.into_bytes()
}

/// Returns the steps in which a generation is published: each replaces one file. Where the archive
/// has names by digest, those appear with the plain ones, and those of the one before go at the end.
pub fn steps(kind: Kind, generation: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..CHILDREN.len())
        .map(|at| {
            let bytes = content(kind, generation, at);
            let mut step = vec![(kind.child(at), Some(bytes.clone()))];
            if kind.by_hash {
                step.push((kind.asked(generation, at), Some(bytes)));
            }
            step
        })
        .collect();
    steps.push(vec![(kind.root(), Some(root(kind, generation, None)))]);
    if kind.by_hash && generation > 1 {
        let gone = (0..CHILDREN.len()).map(|at| (kind.asked(generation - 1, at), None));
        steps.push(gone.collect());
    }
    steps
}

/// Returns the generation of a root or child that a client got.
fn generation_of(kind: Kind, what: Option<usize>, body: &[u8]) -> usize {
    let is = |generation: &usize| match what {
        None => root(kind, *generation, None) == body,
        Some(at) => content(kind, *generation, at) == body,
    };
    (1..=3).find(is).expect("whole bytes of one generation")
}

/// A client that updates: its root, then all children of it.
async fn update(world: &World, kind: Kind, connection: u16) -> Result<usize, String> {
    let answer = world.get(connection, &kind.root()).await;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let generation = generation_of(kind, None, &answer.body);
    for at in 0..CHILDREN.len() {
        let answer = world.get(connection, &kind.asked(generation, at)).await;
        if answer.status != 200 {
            return Err(answer.text());
        }
        assert_eq!(generation_of(kind, Some(at), &answer.body), generation, "a mixed set");
    }
    Ok(generation)
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        all.extend(permutations(&rest).into_iter().map(|tail| [vec![first], tail].concat()));
    }
    all
}

/// Returns all ascending choices of `count` numbers below `below`.
fn ascending(count: usize, below: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for tail in ascending(count - 1, below) {
        let from = tail.last().copied().unwrap_or(0);
        all.extend((from..below).map(|next| [tail.clone(), vec![next]].concat()));
    }
    all
}

/// Every order of publishing, at every moment between two of the first requests of the upstream,
/// during three updates of one client after another.
async fn every_interleaving(kind: Kind, requests: usize) {
    let world = World::new();
    let places: Vec<usize> = (0..steps(kind, 2).len()).collect();
    let mut next = 1;
    for order in permutations(&places) {
        for moments in ascending(order.len(), requests) {
            let kind = Kind { directory: leak(kind.directory, next), ..kind };
            next += 1;
            let steps_of_two = steps(kind, 2);
            let order: Vec<Step> = order.iter().map(|at| steps_of_two[*at].clone()).collect();
            steps(kind, 1).iter().for_each(|step| world.make(step));
            assert_eq!(update(&world, kind, 1).await, Ok(1));
            world.script(moments.iter().copied().zip(order.iter().cloned()));
            let mut last = 1;
            for connection in 2..=4 {
                let seen = update(&world, kind, connection).await;
                let seen = seen.unwrap_or_else(|why| panic!("{moments:?} {order:?}: {why}"));
                assert!(seen >= last, "it went back");
                last = seen;
            }
            world.finish();
            assert_eq!(update(&world, kind, 5).await, Ok(2), "{moments:?}");
        }
    }
}

/// Each case has an archive of its own, in one store.
fn leak(directory: &str, number: usize) -> &'static str {
    Box::leak(format!("/{number}{directory}").into_boxed_str())
}

#[tokio::test]
async fn no_mixture_by_plain_names() {
    every_interleaving(PLAIN, 5).await;
}

#[tokio::test]
async fn no_mixture_of_a_flat_repository() {
    every_interleaving(FLAT, 3).await;
}

#[tokio::test]
async fn no_mixture_by_hash() {
    every_interleaving(BY_HASH, 3).await;
}

#[tokio::test]
async fn no_mixture_of_a_root_without_a_frame() {
    every_interleaving(SPLIT, 4).await;
}

/// Two clients at once: every merge of the steps of both and of the archive.
#[tokio::test]
async fn clients_that_overlap_keep_their_own_sets() {
    for (kind, publishing) in [(PLAIN, 2), (BY_HASH, 1)] {
        let world = World::new();
        // 0 and 1 are the next steps of the clients, 2 the next of the archive: first its root.
        for (number, merge) in merges([3, 3, publishing]).into_iter().enumerate() {
            let kind = Kind { directory: leak(kind.directory, number + 1), ..kind };
            steps(kind, 1).iter().for_each(|step| world.make(step));
            update(&world, kind, 9).await.unwrap();
            let mut publish = steps(kind, 2);
            publish.swap(0, CHILDREN.len());
            let mut publish = vec![publish.remove(0), publish.concat()].into_iter();
            let mut clients = [(0, 0), (0, 0)];
            for turn in merge {
                if turn == 2 {
                    publish.next().iter().for_each(|step| world.make(step));
                    continue;
                }
                let (done, generation) = &mut clients[turn];
                let connection = 1 + turn as u16;
                let (path, what) = match *done {
                    0 => (kind.root(), None),
                    child => (kind.asked(*generation, child - 1), Some(child - 1)),
                };
                let answer = world.get(connection, &path).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                let seen = generation_of(kind, what, &answer.body);
                assert!(*done == 0 || seen == *generation, "a mixed set");
                (*done, *generation) = (*done + 1, seen);
            }
        }
    }
}

/// Returns all orders in which so many steps of three parties can be made.
fn merges(left: [usize; 3]) -> Vec<Vec<usize>> {
    if left == [0; 3] {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for party in (0..3).filter(|party| left[*party] > 0) {
        let mut rest = left;
        rest[party] -= 1;
        all.extend(merges(rest).into_iter().map(|tail| [vec![party], tail].concat()));
    }
    all
}

/// Clients that open a connection for each file, and look alike.
#[tokio::test]
async fn clients_without_a_lasting_connection() {
    let world = World::new();
    let kind = PLAIN;
    steps(kind, 1).iter().for_each(|step| world.make(step));
    update(&world, kind, 1).await.unwrap();
    let get = |connection, path: String| {
        let world = &world;
        async move { world.get_as("Wget/1.21", connection, &path).await }
    };
    let first = get(10, kind.root()).await;
    assert_eq!(generation_of(kind, None, &first.body), 1);
    steps(kind, 2).iter().for_each(|step| world.make(step));
    // apt, in between, gets the new one; another wget shares what the first one has begun.
    assert_eq!(update(&world, kind, 11).await, Ok(2));
    let second = get(12, kind.root()).await;
    assert_eq!(generation_of(kind, None, &second.body), 1);
    for connection in 13..17 {
        let at = usize::from(connection % 2);
        let child = get(connection, kind.child(at)).await;
        assert_eq!(generation_of(kind, Some(at), &child.body), 1);
    }
    world.pass(120);
    let third = get(20, kind.root()).await;
    assert_eq!(generation_of(kind, None, &third.body), 2);
    for connection in 21..23 {
        let at = usize::from(connection % 2);
        let child = get(connection, kind.child(at)).await;
        assert_eq!(generation_of(kind, Some(at), &child.body), 2);
    }
}
