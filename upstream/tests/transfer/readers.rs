//! Many readers of one transfer, each at its own pace.

use boatyard_content::{Piece, Store as _};
use boatyard_oci::Digest;
use boatyard_upstream::transfer::{TransferError, WITHHELD, Wanted};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::support::{CHUNK, Script, World, bytes, fed, limits, read, read_all, until, wanted};

const LEN: usize = 40 * CHUNK + 17;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_at_once_are_one_request() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = Script::of("one", &all);
    let wanted = wanted(&all);
    let readers = join_all((0..32).map(|_| async {
        let (got, end) = read_all(world.open(&wanted, &[&source]).await.unwrap()).await;
        end.unwrap();
        got
    }));
    assert!(readers.await.iter().all(|got| *got == all));
    assert_eq!(source.offsets(), [0]);
    until(|| world.transfers.under_way() == 0).await;
    assert!(world.has(&Digest::sha256(&all)));
    assert_eq!(world.ingests(), 0);

    let again = world.open(&wanted, &[]).await.unwrap();
    assert_eq!(again.size(), Some(LEN as u64));
    assert!(read_all(again).await.0 == all);
}

#[tokio::test]
async fn bytes_are_read_as_they_come_and_the_last_when_they_are_right() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let (source, feed) = fed("one", LEN as u64);
    let mut reader = world.open(&Wanted::blob(&Digest::sha256(&all)), &[&source]).await.unwrap();
    assert_eq!(reader.size(), Some(LEN as u64), "the upstream says it");
    feed.send(all.slice(..5)).await.unwrap();
    assert_eq!(read(&mut reader, 5).await.unwrap(), all[..5], "five bytes are not waited with");
    feed.send(all.slice(5..LEN - 1)).await.unwrap();
    let before = LEN - WITHHELD as usize;
    assert!(read(&mut reader, before - 5).await.unwrap() == all[5..before]);
    assert!(reader.next().now_or_never().is_none(), "the rest is withheld");
    feed.send(all.slice(LEN - 1..)).await.unwrap();
    let Some(Piece::Rest(blob, range)) = futures_util::FutureExt::fuse(async {
        drop(feed);
        reader.next().await.unwrap()
    })
    .await
    else {
        panic!("it is a blob now")
    };
    assert_eq!((blob.size(), range), (LEN as u64, before as u64..LEN as u64));
    assert!(reader.next().await.unwrap().is_none());
    assert_eq!(reader.landed().await.unwrap().digest, Digest::sha256(&all));
}

#[tokio::test]
async fn the_slow_slow_nobody_and_the_first_may_leave() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let (source, feed) = fed("one", LEN as u64);
    let wanted = wanted(&all);
    let mut first = world.open(&wanted, &[&source]).await.unwrap();
    feed.send(all.slice(..CHUNK)).await.unwrap();
    assert!(!read(&mut first, 1).await.unwrap().is_empty());
    let slow = world.open(&wanted, &[]).await.unwrap();
    let quick = world.open(&wanted, &[]).await.unwrap();
    drop(first);
    feed.send(all.slice(CHUNK..)).await.unwrap();
    let (got, end) = read_all(quick).await;
    end.unwrap();
    assert!(got == all, "nobody waits for who does not read");
    let (got, end) = read_all(slow).await;
    end.unwrap();
    assert!(got == all);
    assert_eq!(source.offsets(), [0]);
}

#[tokio::test]
async fn ranges_of_what_is_still_arriving() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let (source, feed) = fed("one", LEN as u64);
    let wanted = wanted(&all);
    let open = || async { world.open(&wanted, &[&source]).await.unwrap() };
    let early = open().await.within(10..20);
    let middle = open().await.within(5 * CHUNK as u64..6 * CHUNK as u64);
    let mut end = open().await.within(LEN as u64 - 3..u64::MAX);
    let nothing = open().await.within(7..7);
    assert!(read_all(nothing).await.0.is_empty());
    feed.send(all.slice(..CHUNK)).await.unwrap();
    assert_eq!(read_all(early).await.0, all[10..20]);
    let middle = tokio::spawn(read_all(middle));
    feed.send(all.slice(CHUNK..8 * CHUNK)).await.unwrap();
    assert!(middle.await.unwrap().0 == all[5 * CHUNK..6 * CHUNK]);
    assert!(end.next().now_or_never().is_none());
    feed.send(all.slice(8 * CHUNK..)).await.unwrap();
    assert_eq!(read_all(end).await.0, all[LEN - 3..]);
}

#[tokio::test]
async fn without_a_length_the_end_is_what_was_framed() {
    let (world, all) = (World::new(limits()), bytes(3 * CHUNK));
    let source = {
        let all = all.clone();
        Script::new("chunked", move |_, _| {
            let mut arrival = crate::support::part(&all, 0);
            arrival.size = None;
            Ok(crate::support::with_headers(arrival, &[("content-type", "text/x")]))
        })
    };
    let wanted = Wanted::unpromised("some-key".parse().unwrap());
    let reader = world.open(&wanted, &[&source]).await.unwrap();
    assert_eq!(reader.size(), None);
    assert_eq!(reader.head().headers["content-type"], "text/x");
    let pieces: Vec<_> = reader.into_stream().collect().await;
    assert!(matches!(pieces.last(), Some(Ok(Piece::Rest(..)))));
    until(|| world.transfers.under_way() == 0).await;
    assert!(world.has(&Digest::sha256(&all)));
}

#[tokio::test]
async fn small_and_empty_objects() {
    let world = World::new(limits());
    for all in [Bytes::new(), Bytes::from_static(b"x"), bytes(WITHHELD as usize)] {
        let source = Script::of("one", &all);
        let wanted = Wanted::blob(&Digest::sha256(&all));
        let reader = world.open(&wanted, &[&source]).await.unwrap();
        let (got, end) = read_all(reader).await;
        end.unwrap();
        assert!(got == all);
        until(|| world.transfers.under_way() == 0).await;
        let blob = world.root.store().open(&Digest::sha256(&all)).await.unwrap();
        assert_eq!(blob.unwrap().size(), all.len() as u64);
    }
}

#[tokio::test]
async fn sources_are_asked_in_turn_and_the_last_error_is_told() {
    let (world, all) = (World::new(limits()), bytes(100));
    let none = Script::new("none", |_, _| Err(crate::support::refused()));
    let busy = Script::new("busy", |_, _| Err(crate::support::interrupted()));
    let source = Script::of("one", &all);
    let failure = world.open(&wanted(&all), &[&busy, &none]).await.err().unwrap();
    assert!(matches!(&*failure, TransferError::Source { upstream, .. } if upstream == "none"));
    let failure = world.open(&wanted(&all), &[]).await.err().unwrap();
    assert!(matches!(*failure, TransferError::NoSource));
    let reader = world.open(&wanted(&all), &[&busy, &none, &source]).await.unwrap();
    assert_eq!(read_all(reader).await.0, all);
    assert_eq!((busy.log().len(), none.log().len(), source.log().len()), (2, 2, 1));
}
