//! Every wait ends, and memory does not grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boatyard_content::Piece;
use boatyard_oci::{Algorithm, Digest, Hasher};
use boatyard_upstream::RetryPolicy;
use boatyard_upstream::transfer::{Arrival, Limits, TransferError, Wanted};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use http::HeaderMap;

use crate::support::{CHUNK, Script, World, bytes, fail, limits, part, read_all, stalled, wanted};

const SHORT: Duration = Duration::from_millis(50);

/// Limits under which a source is tried once.
fn once() -> Limits {
    Limits { retry: RetryPolicy { attempts_max: 1, ..limits().retry }, ..limits() }
}

#[tokio::test]
async fn a_body_that_stands_still_is_resumed_and_given_up() {
    let all = bytes(10 * CHUNK);
    let world = World::new(Limits { idle: SHORT, ..limits() });
    let source = {
        let all = all.clone();
        Script::new("stalling", move |number, missing| {
            let arrival = part(&all, missing.offset);
            Ok(if number == 0 { stalled(arrival, 3 * CHUNK) } else { arrival })
        })
    };
    let reader = world.open(&wanted(&all), &[&source]).await.unwrap();
    assert!(read_all(reader).await.0 == all);
    assert_eq!(source.offsets(), [0, 3 * CHUNK as u64]);

    let world = World::new(Limits { idle: SHORT, ..once() });
    let source = {
        let all = all.clone();
        Script::new("stalling", move |_, missing| Ok(stalled(part(&all, missing.offset), 0)))
    };
    let (_, failure) = fail(&world, &wanted(&all), &[&source]).await;
    let TransferError::Broken { source, .. } = &*failure else { panic!("{failure}") };
    assert_eq!(source.to_string(), "stalling sent nothing for 0.05 s");
}

/// A source that never answers.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl boatyard_upstream::transfer::Source for Silent {
    fn upstream(&self) -> &str {
        "silent"
    }

    async fn fetch(
        &self,
        _: &boatyard_upstream::transfer::Missing,
    ) -> Result<Arrival, boatyard_upstream::transfer::SourceError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_named() {
    let world = World::new(Limits { first_byte: SHORT, ..limits() });
    let wanted = Wanted::blob(&Digest::sha256(b"x"));
    let failure =
        world.transfers.open(&wanted, vec![Arc::new(Silent)], &world.lease).await.err().unwrap();
    assert_eq!(failure.to_string(), "silent did not answer within 0.05 s");
}

#[tokio::test]
async fn a_trickle_is_too_slow() {
    let limits = Limits { rate_min: 1 << 40, rate_over: Duration::from_millis(1), ..once() };
    let world = World::new(limits);
    let all = bytes(10 * CHUNK);
    let source = {
        let all = all.clone();
        Script::new("slow", move |_, missing| {
            let mut arrival = part(&all, missing.offset);
            arrival.body = arrival
                .body
                .then(|piece| async {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    piece
                })
                .boxed();
            Ok(arrival)
        })
    };
    let (_, failure) = fail(&world, &wanted(&all), &[&source]).await;
    let TransferError::Broken { source, .. } = &*failure else { panic!("{failure}") };
    assert!(matches!(**source, TransferError::Slow { .. }), "{source}");
}

/// Counts down when it ends.
struct Flight(Arc<AtomicUsize>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn no_more_at_once_than_an_upstream_may_be_asked() {
    let world = World::new(Limits { per_upstream: 2, ..limits() });
    let (flying, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let objects: Vec<Bytes> = (1..20).map(|n| bytes(n * 1000)).collect();
    let fetched =
        join_all(
            objects.iter().map(|all| {
                let (flying, most, body) = (Arc::clone(&flying), Arc::clone(&most), all.clone());
                let source = Script::new("one", move |_, missing| {
                    most.fetch_max(flying.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let mut arrival = part(&body, missing.offset);
                    let flight = Flight(Arc::clone(&flying));
                    let hold = move |piece| {
                        let _as_long_as = &flight;
                        piece
                    };
                    arrival.body = arrival.body.map(hold).boxed();
                    Ok(arrival)
                });
                let world = &world;
                async move {
                    read_all(world.open(&wanted(all), &[&source]).await.unwrap()).await.0 == *all
                }
            }),
        );
    assert!(fetched.await.into_iter().all(|right| right));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn who_waits_for_a_turn_is_told_when_there_is_none() {
    let world = World::new(Limits { per_upstream: 1, queue: SHORT, ..limits() });
    let (first, second) = (bytes(10 * CHUNK), bytes(9 * CHUNK));
    let busy = {
        let first = first.clone();
        Script::new("one", move |_, _| Ok(stalled(part(&first, 0), 0)))
    };
    let _reader = world.open(&wanted(&first), &[&busy]).await.unwrap();
    let queued = Script::of("one", &second);
    let failure = world.open(&wanted(&second), &[&queued]).await.err().unwrap();
    assert_eq!(failure.to_string(), "no connection to one became free within 0.05 s");
    let elsewhere = Script::of("two", &second);
    let reader = world.open(&wanted(&second), &[&queued, &elsewhere]).await.unwrap();
    assert!(read_all(reader).await.0 == second);
}

/// Returns the most memory that this process has had at once, in bytes.
fn memory_peak() -> usize {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_needs_no_more_memory_than_a_little() {
    const SIZE: u64 = 1 << 30;
    let piece = bytes(CHUNK);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for _ in 0..SIZE / CHUNK as u64 {
        hasher.update(&piece);
    }
    let source = Script::new("large", move |_, _| {
        let piece = piece.clone();
        let body = stream::repeat_with(move || Ok(Bytes::copy_from_slice(&piece)));
        let body = body.take((SIZE / CHUNK as u64) as usize).boxed();
        Ok(Arrival { offset: 0, size: Some(SIZE), headers: HeaderMap::new(), body })
    });
    let world = World::new(limits());
    let before = memory_peak();
    let wanted = Wanted::blob(&hasher.finish());
    let slow = world.open(&wanted, &[&source]).await.unwrap();
    let mut quick = world.open(&wanted, &[]).await.unwrap();
    let mut got = 0;
    while let Some(piece) = quick.next().await.unwrap() {
        got += match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Rest(_, range) => range.end - range.start,
        };
    }
    assert_eq!(got, SIZE);
    drop(slow);
    let grown = memory_peak() - before;
    assert!(grown < 64 << 20, "memory has grown by {} MiB", grown >> 20);
}
