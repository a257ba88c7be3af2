//! Connections that break, transfers that are put aside, and upstreams without ranges.

use std::sync::Mutex;

use boatyard_content::{IngestKey, Store as _};
use boatyard_oci::Digest;
use boatyard_upstream::transfer::{Limits, SourceError, TransferError, Wanted};
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::support::{
    CHUNK, Script, World, bytes, cut, fail, fed, feed, limits, part, pieces, read, read_all, until,
    wanted, with_headers,
};

const LEN: usize = 10 * CHUNK;

/// A source that has `bytes` and whose n-th connection breaks after so many bytes.
fn breaking(bytes: &Bytes, after: &'static [usize]) -> std::sync::Arc<Script> {
    let bytes = bytes.clone();
    Script::new("breaking", move |number, missing| {
        let arrival = part(&bytes, missing.offset);
        Ok(match after.get(number) {
            Some(after) => cut(arrival, *after),
            None => arrival,
        })
    })
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = breaking(&all, &[3 * CHUNK, 0, 2 * CHUNK + 5]);
    let (got, end) = read_all(world.open(&wanted(&all), &[&source]).await.unwrap()).await;
    end.unwrap();
    assert!(got == all);
    let chunk = CHUNK as u64;
    assert_eq!(source.offsets(), [0, 3 * chunk, 3 * chunk, 5 * chunk + 5]);
    assert_eq!(source.log()[1].size, Some(LEN as u64));
    assert_eq!(source.log()[1].validator, None, "the digest does that");
}

#[tokio::test]
async fn an_early_end_is_a_broken_connection() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = {
        let all = all.clone();
        Script::new("short", move |number, missing| {
            let mut arrival = part(&all, missing.offset);
            if number == 0 {
                arrival.body = pieces(&all.slice(..CHUNK + 1));
            }
            Ok(arrival)
        })
    };
    let (got, end) = read_all(world.open(&wanted(&all), &[&source]).await.unwrap()).await;
    end.unwrap();
    assert!(got == all);
    assert_eq!(source.offsets(), [0, CHUNK as u64 + 1]);
}

#[tokio::test]
async fn what_breaks_again_and_again_is_kept_for_next_time_and_for_the_next_source() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = breaking(&all, &[CHUNK, 0, 0, 0, 0]);
    let (_, failure) = fail(&world, &wanted(&all), &[&source]).await;
    assert!(
        matches!(&*failure, TransferError::Broken { at, attempts: 5, .. } if *at == CHUNK as u64),
        "{failure}"
    );
    let broken = breaking(&all, &[CHUNK, 0, 0, 0, 0]);
    let other = Script::of("other", &all);
    let reader = world.open(&wanted(&all), &[&broken, &other]).await.unwrap();
    assert!(read_all(reader).await.0 == all);
    assert_eq!(broken.offsets()[0], CHUNK as u64, "the first transfer's bytes are kept");
    assert_eq!(other.offsets(), [2 * CHUNK as u64]);
}

#[tokio::test]
async fn an_upstream_without_ranges_is_read_past_what_is_there() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = {
        let all = all.clone();
        Script::new("rangeless", move |number, _| {
            let arrival = part(&all, 0);
            Ok(if number == 0 { cut(arrival, 3 * CHUNK + 7) } else { arrival })
        })
    };
    let mut reader = world.open(&wanted(&all), &[&source]).await.unwrap();
    let start = read(&mut reader, 1).await.unwrap();
    let (rest, end) = read_all(reader).await;
    end.unwrap();
    assert!([start, rest].concat() == all, "who has read goes on reading");
    assert_eq!(source.offsets(), [0, 3 * CHUNK as u64 + 7]);
}

#[tokio::test]
async fn a_strong_validator_goes_on_with_what_has_no_digest() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    for (tag, again, whole) in [("a", "a", false), ("b", "b", true), ("c", "d", true)] {
        let (first, body) = feed();
        let source = {
            let (all, body) = (all.clone(), Mutex::new(Some(body)));
            Script::new("tagged", move |_, missing| {
                let mut arrival = part(&all, if whole { 0 } else { missing.offset });
                let body = body.lock().unwrap().take();
                let tag = format!("\"{}\"", if body.is_some() { tag } else { again });
                arrival.body = body.unwrap_or(arrival.body);
                Ok(with_headers(arrival, &[("etag", &tag)]))
            })
        };
        let wanted = Wanted::unpromised(format!("tagged-{tag}").parse().unwrap());
        let mut reader = world.open(&wanted, &[&source]).await.unwrap();
        let fresh = world.open(&wanted, &[]).await.unwrap();
        first.send(all.slice(..3 * CHUNK)).await.unwrap();
        let has_read = read(&mut reader, 1).await.unwrap();
        drop(first);
        let (rest, end) = read_all(reader).await;
        let sent = source.log()[1].validator.as_ref().map(|tag| tag.header().clone());
        assert_eq!(sent.unwrap(), format!("\"{tag}\"").as_str());
        if tag == again {
            end.unwrap();
            assert!([has_read, rest].concat() == all);
            assert_eq!(source.offsets(), [0, 3 * CHUNK as u64]);
        } else {
            assert!(matches!(*end.unwrap_err(), TransferError::Anew), "it is another object now");
            assert_eq!(source.offsets(), [0, 3 * CHUNK as u64, 0]);
        }
        let (got, end) = read_all(fresh).await;
        end.unwrap();
        assert!(got == all, "who has read nothing yet gets the whole of one or the other");
    }
}

