//! The laws of [`Store`], as a suite that every store and decorator passes.
#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use boatyard_oci::{Algorithm, Digest};
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::gc::SweepPermit;
use crate::ingest::{Expected, Growth, Ingest, IngestKey, Landed};
use crate::lease::Lease;
use crate::store::{Store, StoreError};

/// Checks every law on an empty store.
///
/// # Panics
/// Where a law does not hold.
pub async fn all(store: &dyn Store, lease: &Lease) {
    what_lands_can_be_read(store, lease).await;
    nobody_sees_what_has_not_landed(store, lease).await;
    a_wrong_promise_leaves_nothing(store, lease).await;
    the_same_bytes_twice_are_one_blob(store, lease).await;
    one_writer_at_a_time(store, lease).await;
    what_was_suspended_goes_on(store, lease).await;
    what_was_not_saved_is_forgotten(store, lease).await;
    what_is_announced_is_read_while_it_grows(store, lease).await;
    what_was_announced_goes_on_behind_all_of_it(store, lease).await;
    readers_learn_that_it_was_dropped(store, lease).await;
    sha512_is_as_good(store, lease).await;
    large_and_empty_ones(store, lease).await;
    only_a_permit_removes(store, lease).await;
}

async fn put(store: &dyn Store, lease: &Lease, bytes: &'static [u8]) -> Landed {
    let mut ingest = store.ingest(&IngestKey::random(), lease).await.unwrap();
    ingest.append(Bytes::from_static(bytes)).await.unwrap();
    ingest.commit(Expected::exactly(&Digest::sha256(bytes), bytes.len() as u64)).await.unwrap()
}

async fn read(store: &dyn Store, digest: &Digest) -> Bytes {
    store.open(digest).await.unwrap().unwrap().into_bytes(1 << 30).unwrap()
}

async fn what_lands_can_be_read(store: &dyn Store, lease: &Lease) {
    let landed = put(store, lease, b"lands").await;
    let info = landed.info().clone();
    assert_eq!(landed, Landed::New(info.clone()));
    assert_eq!(read(store, &info.digest).await, "lands");
    assert_eq!(store.stat(&info.digest).await.unwrap(), Some(info.clone()));
    assert_eq!(store.hold(&info.digest, lease).await.unwrap(), Some(info.clone()));
    assert_eq!(store.touch(&info.digest).await.unwrap(), Some(info.clone()));
    let listed: Vec<_> = store.list().try_collect().await.unwrap();
    assert!(listed.contains(&info));
}

async fn nobody_sees_what_has_not_landed(store: &dyn Store, lease: &Lease) {
    let digest = Digest::sha256(b"not yet");
    let mut ingest = store.ingest(&IngestKey::random(), lease).await.unwrap();
    ingest.append("not yet".into()).await.unwrap();
    assert_eq!(store.stat(&digest).await.unwrap(), None);
    assert!(store.open(&digest).await.unwrap().is_none());
    assert_eq!(store.hold(&digest, lease).await.unwrap(), None);
    ingest.abort().await.unwrap();
    assert_eq!(store.stat(&digest).await.unwrap(), None);
}

async fn a_wrong_promise_leaves_nothing(store: &dyn Store, lease: &Lease) {
    let (right, wrong) = (Digest::sha256(b"right"), Digest::sha256(b"wrong"));
    for expected in [Expected::digest(&wrong), Expected::exactly(&right, 4)] {
        let key = IngestKey::random();
        let mut ingest = store.ingest(&key, lease).await.unwrap();
        ingest.append("right".into()).await.unwrap();
        let error = ingest.commit(expected).await.unwrap_err();
        assert!(
            matches!(error, StoreError::DigestMismatch { .. } | StoreError::SizeMismatch { .. }),
            "{error}"
        );
        assert_eq!(store.stat(&right).await.unwrap(), None);
        assert_eq!(store.stat(&wrong).await.unwrap(), None);
        assert_eq!(store.ingest(&key, lease).await.unwrap().offset(), 0);
    }
}

async fn the_same_bytes_twice_are_one_blob(store: &dyn Store, lease: &Lease) {
    let mut first = store.ingest(&IngestKey::random(), lease).await.unwrap();
    let mut second = store.ingest(&IngestKey::random(), lease).await.unwrap();
    first.append("twice".into()).await.unwrap();
    second.append("twice".into()).await.unwrap();
    let first = first.commit(Expected::any()).await.unwrap();
    let second = second.commit(Expected::any()).await.unwrap();
    assert!(matches!(first, Landed::New(_)));
    assert!(matches!(second, Landed::AlreadyPresent(_)));
    assert_eq!(first.info(), second.info());
    assert_eq!(read(store, &first.info().digest).await, "twice");
}

