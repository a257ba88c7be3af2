use boatyard_oci::{Descriptor, Manifest, MediaType, Reference, Tag};
use bytes::Bytes;

use super::*;
use crate::local::{RootOptions, journal::Followed};

struct World {
    root: Arc<Root>,
    _directory: tempfile::TempDir,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    World { root, _directory: directory }
}

impl World {
    fn repository(&self, name: &str) -> Repository {
        self.root.repositories().repository(&Space::Hosted, &name.parse().unwrap())
    }
}

fn config() -> Descriptor {
    Descriptor::of(MediaType::OCI_CONFIG, b"{}")
}

fn manifest(note: &str, subject: Option<&Raw<Manifest>>) -> Raw<Manifest> {
    let subject = subject.map(|s| {
        serde_json::json!({"mediaType": MediaType::OCI_MANIFEST, "digest": s.digest(), "size": s.size()})
    });
    let mut value = serde_json::json!({
        "schemaVersion": 2, "config": config(), "layers": [], "annotations": {"note": note},
    });
    if let Some(subject) = subject {
        value["subject"] = subject;
    }
    let bytes = Bytes::from(serde_json::to_vec(&value).unwrap());
    Manifest::parse(bytes, &MediaType::OCI_MANIFEST).unwrap()
}

use boatyard_oci::Raw;

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[test]
fn a_manifest_is_put_found_tagged_and_deleted() {
    let world = world();
    let app = world.repository("team/app");
    assert!(!app.exists().unwrap());
    let first = manifest("first", None);
    let mut follower = world.root.journal().follow().unwrap();
    app.put_manifest(&first, &MediaType::OCI_MANIFEST, &[tag("b"), tag("a")]).unwrap();
    let Followed::Events(events) = follower.read().unwrap() else { panic!("a gap") };
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].repository, "hosted/team/app");
    assert!(app.exists().unwrap());
    assert_eq!(app.manifest(first.digest()).unwrap().unwrap().media_type, MediaType::OCI_MANIFEST);
    assert_eq!(app.tag(&tag("a")).unwrap().as_ref(), Some(first.digest()));
    assert_eq!(app.tags(None, 10).unwrap(), [tag("a"), tag("b")]);
    assert_eq!(app.tags(Some("a"), 10).unwrap(), [tag("b")]);
    assert_eq!(app.refs(first.digest()).unwrap(), [config().digest]);

    let second = manifest("second", None);
    app.put_manifest(&second, &MediaType::OCI_MANIFEST, &[tag("a")]).unwrap();
    assert_eq!(app.tags_of(first.digest()).unwrap(), [tag("b")]);
    assert!(app.delete_manifest(first.digest()).unwrap());
    assert!(!app.delete_manifest(first.digest()).unwrap());
    assert_eq!(app.tags(None, 10).unwrap(), [tag("a")]);
    assert!(app.delete_tag(&tag("a")).unwrap());
    assert!(!app.delete_tag(&tag("a")).unwrap());
    assert!(app.manifest(second.digest()).unwrap().is_some());
}

#[test]
fn referrers_are_listed_even_for_a_subject_that_is_not_there() {
    let world = world();
    let app = world.repository("app");
    let subject = manifest("subject", None);
    let referrer = manifest("about it", Some(&subject));
    app.put_manifest(&referrer, &MediaType::OCI_MANIFEST, &[]).unwrap();
    let listed = app.referrers(subject.digest()).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].digest, *referrer.digest());
    assert_eq!(listed[0].artifact_type, Some(MediaType::OCI_CONFIG));
    assert_eq!(listed[0].annotations["note"], "about it");
    app.delete_manifest(referrer.digest()).unwrap();
    assert!(app.referrers(subject.digest()).unwrap().is_empty());
}

#[test]
fn a_blob_that_a_manifest_needs_is_not_unlinked() {
    let world = world();
    let app = world.repository("app");
    let needed = config().digest;
    app.link_blob(&needed).unwrap();
    let only = manifest("x", None);
    app.put_manifest(&only, &MediaType::OCI_MANIFEST, &[]).unwrap();
    let error = app.unlink_blob(&needed).unwrap_err();
    assert!(matches!(error, RepositoryError::BlobReferenced { .. }), "{error}");
    app.delete_manifest(only.digest()).unwrap();
    assert!(app.unlink_blob(&needed).unwrap());
    assert!(!app.unlink_blob(&needed).unwrap());
    assert!(!app.hold_blob(&needed).unwrap());
}

#[test]
fn names_come_in_ascii_order_and_in_pages() {
    let world = world();
    let names = ["a", "a-b", "a.c", "a/b", "a/b/c", "a0", "b/c"];
    for name in names {
        let only = manifest("x", None);
        world.repository(name).put_manifest(&only, &MediaType::OCI_MANIFEST, &[]).unwrap();
    }
    let repositories = world.root.repositories();
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    for page in 1..=names.len() {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let part = repositories.names(&Space::Hosted, after.as_deref(), page).unwrap();
            let Some(last) = part.last() else { break };
            after = Some(last.to_string());
            found.extend(part.iter().map(ToString::to_string));
        }
        assert_eq!(found, sorted, "pages of {page}");
    }
    assert_eq!(repositories.all().unwrap().len(), names.len());
}

#[test]
fn spaces_do_not_mix() {
    let world = world();
    let repositories = world.root.repositories();
    let only = manifest("x", None);
    let spaces = [
        Space::Hosted,
        Space::Mirror("docker.io".to_owned()),
        Space::Images("localhost:5000".parse().unwrap()),
    ];
    for space in &spaces {
        let app = repositories.repository(space, &"app".parse().unwrap());
        app.put_manifest(&only, &MediaType::OCI_MANIFEST, &[]).unwrap();
        assert_eq!(repositories.names(space, None, 9).unwrap().len(), 1);
    }
    assert_eq!(repositories.spaces().unwrap(), spaces);
}

#[test]
fn a_use_is_noted_once_an_hour() {
    let world = world();
    let app = world.repository("app");
    let reference = Reference::Tag(tag("x"));
    assert_eq!(app.last_used(&reference).unwrap(), None);
    app.mark_used(&reference).unwrap();
    let first = app.last_used(&reference).unwrap().unwrap();
    app.mark_used(&reference).unwrap();
    assert_eq!(app.last_used(&reference).unwrap(), Some(first));
}
