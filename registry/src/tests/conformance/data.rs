//! The kinds of data that the suite pushes, each with the blobs and manifests that it has there.
//!
//! The suite's are random; these are numbered, so that a failure can be had again.

use std::sync::atomic::{AtomicU64, Ordering};

use boatyard_oci::{Algorithm, Digest, MediaType};
use serde_json::{Value, json};

use super::blobs::Blob;

const EXAMPLE_1: &str = "application/vnd.example.oci.conformance.v1";
const EXAMPLE_2: &str = "application/vnd.example.oci.conformance.v2";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCTETS: &str = "application/octet-stream";

/// One kind of data.
pub(super) struct Data {
    pub(super) name: &'static str,
    pub(super) blobs: Vec<Blob>,
    /// In the order in which they are pushed.
    pub(super) manifests: Vec<Pushed>,
    pub(super) tags: Vec<(String, Digest)>,
    /// Subjects, and how the list of their referrers describes one.
    pub(super) referrers: Vec<(Digest, Value)>,
    /// Tags are parameters of the push by digest.
    pub(super) tags_by_parameter: bool,
    /// The manifest's bytes do not hash to its digest.
    pub(super) is_bad: bool,
}

/// A manifest.
pub(super) struct Pushed {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: MediaType,
    pub(super) subject: Option<Digest>,
}

/// What a manifest, or all of an index, is like.
#[derive(Clone)]
struct Shape {
    algorithm: Algorithm,
    architecture: &'static str,
    artifact_type: Option<&'static str>,
    /// The config is `{}` instead of an image's.
    empty_config: bool,
    layers: usize,
    layer_type: &'static str,
    layer_bytes: Option<&'static [u8]>,
    annotations: Value,
    /// It has an annotation that no other has.
    unique: bool,
    subject: Option<Value>,
    /// Descriptors have the bytes within them.
    data: bool,
    /// There is a field that the specification does not know.
    extra: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            algorithm: Algorithm::Sha256,
            architecture: "amd64",
            artifact_type: None,
            empty_config: false,
            layers: 2,
            layer_type: LAYER_GZIP,
            layer_bytes: None,
            annotations: Value::Null,
            unique: false,
            subject: None,
            data: false,
            extra: false,
        }
    }
}

/// Returns an artifact's shape, with one layer.
fn artifact(artifact_type: &'static str, layer_type: &'static str) -> Shape {
    Shape {
        artifact_type: Some(artifact_type),
        empty_config: true,
        layers: 1,
        layer_type,
        ..Shape::default()
    }
}

/// Returns the shape of an artifact that says something about a subject.
fn referrer(artifact_type: &'static str, layer_type: &'static str, subject: &Value) -> Shape {
    Shape {
        annotations: json!({ "org.opencontainers.conformance": "hello conformance test" }),
        unique: true,
        subject: Some(subject.clone()),
        ..artifact(artifact_type, layer_type)
    }
}

/// Returns all kinds of data, in the suite's order.
pub(super) fn all() -> Vec<Data> {
    let sha512 = || Shape { algorithm: Algorithm::Sha512, ..Shape::default() };
    vec![
        Data::image("image", Some("image"), &Shape::default()),
        Data::image(
            "image-uncompressed",
            Some("image-uncompressed"),
            &Shape { layer_type: LAYER, ..Shape::default() },
        ),
        Data::image("large-manifest", Some("large-manifest"), &large()),
        Data::index("index", Some("index"), &Shape::default()),
        nested_index(),
        empty_index(),
        Data::image("artifact", Some("artifact"), &artifact(EXAMPLE_1, EXAMPLE_1)),
        Data::index("artifact-index", Some("artifact-index"), &artifact(EXAMPLE_1, EXAMPLE_1)),
        Data::image(
            "artifact-without-layers",
            Some("artifact-without-layers"),
            &Shape { layer_bytes: Some(b"{}"), ..artifact(EXAMPLE_1, EMPTY) },
        ),
        artifacts_with_subject(),
        index_with_subject(),
        missing_subject(),
        Data::image("data-field", Some("data-field"), &Shape { data: true, ..Shape::default() }),
        non_distributable_layers(),
        Data::index(
            "custom-fields",
            Some("custom-fields"),
            &Shape { extra: true, ..Shape::default() },
        ),
        Data::image("no-layers", Some("no-layers"), &Shape { layers: 0, ..Shape::default() }),
        Data::index("sha512", None, &sha512()),
        tags_by_parameter("tag-param-sha256", &Shape::default()),
        tags_by_parameter("tag-param-sha512", &sha512()),
        bad_digest_image(),
    ]
}

