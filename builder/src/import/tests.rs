//! Stories of archives that come in: honest ones, and hostile ones.

use boatyard_oci::{Digest, ImageConfig, MediaType, Platform, Reference};
use std::collections::BTreeMap;

use super::testing::{World, pack, rootfs_options, tar, world};
use super::*;
use crate::export::{Source, docker_archive, oci_archive};
use crate::image::Image;
use crate::layer::Compression;

fn names(names: &[&str]) -> Vec<ImageName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// One file with 1 000 lines of text: something that compresses.
fn base() -> Vec<u8> {
    tar(&[("etc/", b""), ("etc/motd", "hello\n".repeat(1000).as_bytes())])
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let mut config = ImageConfig::scratch(&"linux/amd64".parse::<Platform>().unwrap());
    let ids = layers.iter().map(|layer| DiffId::new(Digest::sha256(layer)));
    config.rootfs.diff_ids = ids.collect();
    config.to_bytes().to_vec()
}

fn load_bytes(world: &World, bytes: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    load(bytes, &world.root, &world.lease)
}

/// Returns how many writes into the store were begun and not ended.
fn left_behind(world: &World) -> usize {
    fs_err::read_dir(world.root.layout().ingests()).map_or(0, Iterator::count)
}

fn refused(files: &[(&str, &[u8])]) -> String {
    let world = world();
    let error = load_bytes(&world, &tar(files)).unwrap_err();
    let spaces = world.root.repositories().spaces().unwrap();
    assert!(spaces.is_empty(), "no image has a name");
    format!("{error}")
}

#[test]
fn both_formats_give_back_the_same_image() {
    let from = world();
    let layers = [(base(), Compression::GZIP), (tar(&[("etc/.wh.motd", b"")]), Compression::None)];
    let target = from.image(&layers);
    let names = names(&["app:1", "registry.example:5000/team/app:latest"]);
    let source = Source {
        names: names.clone(),
        target: target.clone(),
        platform: None,
        annotations: BTreeMap::new(),
    };
    let sources = [source];
    let docker = docker_archive(&from.root.store(), &sources, Vec::new()).unwrap();
    let oci = oci_archive(&from.root.store(), &sources, Vec::new()).unwrap();
    for archive in [docker.clone(), oci, pack(&docker, Compression::ZSTD)] {
        let to = world();
        let loaded = load_bytes(&to, &archive).unwrap();
        assert_eq!(loaded, [Loaded { names: names.clone(), target: target.clone() }]);
        let image = Image::open(&to.root.store(), &loaded[0].target, None).unwrap();
        assert_eq!(image.config.value().rootfs.diff_ids.len(), 2);
        for name in &names {
            let Reference::Tag(tag) = &name.reference else { panic!("{name}") };
            assert_eq!(to.root.images_of(name).tag(tag).unwrap().as_ref(), Some(&target.digest));
        }
        let again = load_bytes(&to, &archive).unwrap();
        assert_eq!(again.len(), 1, "the same call made twice is harmless");
    }
}

#[test]
fn an_image_of_zstd_layers_survives_as_a_docker_archive_with_another_manifest() {
    let from = world();
    let target = from.image(&[(base(), Compression::ZSTD)]);
    let sources = [Source {
        names: names(&["app"]),
        target: target.clone(),
        platform: None,
        annotations: BTreeMap::new(),
    }];
    let archive = docker_archive(&from.root.store(), &sources, Vec::new()).unwrap();
    let to = world();
    let loaded = load_bytes(&to, &archive).unwrap();
    let image = Image::open(&to.root.store(), &loaded[0].target, None).unwrap();
    let before = Image::open(&from.root.store(), &target, None).unwrap();
    assert_eq!(image.id(), before.id());
    assert_eq!(image.manifest.layers[0].media_type, MediaType::OCI_LAYER);
}

#[test]
fn an_index_is_loaded_with_the_images_that_are_there() {
    let from = world();
    let image = from.image(&[(base(), Compression::GZIP)]);
    let mut here = image.clone();
    here.platform = Some("linux/amd64".parse().unwrap());
    let mut absent = Descriptor::of(MediaType::OCI_MANIFEST, b"elsewhere");
    absent.platform = Some("linux/arm64".parse().unwrap());
    let index = boatyard_oci::Index::new(vec![here, absent.clone()]);
    put(&from.root, &from.lease, &index.to_bytes()).unwrap();
    let target = Descriptor::of(MediaType::OCI_INDEX, &index.to_bytes());
    name(&from.root, &from.lease, &target, &names(&["app"])).unwrap();
    assert_eq!(from.root.images_of(&names(&["app"])[0]).manifests().unwrap().len(), 2);

    // Half an index is no index: its one image is written.
    let amd64 = Some("linux/amd64".parse().unwrap());
    let source = Source {
        names: names(&["app"]),
        target: target.clone(),
        platform: amd64,
        annotations: BTreeMap::new(),
    };
    let archive = oci_archive(&from.root.store(), &[source], Vec::new()).unwrap();
    let loaded = load_bytes(&world(), &archive).unwrap();
    assert_eq!(loaded[0].target.digest, image.digest);

    let arm64 = Some("linux/arm64".parse().unwrap());
    let source =
        Source { names: Vec::new(), target, platform: arm64, annotations: BTreeMap::new() };
    let error = oci_archive(&from.root.store(), &[source], Vec::new()).unwrap_err();
    let text = "there is no image for linux/arm64 here, only for linux/amd64";
    assert_eq!(error.to_string(), text);
}

