//! Several processes that want the same object, and some that die.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use boatyard_content::local::RootOptions;
use boatyard_content::{Root, fsck};
use boatyard_oci::Digest;
use boatyard_upstream::transfer::{Arrival, Limits, TransferError, Wanted};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use crate::support::{
    CHUNK, Script, World, bytes, cut, fed, limits, part, read, read_all, stalled, until, wanted,
    with_headers,
};

/// Says to the test below that it is the owner of a transfer: `<way> <root>`.
const ROLE: &str = "BOATYARD_TRANSFER_TEST_ROLE";
const LEN: usize = 40 * CHUNK;
/// How much the owner gets before it stands still.
const HALF: usize = 20 * CHUNK + 5;

fn open(path: &Path) -> Arc<Root> {
    Root::open(path, RootOptions::default()).unwrap()
}

/// Fetches as the other process of a test does; returns only where it can finish.
async fn be_owner(way: &str, path: &Path) {
    let (all, world) = (bytes(LEN), World::on(open(path), limits()));
    let go = path.join("go");
    let source = {
        let (all, way) = (all.clone(), way.to_owned());
        Script::new("theirs", move |_, missing| {
            let arrival = with_headers(part(&all, missing.offset), &[("etag", "\"x\"")]);
            Ok(match way.as_str() {
                "stall" => stalled(arrival, HALF),
                _ => waiting(arrival, go.clone()),
            })
        })
    };
    let wanted = match way {
        "unpromised" => Wanted::unpromised("shared".parse().unwrap()),
        _ => wanted(&all),
    };
    let reader = world.open(&wanted, &[&source]).await.unwrap();
    let (got, end) = read_all(reader).await;
    end.unwrap();
    assert!(got == all);
}

/// An answer of which a half comes, and the rest once there is a file.
fn waiting(mut arrival: Arrival, go: PathBuf) -> Arrival {
    let body = arrival.body.enumerate().then(move |(number, piece)| {
        let go = go.clone();
        async move {
            if number == HALF / CHUNK {
                until(|| go.exists()).await;
            }
            piece
        }
    });
    arrival.body = body.boxed();
    arrival
}

struct Owner(Child);

