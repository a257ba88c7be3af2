//! Wrong bytes, full disks, and files that disappear: nobody gets a wrong whole.

use std::io::ErrorKind;
use std::sync::Arc;

use boatyard_content::local::RootOptions;
use boatyard_content::testing::faulty::FaultyDisk;
use boatyard_oci::Digest;
use boatyard_upstream::transfer::{TransferError, WITHHELD, Wanted};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;

use crate::support::{
    CHUNK, Script, World, bytes, fail, fed, limits, part, read, read_all, until, wanted,
};

const LEN: usize = 20 * CHUNK;

/// The same bytes with one bit flipped.
fn corrupt(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_whole_of_a_wrong_one() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    for at in [0, LEN / 2, LEN - 1] {
        let source = Script::of("liar", &corrupt(&all, at));
        let wanted = wanted(&all);
        let ends = join_all((0..32).map(|_| async {
            let (got, failure) = fail(&world, &wanted, &[&source]).await;
            assert!(got.len() <= LEN - WITHHELD as usize, "{}", got.len());
            failure
        }));
        for failure in ends.await {
            let text = failure.to_string();
            assert!(text.contains("liar") && text.contains("sha256:"), "{text}");
        }
        until(|| world.transfers.under_way() == 0).await;
        assert!(!world.has(&Digest::sha256(&all)));
        assert_eq!(world.ingests(), 0, "nothing wrong is kept");
    }
}

#[tokio::test]
async fn another_source_is_asked_and_who_has_read_is_cut() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let (liar, feed) = fed("liar", LEN as u64);
    let honest = Script::of("honest", &all);
    let mut deceived = world.open(&wanted(&all), &[&liar, &honest]).await.unwrap();
    let fresh = world.open(&wanted(&all), &[]).await.unwrap();
    feed.send(corrupt(&all, 5).slice(..LEN / 2)).await.unwrap();
    read(&mut deceived, 10).await.unwrap();
    feed.send(all.slice(LEN / 2..)).await.unwrap();
    let (got, end) = read_all(deceived).await;
    assert!(matches!(*end.unwrap_err(), TransferError::Anew));
    assert!(got.len() < LEN);
    let (got, end) = read_all(fresh).await;
    end.unwrap();
    assert!(got == all);
    assert_eq!((liar.offsets(), honest.offsets()), (vec![0], vec![0]));
    until(|| world.transfers.under_way() == 0).await;
    assert!(world.has(&Digest::sha256(&all)));
}

#[tokio::test]
async fn lengths_that_lie() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let announced = Script::of("announcer", &bytes(LEN + 1));
    let failure = world.open(&wanted(&all), &[&announced]).await.err().unwrap();
    let expected = LEN as u64;
    assert!(
        matches!(*failure, TransferError::Length { expected: e, got, .. } if e == expected && got == expected + 1),
        "{failure}"
    );
    let endless = Script::new("endless", move |_, _| {
        let mut arrival = part(&bytes(2 * LEN), 0);
        arrival.size = None;
        arrival.body = stream::iter([Ok(bytes(LEN + 1))]).boxed();
        Ok(arrival)
    });
    let (got, failure) = fail(&world, &wanted(&all), &[&endless]).await;
    assert!(matches!(*failure, TransferError::Length { .. }), "{failure}");
    assert!(got.len() <= LEN - WITHHELD as usize);
    let other = Script::new("other", move |_, missing| Ok(part(&bytes(LEN), missing.offset + 1)));
    let failure = world.open(&wanted(&all), &[&other]).await.err().unwrap();
    assert!(matches!(*failure, TransferError::Range { expected: 0, got: 1, .. }), "{failure}");
    assert_eq!(world.ingests(), 0);
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_stays_behind() {
    let all = bytes(LEN);
    // Before the first byte, while it arrives, and when it lands.
    for changes in [3, 8, 12, 16] {
        let disk = Arc::new(FaultyDisk::after(i64::MAX, ErrorKind::StorageFull));
        let options = RootOptions { disk: disk.clone(), ..RootOptions::default() };
        let world = World::with(limits(), options);
        disk.fail_after(changes);
        let source = Script::of("one", &all);
        let failure = match world.open(&wanted(&all), &[&source]).await {
            Ok(reader) => reader.landed().await.unwrap_err(),
            Err(failure) => failure,
        };
        assert!(failure.is_no_space(), "{failure}");
        until(|| world.transfers.under_way() == 0).await;
        disk.heal();
        let reader = world.open(&wanted(&all), &[&source]).await.unwrap();
        assert!(read_all(reader).await.0 == all);
    }
}

#[tokio::test]
async fn an_ingest_that_is_deleted_under_us_is_an_error() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let (source, feed) = fed("one", LEN as u64);
    let mut reader = world.open(&wanted(&all), &[&source]).await.unwrap();
    feed.send(all.slice(..CHUNK)).await.unwrap();
    let start = read(&mut reader, 1).await.unwrap();
    fs_err::remove_dir_all(world.root.layout().ingests()).unwrap();
    let landing = world.open(&wanted(&all), &[]).await.unwrap();
    feed.send(all.slice(CHUNK..)).await.unwrap();
    // Its bytes are right and all there, for who has it open; but it cannot become a blob.
    assert!([start, read_all(reader).await.0].concat() == all);
    let failure = landing.landed().await.unwrap_err();
    assert!(matches!(*failure, TransferError::Store { .. }), "{failure}");
    until(|| world.transfers.under_way() == 0).await;
    let again = Script::of("again", &all);
    let reader = world.open(&wanted(&all), &[&again]).await.unwrap();
    assert!(read_all(reader).await.0 == all);
}

#[tokio::test]
async fn a_source_that_panics_is_an_error() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = Script::new("one", |_, _| std::panic::panic_any("a bug"));
    let failure = world.open(&Wanted::blob(&Digest::sha256(&all)), &[&source]).await.err().unwrap();
    assert!(matches!(*failure, TransferError::Stopped));
    assert_eq!(world.transfers.under_way(), 0);
}
