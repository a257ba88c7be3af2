//! Roots and tiny images for the tests of export and import.

use std::io::Write as _;
use std::sync::Arc;

use boatyard_content::local::RootOptions;
use boatyard_content::{Expected, IngestKey, Lease, Root};
use boatyard_oci::{Descriptor, DiffId, ImageConfig, MediaType, Platform};

use super::{RootfsOptions, put, put_image};
use crate::layer::tar::Writer;
use crate::layer::{Compression, Compressor, Entry, EntryPath, Kind};

/// A root of a test's own.
pub(crate) struct World {
    pub(crate) root: Arc<Root>,
    pub(crate) lease: Lease,
    pub(crate) directory: tempfile::TempDir,
}

/// Makes an empty root.
pub(crate) fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
    let lease = root.lease().unwrap();
    World { root, lease, directory }
}

/// Writes an archive of files; a name that ends in a slash is a directory, and a content that
/// starts with `->` or `=>` makes it a symbolic or hard link.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let path = EntryPath::parse(name.as_bytes()).unwrap();
        let link = |target: &[u8]| EntryPath::parse(target).unwrap();
        let kind = match content {
            [b'-', b'>', target @ ..] => Kind::Symlink { target: target.to_vec() },
            [b'=', b'>', target @ ..] => Kind::HardLink { target: link(target) },
            _ if name.ends_with('/') => Kind::Directory,
            _ => Kind::File,
        };
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let mut entry = Entry::new(path, kind, mode);
        if entry.kind == Kind::File {
            entry.size = content.len() as u64;
        }
        writer.append(&entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

/// Packs bytes.
pub(crate) fn pack(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), compression, 1).unwrap();
    compressor.write_all(bytes).unwrap();
    compressor.finish().unwrap()
}

impl World {
    /// Puts an image of these layers, each an archive and how it is packed.
    pub(crate) fn image(&self, layers: &[(Vec<u8>, Compression)]) -> Descriptor {
        let packed = layers.iter().map(|(archive, compression)| {
            let media_type = match compression {
                Compression::None => MediaType::OCI_LAYER,
                Compression::Gzip { .. } => MediaType::OCI_LAYER_GZIP,
                Compression::Zstd { .. } => MediaType::OCI_LAYER_ZSTD,
            };
            (archive.clone(), pack(archive, *compression), media_type)
        });
        self.image_of(&packed.collect::<Vec<_>>())
    }

    /// Puts an image of these layers, each an archive, its packed form, and what that is.
    pub(crate) fn image_of(&self, layers: &[(Vec<u8>, Vec<u8>, MediaType)]) -> Descriptor {
        let mut config = ImageConfig::scratch(&"linux/amd64".parse::<Platform>().unwrap());
        let mut descriptors = Vec::new();
        for (archive, packed, media_type) in layers {
            config.rootfs.diff_ids.push(DiffId::new(boatyard_oci::Digest::sha256(archive)));
            let key = IngestKey::random();
            let mut ingest = self.root.store().ingest_blocking(&key, &self.lease).unwrap();
            ingest.write_all(packed).unwrap();
            ingest.commit_blocking(&Expected::any()).unwrap();
            descriptors.push(Descriptor::of(media_type.clone(), packed));
        }
        let bytes = config.to_bytes();
        put(&self.root, &self.lease, &bytes).unwrap();
        let config = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
        put_image(&self.root, &self.lease, config, descriptors).unwrap()
    }
}

/// Options for an import at a fixed time.
pub(crate) fn rootfs_options() -> RootfsOptions {
    RootfsOptions {
        platform: "linux/amd64".parse().unwrap(),
        changes: vec!["CMD [\"sh\"]".to_owned()],
        message: "Imported from -".to_owned(),
        created: jiff::Timestamp::UNIX_EPOCH,
        threads: 1,
    }
}