#[test]
fn old_docker_archives_link_layers_that_come_twice_and_list_the_images_last() {
    let layer = base();
    let config = config(&[&layer, &layer]);
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let world = world();
    let archive = tar(&[
        ("a/", b""),
        ("a/VERSION", b"1.0"),
        ("a/layer.tar", &layer),
        ("b/layer.tar", b"->../a/layer.tar"),
        ("c.json", &config),
        ("manifest.json", manifest),
        ("repositories", b"{}"),
    ]);
    let loaded = load_bytes(&world, &archive).unwrap();
    let image = Image::open(&world.root.store(), &loaded[0].target, None).unwrap();
    assert_eq!(image.manifest.layers[0].digest, Digest::sha256(&layer));
    assert_eq!(image.manifest.layers[0], image.manifest.layers[1]);
    let hard = tar(&[
        ("a/layer.tar", &layer),
        ("b/layer.tar", b"=>a/layer.tar"),
        ("c.json", &config),
        ("manifest.json", manifest),
    ]);
    assert_eq!(load_bytes(&world, &hard).unwrap(), loaded);
}

#[test]
fn archives_of_the_first_dockers_are_put_together_from_their_layers() {
    let (below, above) = (base(), tar(&[("x", b"x")]));
    let world = world();
    let archive = tar(&[
        ("1/json", br#"{"id":"1","created":"2014-01-01T00:00:00Z","architecture":"amd64","os":"linux"}"#),
        ("1/layer.tar", &below),
        ("2/json", br#"{"id":"2","parent":"1","config":{"Cmd":["sh"],"Env":null},"container_config":{"Cmd":["/bin/sh","-c","touch x"]}}"#),
        ("2/layer.tar", &above),
        ("repositories", br#"{"old/app":{"1.0":"2"}}"#),
    ]);
    let loaded = load_bytes(&world, &archive).unwrap();
    assert_eq!(loaded[0].names, names(&["old/app:1.0"]));
    let image = Image::open(&world.root.store(), &loaded[0].target, None).unwrap();
    let config = image.config.value();
    assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(config.history[1].created_by, "/bin/sh -c touch x");
    assert_eq!(config.rootfs.diff_ids[1].digest(), &Digest::sha256(&above));
    let circle = [("1/json", &br#"{"parent":"1"}"#[..]), ("repositories", br#"{"a":{"1":"1"}}"#)];
    assert!(refused(&circle).contains("without an end"));
}

#[test]
fn an_image_without_a_name_is_only_held() {
    let layer = base();
    let world = world();
    let archive = tar(&[
        ("l.tar", &layer),
        ("c.json", &config(&[&layer])),
        ("manifest.json", br#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#),
    ]);
    let loaded = load_bytes(&world, &archive).unwrap();
    assert!(loaded[0].names.is_empty());
    assert!(world.root.repositories().spaces().unwrap().is_empty());
}

#[test]
fn hostile_docker_archives_are_refused_with_a_reason() {
    let layer = base();
    let good = config(&[&layer]);
    let item =
        |layer: &str| format!(r#"[{{"Config":"c.json","RepoTags":["a:1"],"Layers":["{layer}"]}}]"#);
    let with = |layer_name: &str, files: &[(&str, &[u8])]| {
        let manifest = item(layer_name);
        let mut all = vec![("c.json", &good[..]), ("manifest.json", manifest.as_bytes())];
        all.extend(files);
        refused(&all)
    };
    assert_eq!(with("l.tar", &[]), "`l.tar` is not in the archive, but manifest.json needs it");
    let outside = "`../../etc/passwd`, which manifest.json names, is no file of the archive";
    assert_eq!(with("../../etc/passwd", &[]), outside);
    let absolute = with("/etc/passwd", &[]);
    assert!(absolute.contains("is not in the archive"), "{absolute}");
    let escaping = with("l.tar", &[("l.tar", b"->../../etc/passwd")]);
    assert!(escaping.contains("which the link `l.tar` names"), "{escaping}");
    let circle = with("l.tar", &[("l.tar", b"->m.tar"), ("m.tar", b"->l.tar")]);
    assert!(circle.contains("is no file of the archive"), "{circle}");
    let other = tar(&[("x", b"y")]);
    assert!(with("l.tar", &[("l.tar", &other)]).contains("but the image's configuration says"));
    let cut = &pack(&layer, Compression::GZIP)[..40];
    assert!(with("l.tar", &[("l.tar", cut)]).contains("cannot be decompressed"));
    let twice = r#"[{"Config":"c.json","Layers":["l.tar","l.tar"]}]"#;
    let count =
        refused(&[("l.tar", &layer), ("c.json", &good), ("manifest.json", twice.as_bytes())]);
    assert_eq!(count, "c.json has 2 layers, and its configuration has 1 diff IDs");
    let bad_name = r#"[{"Config":"c.json","RepoTags":["../A"],"Layers":["l.tar"]}]"#;
    let name =
        refused(&[("l.tar", &layer), ("c.json", &good), ("manifest.json", bad_name.as_bytes())]);
    assert_eq!(name, "the archive calls an image `../A`");
}

#[test]
fn what_is_no_archive_of_images_is_refused() {
    assert!(refused(&[("x", b"y")]).starts_with("this is no archive of images"));
    assert!(refused(&[("manifest.json", b"{")]).contains("cannot understand `manifest.json`"));
    let huge = vec![b' '; 17 << 20];
    let text = refused(&[("manifest.json", &huge)]);
    assert_eq!(text, "`manifest.json` of the archive is larger than 16777216 bytes");
    let cut = tar(&[("layer.tar", &base())]);
    for bytes in [&b"not a tar at all"[..], b"", &[b'x'; 2048], &cut[..1500]] {
        let world = world();
        assert!(load_bytes(&world, bytes).is_err());
        assert_eq!(left_behind(&world), 0);
    }
}

#[test]
fn hostile_layouts_are_refused_with_a_reason() {
    let layout = ("oci-layout", &br#"{"imageLayoutVersion":"1.0.0"}"#[..]);
    let manifest = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
    let index = boatyard_oci::Index::new(vec![manifest.clone()]).to_bytes();
    let index = ("index.json", &index[..]);
    assert!(refused(&[index]).contains("does not say that it is of version 1"));
    let two = ("oci-layout", &br#"{"imageLayoutVersion":"2.0.0"}"#[..]);
    assert!(refused(&[two, index]).contains("does not say that it is of version 1"));
    assert!(refused(&[layout, index]).contains("is not in the archive, but index.json needs it"));
    let path = format!("blobs/sha256/{}", manifest.digest.hex());
    let wrong = refused(&[layout, index, (&path, b"[]")]);
    assert!(wrong.contains("is damaged: its bytes have the digest"), "{wrong}");
    let sized = Descriptor { size: 3, ..manifest };
    let sized = boatyard_oci::Index::new(vec![sized]).to_bytes();
    let size = refused(&[layout, ("index.json", &sized), (&path, b"{}")]);
    assert!(size.contains("has 2 bytes, but index.json says 3"), "{size}");
    // Manifests that can be read in two ways (CVE-2021-41190).
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    assert!(refused(&[layout, ("index.json", both)]).contains("cannot understand `index.json`"));
}

#[test]
fn the_diff_ids_of_a_layout_are_checked_too() {
    let from = world();
    let layer = pack(&base(), Compression::GZIP);
    put(&from.root, &from.lease, &layer.clone().into()).unwrap();
    let config = config(&[b"another layer"]);
    put(&from.root, &from.lease, &config.clone().into()).unwrap();
    let config = Descriptor::of(MediaType::OCI_CONFIG, &config);
    let layers = vec![Descriptor::of(MediaType::OCI_LAYER_GZIP, &layer)];
    let target = put_image(&from.root, &from.lease, config, layers).unwrap();
    let source =
        Source { names: names(&["app"]), target, platform: None, annotations: BTreeMap::new() };
    let archive = oci_archive(&from.root.store(), &[source], Vec::new()).unwrap();
    let error = load_bytes(&world(), &archive).unwrap_err();
    assert!(matches!(error, LoadError::DiffId { .. }), "{error}");
}

#[test]
fn a_file_system_becomes_an_image_whatever_it_is_packed_with() {
    let world = world();
    let plain = tar(&[("./", b""), ("./bin/", b""), ("./bin/sh", b"#!"), ("./sh", b"->bin/sh")]);
    let options = rootfs_options();
    let first = rootfs(&plain[..], &world.root, &world.lease, &options).unwrap();
    let packed = pack(&plain, Compression::ZSTD);
    let second = rootfs(&packed[..], &world.root, &world.lease, &options).unwrap();
    assert_eq!(first, second);
    let image = Image::open(&world.root.store(), &first, None).unwrap();
    let cleaned = tar(&[("bin/", b""), ("bin/sh", b"#!"), ("sh", b"->bin/sh")]);
    let diff_id = DiffId::new(Digest::sha256(&cleaned));
    assert_eq!(image.config.value().rootfs.diff_ids, [diff_id]);
    assert_eq!(image.config.value().config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(image.config.value().history[0].comment, "Imported from -");
}

#[test]
fn what_no_layer_can_hold_is_no_file_system() {
    let world = world();
    let import = |bytes: &[u8]| {
        rootfs(bytes, &world.root, &world.lease, &rootfs_options()).unwrap_err().to_string()
    };
    assert!(import(&tar(&[(".wh.x", b"")])).contains("cannot be part of an image"));
    assert_eq!(import(&tar(&[])), "the archive is empty");
    assert_eq!(import(&[b'x'; 1024]), "cannot read the archive");
    assert_eq!(import(&base()[..1500]), "cannot write /etc/motd to the layer");
    assert_eq!(left_behind(&world), 0);
}
