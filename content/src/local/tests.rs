use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boatyard_oci::{Digest, Manifest, MediaType, Raw, Tag};
use bytes::Bytes;

use super::*;
use crate::ingest::{Expected, Growth, IngestKey};
use crate::repository::Space;
use crate::testing::crashing::CrashingDisk;
use crate::testing::faulty::FaultyDisk;
use crate::testing::suite::once_free;
use crate::{Store as _, StoreError, fsck};

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let lease = root.lease().unwrap();
    crate::testing::suite::all(&root.store(), &lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_on_a_disk_that_could_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = fs_err::canonicalize(directory.path()).unwrap();
    let disk = Arc::new(CrashingDisk::new(&path));
    let root = Root::open(&path, RootOptions { disk, ..RootOptions::default() }).unwrap();
    let lease = root.lease().unwrap();
    crate::testing::suite::all(&root.store(), &lease).await;
}

/// What a client does and what was acknowledged to it, in order.
#[derive(Debug, Default)]
struct Acknowledged {
    blobs: Vec<Digest>,
    tag: Option<Digest>,
}

fn manifest_of(config: &Digest, note: &str) -> Raw<Manifest> {
    let text = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": MediaType::OCI_CONFIG, "digest": config, "size": note.len()},
        "layers": [],
        "annotations": {"note": note},
    });
    Manifest::parse(Bytes::from(text.to_string()), &MediaType::OCI_MANIFEST).unwrap()
}

/// Pushes two images under one tag; stops at the first failure.
fn push_twice(root: &Root, told: &mut Acknowledged) -> Result<(), StoreError> {
    let lease = root.lease()?;
    let store = root.store();
    let app = root.repositories().repository(&Space::Hosted, &"team/app".parse().unwrap());
    for note in ["first", "second"] {
        let put = |bytes: &[u8]| {
            let mut ingest = store.ingest_blocking(&IngestKey::random(), &lease)?;
            let (half, rest) = bytes.split_at(bytes.len() / 2);
            let failed = |source| StoreError::Io { doing: "write", source };
            ingest.write_all(half).map_err(failed)?;
            ingest.write_all(rest).map_err(failed)?;
            Ok(ingest.commit_blocking(&Expected::any())?.info().digest.clone())
        };
        let config = put(note.as_bytes())?;
        told.blobs.push(config.clone());
        app.link_blob(&config).map_err(store_error)?;
        let manifest = manifest_of(&config, note);
        told.blobs.push(put(manifest.bytes())?);
        let tag: Tag = "v1".parse().unwrap();
        app.put_manifest(&manifest, &MediaType::OCI_MANIFEST, &[tag]).map_err(store_error)?;
        told.tag = Some(manifest.digest().clone());
    }
    Ok(())
}

fn store_error(error: crate::repository::RepositoryError) -> StoreError {
    match error {
        crate::repository::RepositoryError::Store(error) => error,
        other => panic!("{other}"),
    }
}

/// Everything that was acknowledged is there and whole; nothing is there in part.
fn check(path: &Path, told: &Acknowledged, when: &str) {
    let root =
        Root::open(path, RootOptions::default()).unwrap_or_else(|error| panic!("{when}: {error}"));
    let report = fsck::check(&root, &fsck::FsckOptions::default(), &mut fsck::Nobody).unwrap();
    assert!(report.is_clean(), "{when}: {report:?}");
    for digest in &told.blobs {
        assert!(root.store().stat_blocking(digest).unwrap().is_some(), "{when}: {digest} is lost");
    }
    let app = root.repositories().repository(&Space::Hosted, &"team/app".parse().unwrap());
    let tag = app.tag(&"v1".parse().unwrap()).unwrap();
    if told.tag.is_some() {
        assert!(tag.is_some(), "{when}: the tag is lost");
    }
    if let Some(tag) = tag {
        assert!(app.manifest(&tag).unwrap().is_some(), "{when}: the tag points at nothing");
    }
}

