//! What upstreams do wrong, and what there is without them.

use std::collections::BTreeMap;

use boatyard_oci::Digest;

use super::coherence::{
    BY_HASH, CHILDREN, FLAT, Kind, PLAIN, SPLIT, content, root, root_of, steps,
};
use super::upstream::{Step, World};
use crate::generation::Options;

fn make(world: &World, kind: Kind, generation: usize) {
    steps(kind, generation).iter().for_each(|step| world.make(step));
}

async fn update(world: &World, kind: Kind, generation: usize, connection: u16) {
    for path in [kind.root(), kind.asked(generation, 0), kind.asked(generation, 1)] {
        let answer = world.get(connection, &path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_fresh_client_is_served_without_the_upstream() {
    for kind in [PLAIN, BY_HASH, FLAT, SPLIT] {
        let world = World::new();
        make(&world, kind, 1);
        update(&world, kind, 1, 1).await;
        world.set_down(true);
        world.restart();
        world.asked();
        for path in [kind.root(), kind.asked(1, 0), kind.asked(1, 1), kind.child(0)] {
            let answer = world.get(2, &path).await;
            assert_eq!(answer.status, 200, "{kind:?} {path}: {}", answer.text());
        }
        assert!(world.get(2, &kind.root()).await.is_stale);
        assert_eq!(world.asked(), [""; 0]);
    }
}

#[tokio::test]
async fn a_generation_without_a_child_that_is_wanted_is_not_shown() {
    let world = World::new();
    make(&world, PLAIN, 1);
    update(&world, PLAIN, 1, 1).await;
    make(&world, PLAIN, 2);
    world.make(&vec![(PLAIN.child(1), None)]);
    assert_eq!(world.get(2, &PLAIN.root()).await.body, root(PLAIN, 1, None));
    let why = world.explain(&PLAIN.child(0)).await;
    assert!(why.contains("main/source/Sources: http://deb.example"), "{why}");
    // Each request asks once for what is missing, and for nothing that is there already.
    world.asked();
    world.get(3, &PLAIN.root()).await;
    assert_eq!(world.asked(), [PLAIN.root(), PLAIN.child(1)]);
    // Bytes of the right length that are wrong are not it either.
    let mut wrong = content(PLAIN, 2, 1);
    wrong[0] ^= 1;
    world.make(&vec![(PLAIN.child(1), Some(wrong))]);
    assert_eq!(world.get(4, &PLAIN.root()).await.body, root(PLAIN, 1, None));
    world.make(&vec![(PLAIN.child(1), Some(content(PLAIN, 2, 1)[..5].to_vec()))]);
    assert_eq!(world.get(5, &PLAIN.root()).await.body, root(PLAIN, 1, None));
    world.make(&vec![(PLAIN.child(1), Some(content(PLAIN, 2, 1)))]);
    update(&world, PLAIN, 2, 6).await;
    assert_eq!(world.get(6, &PLAIN.child(1)).await.body, content(PLAIN, 2, 1));
}

#[tokio::test]
async fn what_stays_broken_is_shown_in_the_end() {
    let world = World::new();
    make(&world, PLAIN, 1);
    update(&world, PLAIN, 1, 1).await;
    make(&world, PLAIN, 2);
    world.make(&vec![(PLAIN.child(1), None)]);
    assert_eq!(world.get(2, &PLAIN.root()).await.body, root(PLAIN, 1, None));
    world.pass(4 * 86_400);
    assert_eq!(world.get(3, &PLAIN.root()).await.body, root(PLAIN, 2, None));
    assert_eq!(world.get(3, &PLAIN.child(0)).await.body, content(PLAIN, 2, 0));
    let answer = world.get(3, &PLAIN.child(1)).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test]
async fn what_nobody_asks_for_any_more_holds_nothing_back() {
    let world = World::new();
    make(&world, PLAIN, 1);
    update(&world, PLAIN, 1, 1).await;
    world.pass(15 * 86_400);
    world.get(2, &PLAIN.root()).await;
    world.get(2, &PLAIN.child(0)).await;
    make(&world, PLAIN, 2);
    world.make(&vec![(PLAIN.child(1), None)]);
    assert_eq!(world.get(3, &PLAIN.root()).await.body, root(PLAIN, 2, None));
}

#[tokio::test]
async fn a_set_never_goes_back() {
    for kind in [PLAIN, BY_HASH, SPLIT] {
        let world = World::new();
        make(&world, kind, 2);
        update(&world, kind, 2, 1).await;
        make(&world, kind, 1);
        assert_eq!(world.get(2, &kind.root()).await.body, root(kind, 2, None));
        assert_eq!(world.get(2, &kind.asked(2, 0)).await.body, content(kind, 2, 0));
        world.restart();
        let answer = world.get(3, &kind.root()).await;
        assert_eq!((answer.body, answer.is_stale), (root(kind, 2, None), true));
        assert!(world.explain(&kind.child(0)).await.contains("older"));
    }
}

#[tokio::test]
async fn an_index_that_is_no_longer_valid_is_an_error_that_says_why() {
    let valid = |generation| vec![(PLAIN.root(), Some(root(PLAIN, generation, Some(7))))];
    let world = World::new();
    make(&world, PLAIN, 1);
    world.make(&valid(1));
    update(&world, PLAIN, 1, 1).await;
    world.set_down(true);
    world.pass(5 * 86_400);
    assert_eq!(world.get(2, &PLAIN.root()).await.status, 200);
    world.pass(5 * 86_400);
    let answer = world.get(3, &PLAIN.root()).await;
    assert_eq!(answer.status, 503);
    let text = answer.text();
    assert!(
        text.contains("was valid until 2024-10-12") && text.contains("cannot be asked"),
        "{text}"
    );
    // The upstream is there again, half-published.
    world.set_down(false);
    world.make(&valid(2));
    let text = world.get(4, &PLAIN.root()).await.text();
    assert!(text.contains("valid until") && text.contains("main/"), "{text}");
    // It has nothing newer itself: whether that will do, the client says.
    world.make(&valid(1));
    assert_eq!(world.get(5, &PLAIN.root()).await.body, root(PLAIN, 1, Some(7)));
}

#[tokio::test]
async fn what_is_no_root_changes_nothing() {
    let portal = b"<html>Please log in</html>".to_vec();
    for kind in [PLAIN, SPLIT] {
        let world = World::new();
        world.make(&vec![(kind.root(), Some(portal.clone()))]);
        let answer = world.get(1, &kind.root()).await;
        assert!(answer.status == 502 || kind.is_split, "{}", answer.text());
        make(&world, kind, 1);
        update(&world, kind, 1, 2).await;
        let whole = root(kind, 2, None);
        for wrong in [portal.clone(), whole[..whole.len() - 30].to_vec(), Vec::new()] {
            world.make(&vec![(kind.root(), Some(wrong))]);
            let body = world.get(3, &kind.root()).await.body;
            if !kind.is_split {
                assert_eq!(body, root(kind, 1, None));
            }
        }
        world.make(&vec![(kind.root(), None)]);
        assert_eq!(world.get(4, &kind.root()).await.body, root(kind, 1, None));
        update(&world, kind, 1, 5).await;
    }
}

#[tokio::test]
async fn an_archive_that_is_absent_is_absent() {
    let world = World::new();
    for path in [PLAIN.root(), SPLIT.root(), PLAIN.child(0), "/debian/pool/a.deb".to_owned()] {
        assert_eq!(world.get(1, &path).await.status, 404, "{path}");
    }
    world.set_down(true);
    assert_eq!(world.get(1, &PLAIN.root()).await.status, 502);
}

/// `InRelease` and `Release` of one suite are one set.
#[tokio::test]
async fn both_forms_of_a_root_agree() {
    let world = World::new();
    make(&world, PLAIN, 1);
    make(&world, SPLIT, 1);
    // They list the same: the text is the same too.
    update(&world, PLAIN, 1, 1).await;
    assert_eq!(world.get(2, &SPLIT.root()).await.body, root(SPLIT, 1, None));
    world.make(&vec![(SPLIT.root(), Some(root(SPLIT, 2, None)))]);
    // The engine kept the old one, which belongs to the set.
    assert_eq!(world.get(2, &SPLIT.root()).await.body, root(SPLIT, 1, None));
    world.restart();
    let answer = world.get(2, &SPLIT.root()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    // The one that is signed in place goes, the other stays as it was: nothing has changed.
    make(&world, SPLIT, 1);
    world.make(&vec![(PLAIN.root(), None)]);
    assert_eq!(world.get(3, &PLAIN.root()).await.body, root(PLAIN, 1, None));
}

fn packages(version: &str, deb: &[u8]) -> Vec<u8> {
    format!(
        "Package: a\nVersion: {version}\nFilename: pool/a_1%3a2.deb\nSize: {}\nSHA256: {}\n\n",
        deb.len(),
        Digest::sha256(deb).hex()
    )
    .into_bytes()
}

fn with_deb(generation: usize, deb: &[u8]) -> Step {
    let index = packages(&generation.to_string(), deb);
    let files = BTreeMap::from([(CHILDREN[0], index.clone())]);
    vec![
        (PLAIN.root(), Some(root_of(PLAIN, generation, None, &files))),
        (PLAIN.child(0), Some(index)),
        ("/debian/pool/a_1%253a2.deb".to_owned(), Some(deb.to_vec())),
    ]
}

#[tokio::test]
async fn packages_are_what_the_index_says() {
    let deb = "/debian/pool/a_1%253a2.deb";
    let world = World::new();
    world.make(&with_deb(1, b"first"));
    // Nobody vouches for it yet.
    assert_eq!(world.get(1, deb).await.body, b"first");
    for path in [PLAIN.root(), PLAIN.child(0)] {
        world.get(1, &path).await;
    }
    world.asked();
    for _ in 0..2 {
        assert_eq!(world.get(1, deb).await.body, b"first");
    }
    assert!(world.asked().len() <= 1, "it is vouched for, and never asked for again");
    // Another file under the same name: with the new index comes the new file, and the old one is
    // still there for who has the old index.
    world.make(&with_deb(2, b"second"));
    assert_eq!(world.get(1, deb).await.body, b"first");
    for path in [PLAIN.root(), PLAIN.child(0)] {
        world.get(2, &path).await;
    }
    assert_eq!(world.get(2, deb).await.body, b"second");
    // Wrong bytes are refused.
    world.make(&with_deb(3, b"third"));
    for path in [PLAIN.root(), PLAIN.child(0)] {
        world.get(3, &path).await;
    }
    world.make(&vec![(deb.to_owned(), Some(b"thirs".to_vec()))]);
    let answer = world.get(3, deb).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    // A mirror under another name has the same index: the bytes are here.
    world.set_down(true);
    world.restart();
    assert_eq!(world.get(4, &PLAIN.child(0)).await.status, 200);
}

#[tokio::test]
async fn older_generations_are_given_up_in_the_end() {
    let options = Options { older_max: 1, ..Options::default() };
    let world = World::with(options);
    for generation in 1..=3 {
        let files = BTreeMap::from([(CHILDREN[0], content(PLAIN, generation, 0))]);
        world.make(&vec![
            (PLAIN.child(0), Some(content(PLAIN, generation, 0))),
            (PLAIN.root(), Some(root_of(PLAIN, generation, None, &files))),
        ]);
        for path in [PLAIN.root(), PLAIN.child(0)] {
            assert_eq!(world.get(generation as u16, &path).await.status, 200);
        }
        assert_eq!(world.get(1, &PLAIN.child(0)).await.body, content(PLAIN, 1, 0));
    }
    world.pass(2 * 3600);
    let files = BTreeMap::from([(CHILDREN[0], content(PLAIN, 4, 0))]);
    world.make(&vec![
        (PLAIN.child(0), Some(content(PLAIN, 4, 0))),
        (PLAIN.root(), Some(root_of(PLAIN, 4, None, &files))),
    ]);
    world.get(9, &PLAIN.root()).await;
    let held = world.root().generations().held().unwrap();
    assert_eq!(held.len(), 2 * 2, "the newest and the one before, a root and a child each");
}

#[tokio::test]
async fn patches_are_of_the_index_that_lists_them() {
    let kind = PLAIN;
    let index = "main/binary-amd64/Packages.diff/Index";
    let patch = |generation: usize| (format!("T-{generation}.gz"), format!("patch {generation}"));
    let directory = format!("{}main/binary-amd64/Packages.diff/", kind.directory);
    let publish = |generation: usize| {
        let mut text = "SHA256-Download:\n".to_owned();
        for (name, bytes) in (1..=generation).map(patch) {
            let hex = Digest::sha256(bytes.as_bytes());
            text.push_str(&format!(" {} {} {name}\n", hex.hex(), bytes.len()));
        }
        let files = BTreeMap::from([(index, text.clone().into_bytes())]);
        vec![
            (format!("{}{index}", kind.directory), Some(text.into_bytes())),
            (kind.root(), Some(root_of(kind, generation, None, &files))),
        ]
    };
    let file = |generation: usize| {
        let (name, bytes) = patch(generation);
        (format!("{directory}{name}"), Some(bytes.into_bytes()))
    };
    let world = World::new();
    world.make(&publish(1));
    world.make(&vec![file(1)]);
    let paths = [kind.root(), format!("{}{index}", kind.directory), file(1).0];
    for path in &paths {
        assert_eq!(world.get(1, path).await.status, 200, "{path}");
    }
    // The patch that is new is not there yet: clients follow patches, so nothing is shown.
    let before = world.get(1, &kind.root()).await.body;
    world.make(&publish(2));
    assert_eq!(world.get(2, &kind.root()).await.body, before);
    world.make(&vec![file(2)]);
    assert_ne!(world.get(3, &kind.root()).await.body, before);
    world.set_down(true);
    world.restart();
    assert_eq!(world.get(4, &kind.root()).await.status, 200);
    for generation in 1..=2 {
        let answer = world.get(4, &file(generation).0).await;
        assert_eq!(answer.body, patch(generation).1.into_bytes());
    }
}