#[tokio::test]
async fn without_digest_and_validator_it_begins_anew() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = breaking(&all, &[3 * CHUNK]);
    let wanted = Wanted::unpromised("plain".parse().unwrap());
    let reader = world.open(&wanted, &[&source]).await.unwrap();
    let landed = world.open(&wanted, &[&source]).await.unwrap().landed().await.unwrap();
    assert_eq!(landed.digest, Digest::sha256(&all));
    assert!(read_all(reader).await.0 == all);
    assert_eq!(source.offsets(), [0, 0]);
    // But not for ever.
    let source = breaking(&all, &[CHUNK; 100]);
    let wanted = Wanted::unpromised("hopeless".parse().unwrap());
    let (_, failure) = fail(&world, &wanted, &[&source]).await;
    assert!(matches!(*failure, TransferError::Broken { .. } | TransferError::Anew), "{failure}");
    until(|| world.transfers.under_way() == 0).await;
    assert!(source.log().len() < 15);
}

#[tokio::test]
async fn a_beginning_that_the_upstream_cannot_continue_is_dropped() {
    let (world, all) = (World::new(limits()), bytes(LEN));
    let source = {
        let all = all.clone();
        Script::new("shrunk", move |number, missing| match (number, missing.offset) {
            (0, _) => Ok(cut(part(&all, 0), CHUNK)),
            (_, 0) => Ok(part(&all, 0)),
            _ => Err(SourceError::Unsatisfiable("416".into())),
        })
    };
    let reader = world.open(&wanted(&all), &[&source]).await.unwrap();
    assert_eq!(reader.landed().await.unwrap().digest, Digest::sha256(&all));
    assert_eq!(source.offsets(), [0, CHUNK as u64, 0]);
}

#[tokio::test]
async fn what_nobody_reads_is_finished_if_little_is_missing_and_put_aside_otherwise() {
    let all = bytes(LEN);
    for (unread_bytes, finished) in [(LEN as u64, true), (CHUNK as u64, false)] {
        let world = World::new(Limits { unread_bytes, ..limits() });
        let (source, feed) = fed("one", LEN as u64);
        let mut reader = world.open(&wanted(&all), &[&source]).await.unwrap();
        feed.send(all.slice(..3 * CHUNK)).await.unwrap();
        read(&mut reader, 2 * CHUNK).await.unwrap();
        drop(reader);
        // Nobody takes it where the transfer has ended.
        let _ = feed.send(all.slice(3 * CHUNK..4 * CHUNK)).await;
        let _ = feed.send(all.slice(4 * CHUNK..)).await;
        until(|| world.transfers.under_way() == 0).await;
        assert_eq!(world.has(&Digest::sha256(&all)), finished);
        let rest = Script::of("rest", &all);
        let (got, end) = read_all(world.open(&wanted(&all), &[&rest]).await.unwrap()).await;
        end.unwrap();
        assert!(got == all);
        match finished {
            true => assert!(rest.offsets().is_empty()),
            false => assert!(rest.offsets()[0] >= 3 * CHUNK as u64, "{:?}", rest.offsets()),
        }
    }
}

#[tokio::test]
async fn what_an_earlier_process_left_is_used_if_it_is_right() {
    let all = bytes(LEN);
    for (left, expected) in [
        (all.slice(..CHUNK), vec![CHUNK as u64]),
        (bytes(LEN).slice(1..CHUNK), vec![CHUNK as u64 - 1, 0]),
        (bytes(LEN + 1), vec![0]),
    ] {
        let world = World::new(limits());
        let key = IngestKey::of(&Digest::sha256(&all));
        let mut ingest = world.root.store().ingest(&key, &world.lease).await.unwrap();
        ingest.append(left).await.unwrap();
        ingest.suspend().await.unwrap();
        let source = Script::of("one", &all);
        let reader = world.open(&wanted(&all), &[&source]).await.unwrap();
        let (landed, again) = (reader.landed().await.unwrap(), source.offsets());
        assert_eq!(landed.digest, Digest::sha256(&all));
        assert_eq!(again, expected);
        let pieces: Vec<_> =
            world.open(&wanted(&all), &[]).await.unwrap().into_stream().collect().await;
        assert_eq!(pieces.len(), 1);
    }
}