#[test]
fn a_power_cut_before_any_change_loses_nothing_acknowledged_and_shows_nothing_half() {
    let mut cut = 0;
    loop {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root");
        fs_err::create_dir(&path).unwrap();
        let disk = Arc::new(CrashingDisk::new(&fs_err::canonicalize(&path).unwrap()));
        disk.cut_at(cut);
        let options = RootOptions { disk: disk.clone(), ..RootOptions::default() };
        let mut told = Acknowledged::default();
        let finished = match Root::open(&path, options) {
            Ok(root) => push_twice(&root, &mut told).is_ok(),
            Err(_) => false,
        };
        let left = directory.path().join("after");
        disk.crash_into(&left).unwrap();
        check(&left, &told, &format!("power cut before change {cut}"));
        if finished {
            assert!(cut > 40, "only {cut} changes: is the disk by-passed?");
            return;
        }
        cut += 1;
    }
}

#[test]
fn a_full_disk_at_any_change_is_an_error_and_leaves_the_store_whole() {
    for changes in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root");
        drop(Root::open(&path, RootOptions::default()).unwrap());
        let disk = Arc::new(FaultyDisk::after(changes, io::ErrorKind::StorageFull));
        let options = RootOptions { disk: disk.clone(), ..RootOptions::default() };
        let root = Root::open(&path, options).unwrap();
        let mut told = Acknowledged::default();
        let result = push_twice(&root, &mut told);
        check(&path, &told, &format!("full after {changes} changes"));
        match result {
            Ok(()) => return,
            Err(error) => assert!(error.is_no_space(), "{error:?}"),
        }
        disk.heal();
        push_twice(&root, &mut told).unwrap();
        check(&path, &told, "healed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_state_file_means_beginning_anew() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let lease = root.lease().unwrap();
    let key = IngestKey::random();
    for garbage in
        ["", "{}", r#"{"offset":99999,"hashes":[]}"#, r#"{"offset":2,"hashes":[["sha256",[1]]]}"#]
    {
        let mut ingest = root.store().ingest_blocking(&key, &lease).unwrap();
        ingest.write_all(b"abc").unwrap();
        ingest.suspend().await.unwrap();
        fs_err::write(root.layout().ingest(&key).join("state"), garbage).unwrap();
        assert_eq!(root.store().ingest_blocking(&key, &lease).unwrap().offset(), 0, "{garbage}");
    }
}

/// An ingest of which a half was saved and all of it written, by a process that died.
async fn left_behind(root: &Root, key: &IngestKey) -> PathBuf {
    let lease = root.lease().unwrap();
    let mut ingest = root.store().ingest(key, &lease).await.unwrap();
    ingest.announce("a note".into()).await.unwrap();
    ingest.append("saved".into()).await.unwrap();
    ingest.save().await.unwrap();
    ingest.append(", and written".into()).await.unwrap();
    ingest.write_out().await.unwrap();
    ingest.written().wait_for(|written| *written == 18).await.unwrap();
    root.layout().ingest(key)
}

#[tokio::test]
async fn what_was_announced_before_the_machine_restarted_is_cut_to_what_was_saved() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let key = IngestKey::random();
    let note = left_behind(&root, &key).await.join("note");
    assert!(root.store().follow(&key).await.unwrap().is_some());
    let text = fs_err::read_to_string(&note).unwrap();
    let other = if text.starts_with('0') { "1" } else { "0" };
    fs_err::write(&note, format!("{other}{}", &text[1..])).unwrap();
    assert!(root.store().follow(&key).await.unwrap().is_none(), "it may be torn");
    let mut ingest = once_free(&root.store(), &key, &root.lease().unwrap()).await;
    assert_eq!(ingest.offset(), 5);
    ingest.append(" again".into()).await.unwrap();
    let landed = ingest.commit(Expected::any()).await.unwrap();
    assert_eq!(landed.info().digest, Digest::sha256(b"saved again"));
}

#[tokio::test]
async fn a_landing_that_was_cut_short_is_gone_on_with() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let key = IngestKey::random();
    let data = left_behind(&root, &key).await.join("data");
    fs_err::set_permissions(&data, std::fs::Permissions::from_mode(0o444)).unwrap();
    let growing = root.store().follow(&key).await.unwrap().unwrap();
    assert_eq!(growing.growth().unwrap(), Growth::Whole(18));
    let ingest = once_free(&root.store(), &key, &root.lease().unwrap()).await;
    assert_eq!(growing.growth().unwrap(), Growth::Growing(18), "it has a writer again");
    let landed = ingest.commit(Expected::any()).await.unwrap();
    assert_eq!(landed.info().digest, Digest::sha256(b"saved, and written"));
    assert_eq!(growing.growth().unwrap(), Growth::Whole(18));
}