/// Returns an image whose manifest has 3.9 MB.
fn large() -> Shape {
    let annotation = |n| (format!("large-annotation-{n}"), Value::from("A".repeat(10_000)));
    Shape { annotations: Value::Object((0..390).map(annotation).collect()), ..Shape::default() }
}

fn nested_index() -> Data {
    let mut data = Data::new("nested-index");
    let children = [data.add_index(&Shape::default()), data.add_index(&Shape::default())];
    let index = data.add_list(&children, &Shape::default());
    data.tag("index-of-index", &index);
    data
}

fn empty_index() -> Data {
    let mut data = Data::new("empty-index");
    let index = data.add_list(&[], &Shape::default());
    data.tag("index", &index);
    data
}

fn artifacts_with_subject() -> Data {
    let mut data = Data::new("artifacts-with-subject");
    let subject = data.add_image(&Shape::default());
    data.tag("image", &subject);
    data.add_image(&Shape { subject: Some(subject.clone()), ..Shape::default() });
    let one = data.add_image(&referrer(EXAMPLE_1, EXAMPLE_1, &subject));
    data.tag("tagged-artifact1", &one);
    let two = data.add_image(&referrer(EXAMPLE_2, OCTETS, &subject));
    data.tag("tagged-artifact2", &two);
    data
}

fn index_with_subject() -> Data {
    let mut data = Data::new("index-with-subject");
    let subject = data.add_index(&Shape::default());
    data.tag("index", &subject);
    let index = data.add_index(&referrer(EXAMPLE_1, EXAMPLE_1, &subject));
    data.tag("tagged-artifact", &index);
    data
}

fn missing_subject() -> Data {
    let mut data = Data::new("missing-subject");
    let missing = descriptor(&MediaType::OCI_MANIFEST, &Digest::sha256(b"missing content"), 123);
    let artifact = data.add_image(&referrer(EXAMPLE_1, EXAMPLE_1, &missing));
    data.tag("tagged-artifact", &artifact);
    data
}

/// Returns an image of which two layers are never pushed: they say where they can be had.
fn non_distributable_layers() -> Data {
    let mut data = Data::new("non-distributable-layers");
    let shape = Shape::default();
    let mut layers: Vec<Value> = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ]
    .iter()
    .map(|media_type| {
        let digest = Digest::sha256(&bytes(256));
        let url = format!("https://store.example.com/blobs/sha256/{}", digest.hex());
        json!({ "mediaType": media_type, "digest": digest, "size": 12345, "urls": [url] })
    })
    .collect();
    layers.push(data.add_blob(LAYER_GZIP, bytes(300), &shape));
    let config = data.add_config(&shape);
    let manifest = data.add_manifest(&config, &layers, &shape);
    data.tag("non-distributable-image", &manifest);
    data
}

/// Returns an index each of whose manifests gets a tag with its push, and the last one two.
fn tags_by_parameter(name: &'static str, shape: &Shape) -> Data {
    let mut data = Data::index(name, Some(name), shape);
    data.tags_by_parameter = true;
    let tagged = data.manifests.iter().enumerate();
    data.tags.extend(tagged.map(|(n, manifest)| (format!("{name}-{n}"), manifest.digest.clone())));
    data
}

fn bad_digest_image() -> Data {
    let mut data = Data::image("bad-digest-image", None, &Shape::default());
    data.manifests[0].bytes.extend_from_slice(b"  ");
    data.is_bad = true;
    data
}

impl Data {
    pub(super) fn new(name: &'static str) -> Data {
        Data {
            name,
            blobs: Vec::new(),
            manifests: Vec::new(),
            tags: Vec::new(),
            referrers: Vec::new(),
            tags_by_parameter: false,
            is_bad: false,
        }
    }

    fn image(name: &'static str, tag: Option<&str>, shape: &Shape) -> Data {
        let mut data = Data::new(name);
        let image = data.add_image(shape);
        tag.into_iter().for_each(|tag| data.tag(tag, &image));
        data
    }

    /// Returns an image with one layer, of which only the blobs are pushed as they should be.
    pub(super) fn small_image(name: &'static str) -> Data {
        Data::image(name, None, &Shape { layers: 1, ..Shape::default() })
    }

    fn index(name: &'static str, tag: Option<&str>, shape: &Shape) -> Data {
        let mut data = Data::new(name);
        let index = data.add_index(shape);
        tag.into_iter().for_each(|tag| data.tag(tag, &index));
        data
    }

