use boatyard_oci::Digest;

use super::*;
use crate::cache::testing::record;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A ledger of steps, each with a layer and a blob of its own.
fn ledger(texts: &[&str], used: &str) -> Ledger {
    let mut ledger = Ledger::default();
    for text in texts {
        let record = record(1, text);
        let blob = Descriptor::new(
            MediaType::OCI_LAYER_GZIP,
            Digest::sha256(format!("{text} packed").as_bytes()),
            77,
        );
        ledger.layers.push(SharedLayer {
            diff_id: record.layer.diff_id.clone(),
            times: TimePolicy::AsMade,
            chosen: Chosen::None,
            blobs: vec![SharedBlob { encoding: "gzip-4".to_owned(), blob }],
        });
        let (keys, used) = (vec![record.key()], Some(time(used)));
        ledger.records.push(SharedRecord { keys, used, record });
    }
    ledger
}

fn texts(ledger: &Ledger) -> Vec<&str> {
    let mut texts: Vec<&str> =
        ledger.records.iter().map(|shared| shared.record.text.as_str()).collect();
    texts.sort_unstable();
    texts
}

const DAY: &str = "2026-01-02T00:00:00Z";

#[test]
fn it_is_read_as_it_was_written() {
    let written = ledger(&["RUN a", "RUN b"], DAY);
    let read = Ledger::from_bytes(&written.to_bytes()).unwrap();
    assert_eq!(texts(&read), ["RUN a", "RUN b"]);
    assert_eq!(read.to_bytes(), written.to_bytes());
    assert_eq!(Ledger::from_text(&written.to_text()).unwrap(), read);
    let manifest = read.manifest(&read.to_bytes(), "main").unwrap();
    let Manifest::Image(manifest) = manifest.value() else { unreachable!("it is no index") };
    assert_eq!(manifest.layers.len(), 2);
    let config = Ledger::of_manifest(manifest).unwrap().unwrap();
    assert_eq!(config.digest, Digest::sha256(&read.to_bytes()));
}

#[test]
fn two_machines_add_up_in_any_order() {
    let (one, other) = (ledger(&["RUN a", "RUN b"], DAY), ledger(&["RUN b", "RUN c"], DAY));
    let (mut first, mut second) = (one.clone(), other.clone());
    first.merge(&other);
    second.merge(&one);
    assert_eq!(texts(&first), ["RUN a", "RUN b", "RUN c"]);
    assert_eq!(first.to_bytes(), second.to_bytes());
    // The later record of a step counts.
    let mut later = ledger(&["RUN a"], DAY);
    later.records[0].record.created = time("2026-02-02T00:00:00Z");
    later.records[0].record.took_ms = 9;
    first.merge(&later);
    later.merge(&one);
    for merged in [first, later] {
        let step = merged.records.iter().find(|shared| shared.record.text == "RUN a").unwrap();
        assert_eq!(step.record.took_ms, 9);
    }
}

#[test]
fn what_nobody_used_for_long_goes_with_its_layers() {
    let mut all = ledger(&["RUN old"], DAY);
    all.merge(&ledger(&["RUN new"], "2026-03-01T00:00:00Z"));
    all.prune(time("2026-03-02T00:00:00Z"), SignedDuration::from_hours(24 * 14));
    assert_eq!(texts(&all), ["RUN new"]);
    assert_eq!((all.layers.len(), all.blobs().len()), (1, 1));
    // Who uses it again keeps it.
    let mut again = ledger(&["RUN old"], DAY);
    again.merge(&ledger(&["RUN old"], "2026-03-01T00:00:00Z"));
    again.prune(time("2026-03-02T00:00:00Z"), SignedDuration::from_hours(24 * 14));
    assert_eq!(texts(&again), ["RUN old"]);
}

/// Returns what is left of a ledger that somebody changed.
fn left_of(change: impl FnOnce(&mut Ledger)) -> usize {
    let mut ledger = ledger(&["RUN a"], DAY);
    change(&mut ledger);
    Ledger::from_bytes(&ledger.to_bytes()).unwrap().records.len()
}

#[test]
fn what_does_not_hold_together_is_left_out() {
    assert_eq!(left_of(|_| {}), 1);
    // A record under another's key only.
    assert_eq!(left_of(|all| all.records[0].keys = vec![record(1, "RUN x").key()]), 0);
    assert_eq!(left_of(|all| all.layers.clear()), 0);
    assert_eq!(left_of(|all| all.layers[0].blobs.clear()), 0);
    // An encoding becomes the name of a file.
    for encoding in ["../x", "gzip-../x", "gzip-04", "gzip-", "none", "zstd-3", "gzip-999"] {
        let change = |all: &mut Ledger| all.layers[0].blobs[0].encoding = encoding.to_owned();
        assert_eq!(left_of(change), 0, "{encoding}");
    }
    let html =
        |all: &mut Ledger| all.layers[0].blobs[0].blob.media_type = MediaType::new("text/html");
    assert_eq!(left_of(html), 0);
}

#[test]
fn bombs_and_other_things_are_refused() {
    for bytes in [&b""[..], b"{}", b"\x28\xb5\x2f\xfd"] {
        assert!(Ledger::from_bytes(bytes).is_err());
    }
    let packed = |text: &str| zstd::bulk::compress(text.as_bytes(), 3).unwrap();
    let bomb = packed(&" ".repeat(usize::try_from(UNPACKED_BYTES_MAX).unwrap() + 1));
    assert!(matches!(Ledger::from_bytes(&bomb), Err(LedgerError::TooLarge { .. })));
    let later = Ledger::from_bytes(&packed(r#"{"version":2}"#));
    assert!(matches!(later, Err(LedgerError::Version(2))));
    let many = "{},".repeat(3);
    let wrong = packed(&format!(r#"{{"version":1,"records":[{many}{{}}],"layers":[]}}"#));
    assert!(matches!(Ledger::from_bytes(&wrong), Err(LedgerError::Form(_))));
    let mut ledger = Ledger::default();
    let layer = self::ledger(&["RUN a"], DAY).layers.remove(0);
    ledger.layers = vec![layer; BLOBS_MAX + 1];
    let many = Ledger::from_bytes(&ledger.to_bytes());
    assert!(matches!(many, Err(LedgerError::TooMany { .. })));
}
