//! Builds whose power is cut, or whose disk breaks, before any change: the next build makes what a clean
//! one makes, whatever of the cache's files, which are not synced, the cut took.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod building;

use std::io;
use std::path::Path;
use std::sync::Arc;

use boatyard_content::Root;
use boatyard_content::local::RootOptions;
use boatyard_content::local::disk::RealDisk;
use boatyard_content::testing::crashing::CrashingDisk;
use boatyard_content::testing::faulty::FaultyDisk;
use building::{build_on, context};

/// What a power cut leaves of files that were not synced.
#[derive(Clone, Copy, Debug)]
enum Unsynced {
    Gone,
    Whole,
    Torn,
}

/// Copies the files that a build does not sync.
fn survive(from: &Path, to: &Path, how: Unsynced) {
    let entries = match fs_err::read_dir(from) {
        Ok(entries) => entries,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            return;
        }
    };
    fs_err::create_dir_all(to).unwrap();
    for entry in entries.map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            survive(&path, &to, how);
            continue;
        }
        let bytes = fs_err::read(&path).unwrap();
        let kept = match how {
            Unsynced::Gone => continue,
            Unsynced::Whole => bytes.len(),
            Unsynced::Torn => bytes.len() / 2,
        };
        if !to.exists() {
            fs_err::write(&to, &bytes[..kept]).unwrap();
        }
    }
}

/// How many moments are tried of all.
const MOMENTS: u64 = 9;

#[test]
fn a_build_after_a_power_cut_makes_what_a_clean_one_makes() {
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path());
    let run = |name: &str, cut: Option<u64>| {
        let path = directory.path().join(name);
        fs_err::create_dir(&path).unwrap();
        let path = fs_err::canonicalize(&path).unwrap();
        let disk = Arc::new(CrashingDisk::new(&path));
        if let Some(cut) = cut {
            disk.cut_at(cut);
        }
        let built = build_on(&path, disk.clone(), &context);
        (path, disk, built)
    };
    let (_, disk, clean) = run("clean", None);
    let (clean, changes) = (clean.unwrap(), disk.changes());
    assert!(changes > MOMENTS, "only {changes} changes: is the disk by-passed?");
    let mut cut_short = 0;
    for moment in 0..MOMENTS {
        let cut = moment * changes / MOMENTS;
        let (path, disk, built) = run(&format!("cut-{moment}"), Some(cut));
        cut_short += u64::from(built.is_err());
        for how in [Unsynced::Gone, Unsynced::Whole, Unsynced::Torn] {
            let after = directory.path().join(format!("after-{moment}-{how:?}"));
            disk.crash_into(&after).unwrap();
            for place in ["cache", "contents", "locks"] {
                survive(&path.join(place), &after.join(place), how);
            }
            let next = build_on(&after, Arc::new(RealDisk), &context);
            assert_eq!(next.as_ref(), Ok(&clean), "cut before change {cut}, unsynced {how:?}");
            fs_err::remove_dir_all(&after).unwrap();
        }
        fs_err::remove_dir_all(&path).unwrap();
    }
    assert!(cut_short > MOMENTS / 2, "{cut_short} builds were cut short");
}

#[test]
fn a_build_after_the_disk_failed_makes_what_a_clean_one_makes() {
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path());
    let path = directory.path().join("clean");
    fs_err::create_dir(&path).unwrap();
    let counting = Arc::new(CrashingDisk::new(&fs_err::canonicalize(&path).unwrap()));
    let clean = build_on(&path, counting.clone(), &context).unwrap();
    let step = i64::try_from(counting.changes() / MOMENTS).unwrap();
    let mut failed = 0;
    for changes in (0..).map(|moment| moment * step) {
        let path = directory.path().join(format!("broken-{changes}"));
        drop(Root::open(&path, RootOptions::default()).unwrap());
        let kind =
            if changes / step % 2 == 0 { io::ErrorKind::Other } else { io::ErrorKind::StorageFull };
        let disk = Arc::new(FaultyDisk::after(changes, kind));
        let first = build_on(&path, disk.clone(), &context);
        disk.heal();
        let next = build_on(&path, disk, &context);
        assert_eq!(next.as_ref(), Ok(&clean), "broken after {changes} changes: {first:?}");
        match first {
            Ok(_) => break,
            Err(told) => {
                let below = format!("{}/", path.display());
                assert!(told.contains(&below), "after {changes} changes it names no path: {told}");
                failed += 1;
            }
        }
    }
    assert!(failed > 5, "{failed} builds failed");
}
