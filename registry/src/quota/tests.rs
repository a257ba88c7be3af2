use crate::tests::support;
use boatyard_content::BlobInfo;
use boatyard_content::local::RootOptions;

use super::*;

struct World {
    root: Arc<Root>,
    quotas: Arc<Quotas>,
    _directory: tempfile::TempDir,
}

fn rule(pattern: &str, bytes_max: u64) -> QuotaRule {
    let repositories = vec![pattern.parse().unwrap()];
    QuotaRule { repositories, bytes_max: Some(bytes_max), ..QuotaRule::default() }
}

impl World {
    fn new(rules: Vec<QuotaRule>) -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let quotas = Quotas::new(Arc::clone(&root));
        quotas.configure(rules).unwrap();
        World { root, quotas, _directory: directory }
    }

    fn repository(&self, name: &str) -> Repository {
        self.root.repositories().repository(&Space::Hosted, &name.parse().unwrap())
    }

    /// Links a blob as another process does.
    fn link(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = support::put(&self.root, &self.root.lease().unwrap(), bytes);
        self.repository(name).link_blob(&digest).unwrap();
        digest
    }

    fn used(&self) -> Vec<u64> {
        self.quotas.catch_up().unwrap();
        self.quotas.usage().iter().map(|one| one.bytes).collect()
    }
}

fn blob(text: &str, size: u64) -> BlobInfo {
    BlobInfo { digest: Digest::sha256(text.as_bytes()), size }
}

#[test]
fn a_blob_counts_once_in_each_quota_whoever_links_it() {
    let world = World::new(vec![rule("team/**", 100), rule("team/a", 100)]);
    world.link("team/a", b"12345");
    world.link("team/b", b"12345");
    world.link("team/b", b"678");
    world.link("other", b"much more than that");
    assert_eq!(world.used(), [8, 5]);
    let digest = Digest::sha256(b"12345");
    assert!(world.repository("team/b").unlink_blob(&digest).unwrap());
    assert_eq!(world.used(), [8, 5]);
    assert!(world.repository("team/a").unlink_blob(&digest).unwrap());
    assert_eq!(world.used(), [3, 0]);
    // What is listed anew is the same as what was followed.
    let rules = world.quotas.usage().into_iter().map(|one| one.rule).collect();
    let measured = measure(&world.root, rules).unwrap();
    assert_eq!(measured, world.quotas.usage());
}

#[test]
fn two_uploads_at_once_do_not_go_beyond_it_together() {
    let world = World::new(vec![rule("**", 100)]);
    let name: RepositoryName = "app".parse().unwrap();
    let (one, two) = (world.quotas.open(&name), world.quotas.open(&name));
    one.grow(60).unwrap();
    let over = two.grow(41).unwrap_err();
    assert_eq!((over.used, over.wanted, over.most), (60, 41, 100));
    two.grow(40).unwrap();
    assert!(world.quotas.begin(&name).unwrap().is_err(), "nothing more fits");
    drop(one);
    world.quotas.begin(&name).unwrap().unwrap();
    two.land(&blob("two", 40), &[]);
    drop(two);
    assert_eq!(world.used(), [40]);
    world.quotas.open(&name).grow(60).unwrap();
}

#[test]
fn sessions_hold_their_room_between_requests_and_give_it_back() {
    let world = World::new(vec![rule("**", 100)]);
    let name: RepositoryName = "app".parse().unwrap();
    let repository = world.repository("app");
    let session = repository.begin_upload().unwrap();
    let first = world.quotas.resume(&name, &session, 0);
    first.grow(70).unwrap();
    first.suspend(&session, 70);
    drop(first);
    let other = world.quotas.open(&name);
    assert!(other.grow(31).is_err());
    let second = world.quotas.resume(&name, &session, 70);
    second.grow(30).unwrap();
    second.suspend(&session, 100);
    drop(second);
    assert!(other.try_grow(1).unwrap().is_err());
    // It expires, and nobody tells.
    repository.end_upload(&session).unwrap();
    assert!(other.try_grow(100).unwrap().is_ok());
}

#[test]
fn what_others_gave_up_is_seen_before_something_is_refused() {
    let world = World::new(vec![rule("**", 10)]);
    let digest = world.link("app", b"1234567890");
    assert_eq!(world.used(), [10]);
    let name: RepositoryName = "app".parse().unwrap();
    assert!(world.quotas.begin(&name).unwrap().is_err());
    world.repository("app").unlink_blob(&digest).unwrap();
    world.quotas.begin(&name).unwrap().unwrap();
}

#[test]
fn tags_are_counted_and_those_that_are_there_take_nothing() {
    let limited = QuotaRule { tags_max: Some(2), bytes_max: None, ..rule("**", 0) };
    let world = World::new(vec![limited]);
    let name: RepositoryName = "app".parse().unwrap();
    let tag = |text: &str| text.parse::<Tag>().unwrap();
    let one = world.quotas.open(&name);
    one.try_grow_tagged(5, &[tag("a"), tag("b")]).unwrap().unwrap();
    one.land(&blob("one", 5), &[tag("a"), tag("b")]);
    let two = world.quotas.open(&name);
    two.try_grow_tagged(5, &[tag("a")]).unwrap().unwrap();
    let over = two.try_grow_tagged(0, &[tag("c")]);
    // The files have neither: what was counted in memory was never written.
    assert!(over.unwrap().is_err());
}

#[test]
fn a_message_has_the_figures() {
    let over =
        Exceeded { quota: "team".to_owned(), what: Limited::Bytes, used: 9, wanted: 2, most: 10 };
    let text = "the quota `team` is 10 bytes, 9 are in use, 2 more do not fit";
    assert_eq!(over.to_string(), text);
}

#[test]
fn a_server_that_starts_counts_what_is_there() {
    let world = World::new(Vec::new());
    world.link("app", b"123");
    let session = world.repository("app").begin_upload().unwrap();
    let lease = world.root.lease().unwrap();
    let mut ingest = world.root.store().ingest_blocking(&session, &lease).unwrap();
    std::io::Write::write_all(&mut ingest, b"12345").unwrap();
    drop(ingest);
    world.quotas.configure(vec![rule("**", 10)]).unwrap();
    let usage = &world.quotas.usage()[0];
    assert_eq!(usage.bytes, 3);
    assert!(usage.bytes_reserved <= 5);
    let same = world.quotas.usage();
    world.quotas.configure(vec![rule("**", 10)]).unwrap();
    assert_eq!(world.quotas.usage(), same);
}
