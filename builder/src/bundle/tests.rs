//! Stories of bundles: honest ones, and hostile ones.

use std::collections::BTreeMap;

use boatyard_oci::{Descriptor, DiffId, Digest, ImageName, Index, Manifest, MediaType};

use super::document::VERSION;
use super::*;
use crate::export::{Source, oci_archive};
use crate::image::Image;
use crate::import::testing::{World, tar, world};
use crate::import::{LoadError, Loaded, load, name};
use crate::layer::Compression;

/// Bytes that nothing can be found in.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn source(target: &Descriptor) -> Source {
    Source {
        names: vec!["app".parse::<ImageName>().unwrap()],
        target: target.clone(),
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// A layer with one large file, one that changes and one that moves.
fn layer(changed: &str, moved: &str) -> Vec<u8> {
    let large = noise(1, 300_000);
    let mut text = b"a line\n".repeat(20_000);
    text.extend_from_slice(changed.as_bytes());
    text.extend(noise(2, 100_000));
    let same = noise(3, 50_000);
    tar(&[("app/", b""), ("app/large", &large), ("app/text", &text), (moved, &same)])
}

/// An older and a newer image, packed in one way; the receiver has the older one.
struct Story {
    from: World,
    to: World,
    old: Descriptor,
    new: Descriptor,
}

impl Story {
    fn new(compression: Compression) -> Story {
        let (from, to) = (world(), world());
        let below = (tar(&[("base", b"base")]), compression);
        let old = [below.clone(), (layer("one", "x"), compression)];
        let new = [below, (layer("another", "y"), compression)];
        to.image(&old);
        let (old, new) = (from.image(&old), from.image(&new));
        Story { from, to, old, new }
    }

    fn base(&self) -> Base {
        let mut base = Base::default();
        base.add_image(&self.from.root.store(), &source(&self.old), "app:1").unwrap();
        base
    }

    fn bundle(&self) -> (Vec<u8>, Outcome) {
        bundle(&self.from.root, &[source(&self.new)], &self.base(), Vec::new()).unwrap()
    }

    fn load(&self, bytes: &[u8]) -> Result<Vec<Loaded>, LoadError> {
        load(bytes, &self.to.root, &self.to.lease)
    }
}

#[test]
fn a_changed_line_travels_alone_however_the_layer_is_packed() {
    let packings =
        [Compression::None, Compression::GZIP, Compression::Gzip { level: 9 }, Compression::ZSTD];
    for compression in packings {
        let story = Story::new(compression);
        let (bytes, outcome) = story.bundle();
        assert_eq!(outcome.layers.len(), 1, "{outcome:?}");
        assert_eq!(outcome.layers[0].whole, None, "{compression:?}");
        assert_eq!(outcome.left_out.0, 1, "the layer below");
        assert!(bytes.len() < 24 << 10, "{compression:?}: {} bytes, {outcome:?}", bytes.len());
        let loaded = story.load(&bytes).unwrap();
        assert_eq!(loaded[0].target.digest, story.new.digest);
        let image = Image::open(&story.to.root.store(), &loaded[0].target, None).unwrap();
        for (layer, _) in image.layers() {
            assert!(story.to.root.store().open_blocking(&layer.digest).unwrap().is_some());
        }
        assert_eq!(story.load(&bytes).unwrap(), loaded, "the same call made twice is harmless");
        assert_eq!(story.bundle().0, bytes, "the same images give the same bundle");
    }
}

#[test]
fn what_another_tool_packed_travels_whole() {
    use std::io::Write as _;
    let mut story = Story::new(Compression::GZIP);
    let plain = layer("by another", "x");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&plain).unwrap();
    let packed = (plain, encoder.finish().unwrap(), MediaType::OCI_LAYER_GZIP);
    story.new = story.from.image_of(&[packed]);
    let (bytes, outcome) = story.bundle();
    assert_eq!(outcome.layers[0].whole, Some("another tool packed it"));
    assert_eq!(outcome.layers[0].bytes, outcome.layers[0].blob.size);
    assert_eq!(story.load(&bytes).unwrap()[0].target.digest, story.new.digest);
}

