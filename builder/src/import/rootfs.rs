//! An image of one layer from the archive of a root file system, as `debootstrap` and `tar` make.
//!
//! The entries are kept as they are and in their order, but written by our own codec: names lose
//! their `./`, times their fractions, extended attributes that belong to the machine are left out.
//! So the same archive gives the same diff ID whatever it is packed with.

use std::io::{self, BufReader, Read, Write};

use boatyard_content::{Expected, Ingest, IngestKey, Lease, Root, StoreError};
use boatyard_oci::{
    Algorithm, Descriptor, DiffId, Hasher, History, ImageConfig, MediaType, Platform,
};
use jiff::Timestamp;
use thiserror::Error;

use super::changes::{ChangeError, apply_changes};
use super::{put, put_image};
use crate::layer::tar::{Archive, Limits, TarError, Writer};
use crate::layer::{Compression, Compressor, DecompressLimits, Decompressor, EntryPath, whiteout};

const BUFFER_BYTES: usize = 256 << 10;

/// How to make an image from a file system.
#[derive(Clone, Debug)]
pub struct RootfsOptions {
    /// What the file system runs on.
    pub platform: Platform,
    /// Instructions such as `CMD ["sh"]`: see [`apply_changes`].
    pub changes: Vec<String>,
    /// What the image's history says.
    pub message: String,
    /// When the image was made.
    pub created: Timestamp,
    /// Threads that compress.
    pub threads: usize,
}

/// Why a file system cannot become an image.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// The stream cannot be read or decompressed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is no archive, or a damaged one.
    #[error("cannot read the archive")]
    Archive(#[from] TarError),
    /// There is nothing in it.
    #[error("the archive is empty")]
    Empty,
    /// A name means something else in a layer.
    #[error(
        "{0} cannot be part of an image: names that start with `.wh.` mark what a layer removes"
    )]
    Reserved(EntryPath),
    /// An entry cannot be copied into the layer.
    #[error("cannot write {path} to the layer")]
    Entry {
        /// Which entry.
        path: EntryPath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The layer cannot be compressed or written.
    #[error("cannot write the layer")]
    Layer(#[source] io::Error),
    /// The store failed.
    #[error("cannot keep the image")]
    Store(#[from] StoreError),
    /// An instruction cannot be applied.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Makes an image from the archive of a root file system, and returns its manifest. The lease
/// holds it; it has no name yet.
///
/// # Errors
/// Where the archive is damaged or an instruction cannot be applied.
pub fn rootfs(
    reader: impl Read,
    root: &Root,
    lease: &Lease,
    options: &RootfsOptions,
) -> Result<Descriptor, RootfsError> {
    let mut config = ImageConfig::scratch(&options.platform);
    apply_changes(&mut config.config, &options.changes)?;
    let (layer, diff_id) = put_layer(reader, root, lease, options.threads)?;
    config.created = Some(options.created);
    config.rootfs.diff_ids = vec![diff_id];
    config.history = vec![History {
        created: Some(options.created),
        comment: options.message.clone(),
        ..History::default()
    }];
    let bytes = config.to_bytes();
    put(root, lease, &bytes)?;
    Ok(put_image(root, lease, Descriptor::of(MediaType::OCI_CONFIG, &bytes), vec![layer])?)
}

/// Puts the layer into the store. What could not be read whole leaves nothing behind.
fn put_layer(
    reader: impl Read,
    root: &Root,
    lease: &Lease,
    threads: usize,
) -> Result<(Descriptor, DiffId), RootfsError> {
    let key = IngestKey::fleeting();
    let ingest = root.store().ingest_blocking(&key, lease)?;
    let (ingest, diff_id) = write_layer(reader, ingest, threads).inspect_err(|_| {
        // The reason matters more; the collector finds what stays.
        let _ = root.store().discard_blocking(&key);
    })?;
    let landed = ingest.commit_blocking(&Expected::any())?;
    let blob = landed.info().clone();
    Ok((Descriptor::new(MediaType::OCI_LAYER_GZIP, blob.digest, blob.size), diff_id))
}

/// Copies the entries into a compressed layer.
fn write_layer(
    reader: impl Read,
    ingest: Ingest,
    threads: usize,
) -> Result<(Ingest, DiffId), RootfsError> {
    let plain = Decompressor::new(reader, threads, DecompressLimits::default())
        .map_err(RootfsError::Read)?;
    let mut archive =
        Archive::new(BufReader::with_capacity(BUFFER_BYTES, plain), Limits::default());
    let compressor = Compressor::new(ingest, Compression::GZIP, threads);
    let compressor = compressor.map_err(RootfsError::Layer)?;
    let hasher = Hasher::new(Algorithm::Sha256);
    let mut writer = Writer::new(Hashing { inner: compressor, hasher });
    let mut any = false;
    while let Some(entry) = archive.next_entry()? {
        if entry.path.components().any(whiteout::is_reserved) {
            return Err(RootfsError::Reserved(entry.path));
        }
        writer
            .append(&entry, &mut archive.content())
            .map_err(|source| RootfsError::Entry { path: entry.path.clone(), source })?;
        any = true;
    }
    if !any {
        return Err(RootfsError::Empty);
    }
    // Whoever writes into a pipe shall not fail because we stop to read.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(RootfsError::Read)?;
    let Hashing { inner, hasher } = writer.finish().map_err(RootfsError::Layer)?;
    let ingest = inner.finish().map_err(RootfsError::Layer)?;
    Ok((ingest, DiffId::new(hasher.finish())))
}

/// Hashes what passes to the compressor.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