async fn one_writer_at_a_time(store: &dyn Store, lease: &Lease) {
    let key = IngestKey::random();
    let first = store.ingest(&key, lease).await.unwrap();
    let error = store.ingest(&key, lease).await.unwrap_err();
    assert!(matches!(error, StoreError::IngestBusy { .. }), "{error}");
    assert!(matches!(store.discard(&key).await.unwrap_err(), StoreError::IngestBusy { .. }));
    first.abort().await.unwrap();
    store.discard(&key).await.unwrap();
    drop(store.ingest(&key, lease).await.unwrap());
    store.discard(&key).await.unwrap();
}

async fn what_was_suspended_goes_on(store: &dyn Store, lease: &Lease) {
    let key = IngestKey::random();
    let mut ingest = store.ingest(&key, lease).await.unwrap();
    ingest.append("one ".into()).await.unwrap();
    assert_eq!(ingest.suspend().await.unwrap(), 4);
    let mut ingest = store.ingest(&key, lease).await.unwrap();
    assert_eq!(ingest.offset(), 4);
    ingest.append("two".into()).await.unwrap();
    let expected = Expected::exactly(&Digest::sha256(b"one two"), 7);
    let landed = ingest.commit(expected).await.unwrap();
    assert_eq!(read(store, &landed.info().digest).await, "one two");
    assert_eq!(store.ingest(&key, lease).await.unwrap().offset(), 0);
}

async fn what_was_not_saved_is_forgotten(store: &dyn Store, lease: &Lease) {
    let key = IngestKey::random();
    let mut ingest = store.ingest(&key, lease).await.unwrap();
    ingest.append("saved".into()).await.unwrap();
    ingest.suspend().await.unwrap();
    let mut ingest = store.ingest(&key, lease).await.unwrap();
    ingest.append(" lost".into()).await.unwrap();
    drop(ingest);
    let ingest = store.ingest(&key, lease).await.unwrap();
    assert_eq!(ingest.offset(), 5);
    let landed = ingest.commit(Expected::any()).await.unwrap();
    assert_eq!(read(store, &landed.info().digest).await, "saved");
}

async fn what_is_announced_is_read_while_it_grows(store: &dyn Store, lease: &Lease) {
    let key = IngestKey::random();
    // Once as a new blob, once as one that is there already.
    for _ in 0..2 {
        let mut ingest = store.ingest(&key, lease).await.unwrap();
        let mut written = ingest.written();
        assert!(store.follow(&key).await.unwrap().is_none(), "not announced yet");
        ingest.announce("a note".into()).await.unwrap();
        ingest.append("grow".into()).await.unwrap();
        ingest.write_out().await.unwrap();
        written.wait_for(|written| *written == 4).await.unwrap();
        let growing = store.follow(&key).await.unwrap().unwrap();
        assert_eq!(growing.note(), "a note");
        assert_eq!(growing.growth().unwrap(), Growth::Growing(4));
        assert_eq!(growing.read_at(1, 100).unwrap(), "row");
        ingest.announce("another note".into()).await.unwrap();
        ingest.append("ing".into()).await.unwrap();
        ingest.save().await.unwrap();
        assert_eq!(growing.growth().unwrap(), Growth::Growing(7));
        assert!(growing.blob().unwrap().is_none());
        let again = store.follow(&key).await.unwrap().unwrap();
        assert!(again.is_same(&growing));
        assert_eq!(again.note(), "another note");
        written.mark_unchanged();
        let landed = ingest.commit(Expected::any()).await.unwrap();
        written.changed().await.unwrap();
        assert_eq!(growing.growth().unwrap(), Growth::Whole(7));
        for _ in 0..2 {
            assert_eq!(growing.blob().unwrap().unwrap().into_bytes(7).unwrap(), "growing");
        }
        assert_eq!(read(store, &landed.info().digest).await, "growing");
        assert!(store.follow(&key).await.unwrap().is_none());
    }
}

/// Takes up an ingest that was dropped: its thread may not have noticed yet.
pub(crate) async fn once_free(store: &dyn Store, key: &IngestKey, lease: &Lease) -> Ingest {
    loop {
        match store.ingest(key, lease).await {
            Err(StoreError::IngestBusy { .. }) => tokio::task::yield_now().await,
            taken => return taken.unwrap(),
        }
    }
}

