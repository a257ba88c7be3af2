//! Stories of images that go out. Round trips are with the stories of [`crate::import`].

use fs_err as fs;
use std::collections::BTreeMap;

use super::*;
use crate::import::testing::{tar as archive, world};
use crate::layer::tar::Archive;
use crate::layer::{Compression, Kind, Limits};
use crate::snapshot::{Layers, View, ViewKind};

fn list(bytes: &[u8]) -> Vec<(String, Kind)> {
    let mut archive = Archive::new(bytes, Limits::default());
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        assert_eq!((entry.uid, entry.gid, entry.mtime.seconds), (0, 0, 0));
        entries.push((entry.path.to_string(), entry.kind));
    }
    entries
}

fn source(target: &Descriptor, name: &str) -> Source {
    Source {
        names: vec![name.parse().unwrap()],
        target: target.clone(),
        platform: None,
        annotations: BTreeMap::new(),
    }
}

#[test]
fn archives_are_deterministic_and_hold_what_is_shared_once() {
    let world = world();
    let base = archive(&[("a", b"1")]);
    let first = world.image(&[(base.clone(), Compression::GZIP)]);
    let second = world.image(&[
        (base.clone(), Compression::GZIP),
        (archive(&[("b", b"2")]), Compression::ZSTD),
        (base.clone(), Compression::GZIP),
    ]);
    let sources = [source(&first, "one"), source(&second, "two:x")];
    let store = world.root.store();
    let docker = docker_archive(&store, &sources, Vec::new()).unwrap();
    assert_eq!(docker, docker_archive(&store, &sources, Vec::new()).unwrap());
    let names: Vec<_> = list(&docker).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[0], "/manifest.json");
    assert_eq!(names.iter().filter(|name| name.ends_with(".tar.gz")).count(), 1);
    assert_eq!(names.iter().filter(|name| name.ends_with(".tar")).count(), 1);
    assert_eq!(names.len(), 5);

    let oci = oci_archive(&store, &sources, Vec::new()).unwrap();
    let names: Vec<_> = list(&oci).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..4], ["/oci-layout", "/index.json", "/blobs", "/blobs/sha256"]);
    assert!(names[4..].is_sorted());
    assert_eq!(names.len(), 4 + 2 + 2 + 2, "manifests, configurations and layers");
}

#[test]
fn a_layout_needs_a_directory_of_its_own() {
    let world = world();
    let target = world.image(&[(archive(&[("a", b"1")]), Compression::GZIP)]);
    let directory = world.directory.path().join("layout");
    oci_layout(&world.root.store(), &[source(&target, "app")], &directory).unwrap();
    let index = fs::read_to_string(directory.join("index.json")).unwrap();
    assert!(index.contains(r#""io.containerd.image.name": "docker.io/library/app:latest""#));
    let blob = directory.join("blobs/sha256").join(target.digest.hex());
    assert_eq!(fs::metadata(blob).unwrap().len(), target.size);
    let again = oci_layout(&world.root.store(), &[source(&target, "app")], &directory);
    assert!(matches!(again, Err(ExportError::NotEmpty(_))));
}

#[test]
fn a_file_system_is_what_a_container_would_see() {
    let world = world();
    let target = world.image(&[
        (
            archive(&[
                ("etc/", b""),
                ("etc/gone", b"x"),
                ("etc/kept", b"1"),
                ("etc/link", b"=>etc/kept"),
                ("lib/", b""),
                ("lib/old", b"x"),
                ("sym", b"->etc/kept"),
            ]),
            Compression::GZIP,
        ),
        (
            archive(&[
                ("etc/.wh.gone", b""),
                ("lib/.wh..wh..opq", b""),
                ("lib/new", b"y"),
                ("sym", b"now a file"),
            ]),
            Compression::ZSTD,
        ),
    ]);
    let image = Image::open(&world.root.store(), &target, None).unwrap();
    let view = View::new(ViewKind::Root);
    let layers = Layers::open(world.root.path(), world.lease.clone(), view).unwrap();
    let layers = unpack(&layers, &world.root.store(), &image, 1, &|_| {}).unwrap();
    let flat = tar(&[Root { name: None, layers: &layers }], None, Vec::new()).unwrap();
    let names: Vec<_> = list(&flat).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["/etc", "/etc/kept", "/etc/link", "/lib", "/lib/new", "/sym"]);
    let link = Kind::HardLink { target: crate::layer::EntryPath::parse(b"etc/kept").unwrap() };
    assert_eq!(list(&flat)[2].1, link);

    let directory = world.directory.path().join("out");
    for _ in 0..2 {
        local(&layers, None, &directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join("sym")).unwrap(), "now a file");
        assert_eq!(fs::read_to_string(directory.join("etc/link")).unwrap(), "1");
        assert!(!directory.join("lib/old").exists());
    }
}

#[test]
fn what_is_missing_is_named() {
    let world = world();
    let target = world.image(&[(archive(&[("a", b"1")]), Compression::GZIP)]);
    let image = Image::open(&world.root.store(), &target, None).unwrap();
    let layer = &image.manifest.layers[0].digest;
    fs::remove_file(world.root.layout().blob(layer)).unwrap();
    let sources = [source(&target, "app")];
    let error = docker_archive(&world.root.store(), &sources, Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("the blob {layer} is not in the store"));
}

#[test]
fn a_sink_that_fails_is_an_error_that_names_the_file() {
    let world = world();
    let target = world.image(&[(archive(&[("a", b"1")]), Compression::GZIP)]);
    let mut room = [0; 600];
    let error = docker_archive(&world.root.store(), &[source(&target, "app")], &mut room[..]);
    assert_eq!(error.unwrap_err().to_string(), "cannot write `manifest.json`");
}