    fn tag(&mut self, tag: &str, manifest: &Value) {
        let digest = manifest["digest"].as_str().unwrap().parse().unwrap();
        self.tags.push((tag.to_owned(), digest));
    }

    fn add_blob(&mut self, media_type: &str, bytes: Vec<u8>, shape: &Shape) -> Value {
        let blob = Blob::new(shape.algorithm, bytes);
        let mut described = descriptor(&MediaType::new(media_type), &blob.digest, blob.bytes.len());
        if shape.data {
            described["data"] = base64(&blob.bytes).into();
        }
        if self.blobs.iter().all(|known| known.digest != blob.digest) {
            self.blobs.push(blob);
        }
        described
    }

    /// Adds a config. Those of one platform are the same blob.
    fn add_config(&mut self, shape: &Shape) -> Value {
        let mut config = json!({
            "author": "OCI Conformance Test",
            "architecture": shape.architecture,
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(b"")] },
        });
        if shape.extra {
            config["org.example.custom"] = number().into();
        }
        self.add_blob(CONFIG, config.to_string().into_bytes(), shape)
    }

    fn add_image(&mut self, shape: &Shape) -> Value {
        let mut layers = Vec::new();
        for _ in 0..shape.layers {
            let content = shape.layer_bytes.map_or_else(|| bytes(300), <[u8]>::to_vec);
            layers.push(self.add_blob(shape.layer_type, content, shape));
        }
        let config = match shape.empty_config {
            true => self.add_blob(EMPTY, b"{}".to_vec(), shape),
            false => self.add_config(shape),
        };
        self.add_manifest(&config, &layers, shape)
    }

    fn add_manifest(&mut self, config: &Value, layers: &[Value], shape: &Shape) -> Value {
        let artifact_type = shape.artifact_type.map_or(config["mediaType"].clone(), Value::from);
        let properties = json!({ "config": config, "layers": layers });
        self.add(&MediaType::OCI_MANIFEST, properties, artifact_type, shape)
    }

    /// Adds images for two platforms and their index.
    fn add_index(&mut self, shape: &Shape) -> Value {
        let children = ["amd64", "arm64"].map(|architecture| {
            let mut child = self.add_image(&Shape { architecture, ..shape.clone() });
            child["platform"] = json!({ "os": "linux", "architecture": architecture });
            child
        });
        self.add_list(&children, shape)
    }

    fn add_list(&mut self, children: &[Value], shape: &Shape) -> Value {
        let artifact_type = shape.artifact_type.map_or(Value::Null, Value::from);
        self.add(&MediaType::OCI_INDEX, json!({ "manifests": children }), artifact_type, shape)
    }

    /// Adds a manifest or an index, and returns its descriptor.
    fn add(
        &mut self,
        media_type: &MediaType,
        mut properties: Value,
        listed_as: Value,
        shape: &Shape,
    ) -> Value {
        properties["schemaVersion"] = 2.into();
        properties["mediaType"] = media_type.as_str().into();
        if let Some(artifact_type) = shape.artifact_type {
            properties["artifactType"] = artifact_type.into();
        }
        let mut annotations = shape.annotations.clone();
        if shape.unique {
            annotations[format!("org.example.{}", number())] = number().to_string().into();
        }
        if !annotations.is_null() {
            properties["annotations"] = annotations.clone();
        }
        if let Some(subject) = &shape.subject {
            properties["subject"] = subject.clone();
        }
        if shape.extra {
            properties["org.example.custom"] = number().to_string().into();
        }
        let bytes = properties.to_string().into_bytes();
        let digest = Digest::of(shape.algorithm, &bytes);
        let described = descriptor(media_type, &digest, bytes.len());
        let digest_of = |value: &Value| value["digest"].as_str().unwrap().parse().unwrap();
        let subject: Option<Digest> = shape.subject.as_ref().map(digest_of);
        if let Some(subject) = &subject {
            let mut listed = described.clone();
            if !listed_as.is_null() {
                listed["artifactType"] = listed_as;
            }
            if !annotations.is_null() {
                listed["annotations"] = annotations;
            }
            self.referrers.push((subject.clone(), listed));
        }
        self.manifests.push(Pushed { digest, bytes, media_type: media_type.clone(), subject });
        described
    }
}

fn descriptor(media_type: &MediaType, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Returns bytes that are no others'.
pub(super) fn bytes(len: usize) -> Vec<u8> {
    let seed = Digest::sha256(&number().to_le_bytes());
    seed.hex().bytes().cycle().take(len).collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}