async fn what_was_announced_goes_on_behind_all_of_it(store: &dyn Store, lease: &Lease) {
    let key = IngestKey::random();
    let mut ingest = store.ingest(&key, lease).await.unwrap();
    ingest.announce(Bytes::new()).await.unwrap();
    ingest.append("saved, ".into()).await.unwrap();
    ingest.save().await.unwrap();
    ingest.append("only written, ".into()).await.unwrap();
    ingest.write_out().await.unwrap();
    ingest.written().wait_for(|written| *written == 21).await.unwrap();
    let growing = store.follow(&key).await.unwrap().unwrap();
    drop(ingest);
    let mut ingest = once_free(store, &key, lease).await;
    assert_eq!(ingest.offset(), 21);
    assert!(store.follow(&key).await.unwrap().unwrap().is_same(&growing));
    ingest.append("and the rest".into()).await.unwrap();
    let text = b"saved, only written, and the rest";
    let expected = Expected::exactly(&Digest::sha256(text), text.len() as u64);
    ingest.commit(expected).await.unwrap();
    assert_eq!(growing.growth().unwrap(), Growth::Whole(33));
}

async fn readers_learn_that_it_was_dropped(store: &dyn Store, lease: &Lease) {
    let key = IngestKey::random();
    for wrong in [false, true] {
        let mut ingest = store.ingest(&key, lease).await.unwrap();
        ingest.announce(Bytes::new()).await.unwrap();
        ingest.append("dropped".into()).await.unwrap();
        ingest.save().await.unwrap();
        let growing = store.follow(&key).await.unwrap().unwrap();
        match wrong {
            true => drop(ingest.commit(Expected::digest(&Digest::sha256(b"other"))).await),
            false => ingest.abort().await.unwrap(),
        }
        assert_eq!(growing.growth().unwrap(), Growth::Dropped);
        assert!(growing.blob().unwrap().is_none());
        assert!(store.follow(&key).await.unwrap().is_none());
    }
}

async fn sha512_is_as_good(store: &dyn Store, lease: &Lease) {
    for (announced, text) in [(true, "sha512 announced"), (false, "sha512 told late")] {
        let digest = Digest::of(Algorithm::Sha512, text.as_bytes());
        let key = IngestKey::random();
        let mut ingest = store.ingest(&key, lease).await.unwrap();
        if announced {
            ingest.also(Algorithm::Sha512);
        }
        ingest.append(Bytes::copy_from_slice(&text.as_bytes()[..7])).await.unwrap();
        ingest.suspend().await.unwrap();
        let mut ingest = store.ingest(&key, lease).await.unwrap();
        ingest.append(Bytes::copy_from_slice(&text.as_bytes()[7..])).await.unwrap();
        let landed = ingest.commit(Expected::digest(&digest)).await.unwrap();
        assert_eq!(landed.info().digest, digest);
        assert_eq!(read(store, &digest).await, text);
    }
}

async fn large_and_empty_ones(store: &dyn Store, lease: &Lease) {
    let chunk = Bytes::from(vec![7; 300_000]);
    let mut ingest = store.ingest(&IngestKey::random(), lease).await.unwrap();
    for _ in 0..40 {
        ingest.append(chunk.clone()).await.unwrap();
    }
    assert_eq!(ingest.offset(), 12_000_000);
    let landed = ingest.commit(Expected::any()).await.unwrap();
    assert_eq!(landed.info().digest, Digest::sha256(&vec![7; 12_000_000]));
    assert_eq!(landed.info().size, 12_000_000);

    let empty = store.ingest(&IngestKey::random(), lease).await.unwrap();
    let landed = empty.commit(Expected::digest(&Digest::sha256(b""))).await.unwrap();
    assert_eq!(read(store, &landed.info().digest).await, "");
}

async fn only_a_permit_removes(store: &dyn Store, lease: &Lease) {
    let info = put(store, lease, b"to be removed").await.info().clone();
    let other = (0_u8..)
        .map(|n| Digest::sha256(&[n]))
        .find(|other| other.hex()[..2] != info.digest.hex()[..2])
        .unwrap();
    let wrong = SweepPermit::for_suite(&other);
    assert!(matches!(
        store.remove(&info.digest, &wrong).await,
        Err(StoreError::NotPermitted { .. })
    ));
    let open = store.open(&info.digest).await.unwrap().unwrap();
    store.remove(&info.digest, &SweepPermit::for_suite(&info.digest)).await.unwrap();
    assert_eq!(store.stat(&info.digest).await.unwrap(), None);
    assert_eq!(open.into_bytes(100).unwrap(), "to be removed");
}