impl Owner {
    fn start(way: &str, root: &Path) -> Owner {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::an_owner", "--nocapture"])
            .env(ROLE, format!("{way} {}", root.display()))
            .spawn()
            .unwrap();
        Owner(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other process of the tests below; a test that does nothing by itself.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the process is told by it who it is")]
async fn an_owner() {
    if let Ok(role) = std::env::var(ROLE) {
        match role.split_once(' ').unwrap() {
            ("many", path) => be_one_of_many(Path::new(path)).await,
            (way, path) => be_owner(way, Path::new(path)).await,
        }
    }
}

/// Starts an owner and waits until it fetches.
async fn world_with_owner(way: &str, limits: Limits) -> (World, Owner, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root");
    let world = World::on(open(&path), limits);
    let owner = Owner::start(way, &path);
    let ingests = world.root.layout().ingests();
    let announced = |entry: fs_err::DirEntry| entry.path().join("note").exists();
    until(|| fs_err::read_dir(&ingests).is_ok_and(|mut all| all.any(|e| announced(e.unwrap()))))
        .await;
    (world, owner, directory)
}

#[tokio::test]
async fn another_process_is_followed_to_the_end() {
    for way in ["blob", "unpromised"] {
        let all = bytes(LEN);
        let (world, mut owner, _directory) = world_with_owner(way, limits()).await;
        let ours = Script::new("ours", |_, _| Err(crate::support::refused()));
        let wanted = match way {
            "unpromised" => Wanted::unpromised("shared".parse().unwrap()),
            _ => wanted(&all),
        };
        let mut reader = world.open(&wanted, &[&ours]).await.unwrap();
        assert_eq!(reader.size(), Some(LEN as u64));
        assert_eq!(reader.head().headers["etag"], "\"x\"");
        let start = read(&mut reader, CHUNK).await.unwrap();
        let landing = world.open(&wanted, &[&ours]).await.unwrap();
        fs_err::write(world.root.path().join("go"), "").unwrap();
        let (rest, end) = read_all(reader).await;
        end.unwrap();
        assert!([start, rest].concat() == all);
        assert_eq!(landing.landed().await.unwrap().digest, Digest::sha256(&all));
        assert!(owner.0.wait().unwrap().success());
        assert!(ours.log().is_empty(), "one request in all processes");
        assert!(world.has(&Digest::sha256(&all)));
    }
}

#[tokio::test]
async fn a_transfer_whose_process_is_killed_is_taken_over() {
    let all = bytes(LEN);
    let (world, mut owner, _directory) = world_with_owner("stall", limits()).await;
    let (ours, feed) = fed("ours", LEN as u64);
    let mut reader = world.open(&wanted(&all), &[&ours]).await.unwrap();
    let start = read(&mut reader, HALF).await.unwrap();
    assert_eq!(start.len(), HALF, "what the other process has fetched is read here");
    owner.kill();
    feed.send(all.slice(HALF..HALF + CHUNK)).await.unwrap();
    let more = read(&mut reader, CHUNK).await.unwrap();
    feed.send(all.slice(HALF + CHUNK..)).await.unwrap();
    let (rest, end) = read_all(reader).await;
    end.unwrap();
    assert!([start, more, rest].concat() == all);
    assert_eq!(ours.offsets(), [HALF as u64], "no byte is fetched twice, saved or not");
    until(|| world.transfers.under_way() == 0).await;
    assert!(world.has(&Digest::sha256(&all)));
}

#[tokio::test]
async fn of_many_followers_one_takes_over() {
    let all = bytes(LEN);
    let (world, mut owner, _directory) = world_with_owner("stall", limits()).await;
    let other = World::on(Arc::clone(&world.root), limits());
    let (one, two) = (Script::of("one", &all), Script::of("two", &all));
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(world.open(&wanted(&all), &[&one]).await.unwrap());
        readers.push(other.open(&wanted(&all), &[&two]).await.unwrap());
    }
    for reader in &mut readers {
        read(reader, 10).await.unwrap();
    }
    owner.kill();
    let ends = join_all(readers.into_iter().map(read_all)).await;
    assert!(ends.iter().all(|(_, end)| end.is_ok()));
    assert_eq!(one.log().len() + two.log().len(), 1);
}

#[tokio::test]
async fn who_follows_learns_that_the_owner_got_wrong_bytes() {
    let all = bytes(LEN);
    let (world, mut owner, _directory) = world_with_owner("stall", limits()).await;
    // What the owner fetched is not what it was promised to be.
    let mut wanted = wanted(&all);
    wanted.expected = boatyard_content::Expected::exactly(&Digest::sha256(b"other"), LEN as u64);
    let ours = Script::of("ours", &all);
    let mut reader = world.open(&wanted, &[&ours]).await.unwrap();
    read(&mut reader, 10).await.unwrap();
    owner.kill();
    let (got, end) = read_all(reader).await;
    assert!(matches!(*end.unwrap_err(), TransferError::Anew | TransferError::Digest { .. }));
    assert!(got.len() < LEN);
    assert!(!world.has(&Digest::sha256(&all)));
}

#[tokio::test]
async fn an_owner_that_lives_and_brings_nothing_is_not_waited_for_for_ever() {
    let all = bytes(LEN);
    let limits = Limits { patience: Duration::from_millis(300), ..limits() };
    let (world, _owner, _directory) = world_with_owner("stall", limits).await;
    let ours = Script::of("ours", &all);
    let mut reader = world.open(&wanted(&all), &[&ours]).await.unwrap();
    read(&mut reader, 10).await.unwrap();
    let fresh = world.open(&wanted(&all), &[&ours]).await.unwrap();
    assert_eq!(fresh.landed().await.unwrap().digest, Digest::sha256(&all));
    assert_eq!(ours.offsets(), [0]);
    assert!(matches!(*read_all(reader).await.1.unwrap_err(), TransferError::Anew));
}

const OBJECTS: usize = 16;
const KILLS: usize = 10;

/// Returns the object of a number: no two have the same bytes.
fn object(number: usize) -> Bytes {
    bytes(30 * CHUNK + number)
}

/// Reads all objects, each from a source that is slow and breaks off once.
async fn be_one_of_many(path: &Path) {
    let world = World::on(open(path), limits());
    for number in 0..OBJECTS {
        let all = object(number);
        let wanted = wanted(&all);
        let source = {
            let all = all.clone();
            Script::new("slow", move |times, missing| {
                let arrival = slowed(part(&all, missing.offset));
                Ok(if times == 0 { cut(arrival, 10 * CHUNK + 7) } else { arrival })
            })
        };
        let readers = (0..3).map(|_| async {
            let reader = world.open(&wanted, &[&source]).await.unwrap();
            let (got, end) = read_all(reader).await;
            end.unwrap();
            assert!(got == all, "object {number}");
        });
        join_all(readers).await;
    }
}

fn slowed(mut arrival: Arrival) -> Arrival {
    let body = arrival.body.then(|piece| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        piece
    });
    arrival.body = body.boxed();
    arrival
}

#[tokio::test]
async fn whoever_is_killed_the_others_get_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root");
    let world = World::on(open(&path), limits());
    let mut living: Vec<Owner> = (0..3).map(|_| Owner::start("many", &path)).collect();
    // They take turns: the one that dies may just have got an ingest, follow one, or land one.
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(200)).await;
        living.remove(0).kill();
        living.push(Owner::start("many", &path));
    }
    for owner in &mut living {
        assert!(owner.0.wait().unwrap().success());
    }
    for number in 0..OBJECTS {
        assert!(world.has(&Digest::sha256(&object(number))), "{number}");
    }
    let options = fsck::FsckOptions::default();
    let report = fsck::check(&world.root, &options, &mut fsck::Nobody).unwrap();
    assert!(report.is_clean(), "{report:?}");
}
