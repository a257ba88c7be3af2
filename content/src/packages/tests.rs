use std::time::Duration;

use super::*;
use crate::gc::{GcOptions, collect};
use crate::local::RootOptions;
use crate::testing;

fn root(directory: &Path) -> Arc<Root> {
    Root::open(&directory.join("root"), RootOptions::default()).unwrap()
}

fn new(root: &Root, file: &str, bytes: &[u8]) -> NewFile {
    let lease = root.lease().unwrap();
    NewFile {
        package: "@acme/Widget".to_owned(),
        version: "1.0".to_owned(),
        file: file.to_owned(),
        blob: testing::put(root, &lease, bytes),
        size: bytes.len() as u64,
        metadata: serde_json::json!({"summary": "a thing"}),
        by: "user:alice".to_owned(),
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

#[test]
fn a_version_is_published_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let packages = root.packages().repository("npm", "npm");
    assert_eq!(packages.listing().unwrap().revision(), "");
    let one = new(&root, "widget-1.0.tgz", b"one");
    let Published::New(record) = packages.publish(&one).unwrap() else { panic!() };
    assert_eq!((record.package.as_str(), record.size), ("@acme/Widget", 3));
    assert!(matches!(packages.publish(&one).unwrap(), Published::Same(_)));
    let two = new(&root, "widget-1.0.tgz", b"two");
    let Published::Taken(first) = packages.publish(&two).unwrap() else { panic!() };
    assert_eq!(first.blob, one.blob);
    let absent = NewFile { blob: Digest::sha256(b"absent"), ..new(&root, "other", b"x") };
    assert_eq!(packages.publish(&absent).unwrap(), Published::Absent);
    for bad in ["", "a\nb", &"x".repeat(1025)] {
        let bad = NewFile { file: bad.to_owned(), ..one.clone() };
        assert!(matches!(packages.publish(&bad), Err(PackagesError::Name)));
    }
    let listing = packages.listing().unwrap();
    assert_eq!(listing.get("@acme/Widget").unwrap().files, [Arc::clone(&record)]);
    assert!(Arc::ptr_eq(&listing, &packages.listing().unwrap()));
    // Another process, which has nothing in memory.
    let other = root.packages().all().unwrap().remove(0);
    assert_eq!((other.ecosystem(), other.name()), ("npm", "npm"));
    assert_eq!(other.listing().unwrap().get("@acme/Widget").unwrap().files, [record]);
    assert_eq!(other.listing().unwrap().revision(), listing.revision());
}

#[test]
fn of_two_who_publish_at_once_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let ways: Vec<NewFile> =
        (0..8u8).map(|number| new(&root, "widget-1.0.tgz", &[number])).collect();
    let outcomes: Vec<Published> = std::thread::scope(|scope| {
        let publish = |new| {
            // Each as a process of its own would.
            let packages = root.packages().repository("npm", "npm");
            scope.spawn(move || packages.publish(new).unwrap())
        };
        let threads: Vec<_> = ways.iter().map(publish).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let won = |outcome: &&Published| matches!(outcome, Published::New(_));
    assert_eq!(outcomes.iter().filter(won).count(), 1, "{outcomes:?}");
    let packages = root.packages().repository("npm", "npm");
    let listing = packages.listing().unwrap();
    let kept = &listing.get("@acme/Widget").unwrap().files[0];
    assert!(outcomes.contains(&Published::New(Arc::clone(kept))));
}

#[test]
fn what_is_withdrawn_stays_and_what_is_removed_leaves_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let (packages, other) =
        (root.packages().repository("npm", "npm"), root.packages().repository("npm", "npm"));
    let (a, b) = (new(&root, "a.tgz", b"a"), new(&root, "b.tgz", b"b"));
    packages.publish(&a).unwrap();
    packages.publish(&b).unwrap();
    let of = |packages: &PackageRepository, file: &str| {
        let listing = packages.listing().unwrap();
        listing.get("@acme/Widget")?.file(file).cloned()
    };
    assert!(of(&other, "a.tgz").is_some());
    let name = "@acme/Widget";
    assert_eq!(packages.withdraw(name, "1.0", Some("a.tgz"), Some("broken")).unwrap(), 1);
    assert_eq!(of(&other, "a.tgz").unwrap().withdrawn.as_deref(), Some("broken"));
    assert_eq!(packages.withdraw(name, "1.0", None, None).unwrap(), 2);
    assert_eq!(of(&other, "a.tgz").unwrap().withdrawn, None);
    assert_eq!(packages.remove(name, "1.0", Some("a.tgz"), "user:bob", a.at).unwrap(), 1);
    assert_eq!(packages.remove(name, "1.0", Some("a.tgz"), "user:bob", a.at).unwrap(), 0);
    assert_eq!((of(&packages, "a.tgz"), of(&other, "a.tgz")), (None, None));
    assert_eq!(packages.publish(&a).unwrap(), Published::Removed);
    packages.remove(name, "1.0", None, "user:bob", a.at).unwrap();
    let listing = other.listing().unwrap();
    assert_eq!((listing.packages().count(), listing.get(name).is_some()), (0, true));
}

#[test]
fn packages_hold_their_blobs() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let packages = root.packages().repository("npm", "npm");
    let (kept, gone) = (new(&root, "kept", b"kept"), new(&root, &"x".repeat(300), b"gone"));
    let loose = new(&root, "loose", b"loose");
    packages.publish(&kept).unwrap();
    packages.publish(&gone).unwrap();
    packages
        .change_document("@acme/Widget", "tags", |was| {
            assert_eq!(was, None);
            Some(b"{}".to_vec())
        })
        .unwrap();
    assert_eq!(packages.document("@acme/Widget", "tags").unwrap().as_deref(), Some(&b"{}"[..]));
    let freed = || {
        std::thread::sleep(Duration::from_millis(50));
        let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
        let freed = collect(&root, &options).unwrap().freed;
        freed.into_iter().map(|blob| blob.digest).collect::<Vec<_>>()
    };
    assert_eq!(freed(), [loose.blob]);
    packages.remove("@acme/Widget", "1.0", Some(&gone.file), "user:bob", gone.at).unwrap();
    assert_eq!(freed(), [gone.blob]);
}

#[test]
fn a_record_that_makes_no_sense_holds_its_name_and_its_blob() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    let packages = root.packages().repository("npm", "npm");
    let one = new(&root, "a.tgz", b"one");
    packages.publish(&one).unwrap();
    let place = packages.file(&one.package, &one.version, &one.file);
    let record = place.join(format!("sha256-{}", one.blob.hex()));
    fs_err::write(record, "{").unwrap();
    assert!(matches!(packages.publish(&one), Err(PackagesError::Broken { .. })));
    let again = root.packages().repository("npm", "npm");
    assert_eq!(again.listing().unwrap().packages().count(), 0);
    let mut held = Vec::new();
    root.packages().each(&mut |_, blob| held.push(blob.clone())).unwrap();
    assert_eq!(held, [one.blob]);
}