#[test]
fn who_lacks_the_base_is_told_what_is_missing() {
    let story = Story::new(Compression::GZIP);
    let (bytes, _) = story.bundle();
    let nobody = world();
    let error = load(&bytes[..], &nobody.root, &nobody.lease).unwrap_err();
    let LoadError::Bundle(BundleError::Base { of, more, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!((of.as_str(), *more), ("app:1", 1));
    assert!(error.to_string().starts_with("the bundle needs sha256:"), "{error}");
    assert!(nobody.root.repositories().spaces().unwrap().is_empty(), "no image has a name");
}

#[test]
fn a_bundle_and_a_list_say_what_a_receiver_has() {
    let story = Story::new(Compression::GZIP);
    name(&story.from.root, &story.from.lease, &story.new, &source(&story.new).names).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    fs_err::write(&path, story.bundle().0).unwrap();
    let mut base = Base::default();
    base.add_file(&path).unwrap();
    assert!(base.has(&story.new.digest) && !base.has(&story.old.digest));
    let image = Image::open(&story.from.root.store(), &story.new, None).unwrap();
    assert!(image.manifest.layers.iter().all(|layer| base.has(&layer.digest)));
    assert!(base.layers().is_empty());
    base.know(&story.from.root.store(), &story.new);
    assert_eq!(base.layers().len(), 2);

    let plain = oci_archive(&story.from.root.store(), &[source(&story.old)], Vec::new()).unwrap();
    fs_err::write(&path, plain).unwrap();
    base.add_file(&path).unwrap();
    assert!(base.has(&story.old.digest));
    let other = Digest::sha256(b"other");
    fs_err::write(&path, format!("# of a machine\n\n{other} app:1\n")).unwrap();
    base.add_file(&path).unwrap();
    assert_eq!(base.of(&other), Some("app:1"));
    fs_err::write(&path, "neither\n").unwrap();
    let error = base.add_file(&path).unwrap_err();
    assert!(matches!(error, BaseError::Line { line: 1, .. }), "{error}");
}

/// A bundle whose document, or delta, somebody changes before it is loaded.
struct Tampering {
    story: Story,
    files: BTreeMap<String, Vec<u8>>,
    manifest: boatyard_oci::ImageManifest,
    image: Descriptor,
}

impl Tampering {
    fn new() -> Tampering {
        let story = Story::new(Compression::GZIP);
        let files = files(&story.bundle().0);
        let index = files["index.json"].clone();
        let index = Manifest::parse(index.into(), &MediaType::OCI_INDEX).unwrap();
        let [image, artifact] = index.value().manifests() else { panic!() };
        assert!(is_bundle(artifact) && !is_bundle(image));
        let manifest = files[&path(&artifact.digest)].clone();
        let manifest = Manifest::parse(manifest.into(), &MediaType::OCI_MANIFEST).unwrap();
        let Manifest::Image(manifest) = manifest.into_value() else { panic!() };
        Tampering { image: image.clone(), story, files, manifest }
    }

    /// Loads what comes of a change, and returns why it is refused.
    fn load(&self, change: &dyn Fn(&mut Document, &mut Vec<u8>)) -> Result<(), String> {
        let mut files = self.files.clone();
        let document = files.remove(&path(&self.manifest.config.digest)).unwrap();
        let mut document = Document::parse(&document).unwrap();
        let honest = document.deltas[0].delta.clone();
        let mut delta = files.remove(&path(&honest)).unwrap();
        change(&mut document, &mut delta);
        if document.deltas[0].delta == honest {
            document.deltas[0].delta = Digest::sha256(&delta);
        }
        let config = document.to_bytes();
        let config_descriptor = Descriptor::of(DOCUMENT_TYPE, &config);
        let manifest = boatyard_oci::ImageManifest {
            config: config_descriptor,
            layers: Vec::new(),
            ..self.manifest.clone()
        };
        let manifest = manifest.to_bytes().to_vec();
        let artifact = Descriptor {
            artifact_type: Some(ARTIFACT_TYPE),
            ..Descriptor::of(MediaType::OCI_MANIFEST, &manifest)
        };
        let index = Index::new(vec![self.image.clone(), artifact]).to_bytes().to_vec();
        files.insert("index.json".to_owned(), index);
        for bytes in [config, manifest, delta] {
            files.insert(path(&Digest::sha256(&bytes)), bytes);
        }
        let files: Vec<_> = files.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
        self.story.load(&tar(&files)).map(drop).map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            text
        })
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Returns the files of an archive.
fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    use std::io::Read as _;
    let mut archive = ::tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let entries = entries.filter(|entry| entry.header().entry_type().is_file()).map(|entry| {
        let mut entry = entry;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    });
    entries.collect()
}

#[test]
fn hostile_bundles_are_refused() {
    let tampering = Tampering::new();
    let refused = |change: &dyn Fn(&mut Document, &mut Vec<u8>), reason: &str| {
        let text = tampering.load(change).unwrap_err();
        assert!(text.contains(reason), "{text}\nshould say: {reason}");
        let spaces = tampering.story.to.root.repositories().spaces().unwrap();
        assert!(spaces.is_empty(), "no image has a name");
    };
    refused(&|document, _| document.version = VERSION + 1, "a newer Boatyard made it");
    let other = || Digest::sha256(b"other");
    refused(&|document, _| document.deltas[0].sources[0] = other(), "does not name among");
    refused(&|document, _| document.deltas[0].packing = "gzip-04".to_owned(), "does not know");
    refused(&|document, _| document.deltas[0].packing = "lzma-1".to_owned(), "does not know");
    refused(&|document, _| document.deltas[0].plain_size += 1, "fewer bytes than it should");
    refused(&|document, _| document.deltas[0].plain_size -= 1, "more bytes than it should");
    refused(&|document, _| document.deltas[0].plain_size = 1 << 40, "would grow to");
    refused(&|document, _| document.deltas[0].diff_id = DiffId::new(other()), "what comes out is");
    refused(&|document, _| document.deltas[0].blob.digest = other(), "what comes out is");
    refused(&|document, _| document.deltas[0].blob.size -= 1, "larger than it should be");
    refused(&|document, _| document.deltas[0].packing = "gzip-12".to_owned(), "");
    refused(&|document, _| document.deltas[0].delta = other(), "is not in the bundle");
    refused(&|document, _| document.deltas[0].sources.clear(), "takes what its sources do not");
    refused(&|_, delta| delta.truncate(40), "ends too early");
    refused(&|_, delta| delta.push(0), "goes on after its end");
    refused(&|_, delta| delta[0] = 0, "is of another form");
    refused(&|_, delta| delta[8..12].fill(0xff), "has a window that is too large");
    refused(&|_, delta| delta[12] ^= 1, "lies about the size of a window");
    refused(&|_, delta| delta[20] ^= 1, "lies about the size of a window");
    refused(&|_, delta| delta[24] ^= 1, "lies about the size of a prefix");
    tampering.load(&|_, _| {}).expect("the test's own archive is honest");
}
