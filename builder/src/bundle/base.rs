//! What the receiver of a bundle has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use boatyard_content::local::LocalStore;
use boatyard_oci::{Descriptor, Digest, Manifest, MediaType};
use fs_err as fs;
use thiserror::Error;

use super::document::DOCUMENT_BYTES_MAX;
use super::{BundleError, DOCUMENT_TYPE, Document, is_bundle};
use crate::export::oci::Gathered;
use crate::export::{ExportError, Source};
use crate::image::Image;
use crate::layer::tar::{Archive, TarError};
use crate::layer::{DecompressLimits, Decompressor, Kind, Limits};

const LINE_BYTES_MAX: u64 = 4096;
/// Of a tar: its first header.
const BLOCK_BYTES: u64 = 512;
const BUFFER_BYTES: usize = 256 << 10;

/// The blobs that a receiver has, and which of them are layers that deltas can be made against.
#[derive(Clone, Debug, Default)]
pub struct Base {
    blobs: BTreeMap<Digest, String>,
    layers: Vec<Digest>,
}

/// Why a file does not say what a receiver has.
#[derive(Debug, Error)]
pub enum BaseError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is a damaged archive.
    #[error("cannot read {}", path.display())]
    Archive {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TarError,
    },
    /// It is an archive that names no blobs.
    #[error("{} is no archive with an OCI layout: it does not say which digests it has", .0.display())]
    NoLayout(PathBuf),
    /// It is a bundle that says nothing sensible.
    #[error("cannot use the bundle {}", path.display())]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: BundleError,
    },
    /// A line of a list does not begin with a digest.
    #[error("{}:{line}: a list of `boatyard save --list` has a digest in each line", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl Base {
    /// Adds an image of the store, all that it consists of.
    ///
    /// # Errors
    /// Where it is not whole.
    pub fn add_image(
        &mut self,
        store: &LocalStore,
        image: &Source,
        of: &str,
    ) -> Result<(), ExportError> {
        let gathered = Gathered::of(store, std::slice::from_ref(image))?;
        for digest in gathered.blobs.keys() {
            self.add(digest.clone(), of);
        }
        gathered.blobs.values().for_each(|descriptor| self.add_layers(store, descriptor));
        Ok(())
    }

    /// Adds what a file says: a list of digests, one in each line, or an archive that was or will be
    /// loaded there.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn add_file(&mut self, path: &Path) -> Result<(), BaseError> {
        let read = |source| BaseError::Read { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(read)?;
        let plain = Decompressor::new(file, 1, DecompressLimits::default()).map_err(read)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, plain);
        let mut start = Vec::new();
        (&mut reader).take(BLOCK_BYTES).read_to_end(&mut start).map_err(read)?;
        if start.get(257..262) == Some(b"ustar") {
            self.add_archive(path)
        } else {
            self.add_list(path, io::Cursor::new(start).chain(reader))
        }
    }

    /// Says that an image of the store is one to make deltas against, if the receiver has it.
    pub fn know(&mut self, store: &LocalStore, manifest: &Descriptor) {
        if self.has(&manifest.digest) {
            self.add_layers(store, manifest);
        }
    }

    /// Says whether the receiver has a blob.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// Returns what a blob of the base is of.
    pub(super) fn of(&self, digest: &Digest) -> Option<&str> {
        self.blobs.get(digest).map(String::as_str)
    }

    /// Returns the layers to make deltas against.
    pub(super) fn layers(&self) -> &[Digest] {
        &self.layers
    }

    fn add(&mut self, digest: Digest, of: &str) {
        self.blobs.entry(digest).or_insert_with(|| of.to_owned());
    }

    fn add_layers(&mut self, store: &LocalStore, manifest: &Descriptor) {
        if !manifest.media_type.is_image_manifest() {
            return;
        }
        // What is no image, or not whole, is no help and no harm.
        let Ok(image) = Image::open(store, manifest, None) else { return };
        let known: BTreeSet<Digest> = self.layers.iter().cloned().collect();
        let new = image.layers().map(|(layer, _)| layer.digest.clone());
        self.layers
            .extend(new.filter(|layer| self.blobs.contains_key(layer) && !known.contains(layer)));
    }

    fn add_list(&mut self, path: &Path, mut reader: impl BufRead) -> Result<(), BaseError> {
        let read = |source| BaseError::Read { path: path.to_owned(), source };
        let of = path.display().to_string();
        for number in 1.. {
            let mut line = Vec::new();
            if (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(read)? == 0 {
                break;
            }
            let wrong = || BaseError::Line { path: path.to_owned(), line: number };
            let line = std::str::from_utf8(&line).map_err(|_| wrong())?;
            let mut words = line.split_whitespace();
            let Some(word) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let digest = word.parse().map_err(|_| wrong())?;
            self.add(digest, words.last().unwrap_or(&of));
        }
        Ok(())
    }

    fn add_archive(&mut self, path: &Path) -> Result<(), BaseError> {
        let of = path.display().to_string();
        let mut names = Vec::new();
        let index = scan(path, "index.json", |name| names.extend(blob(name)))?;
        let index = index.ok_or_else(|| BaseError::NoLayout(path.to_owned()))?;
        let damaged = |source: BundleError| BaseError::Bundle { path: path.to_owned(), source };
        let json = |error: boatyard_oci::manifest::ManifestError| {
            damaged(BundleError::Document(error.into()))
        };
        let index = Manifest::parse(index.into(), &MediaType::OCI_INDEX).map_err(json)?;
        let Some(listed) = index.value().manifests().iter().find(|listed| is_bundle(listed)) else {
            names.into_iter().for_each(|digest| self.add(digest, &of));
            return Ok(());
        };
        let missing = |digest: &Digest| {
            let text = format!("{digest} is not in it");
            damaged(BundleError::Document(text.into()))
        };
        let manifest = scan(path, &name(&listed.digest), |_| {})?;
        let manifest = manifest.ok_or_else(|| missing(&listed.digest))?;
        let manifest =
            Manifest::parse_expecting(manifest.into(), &listed.media_type, &listed.digest);
        let manifest = manifest.map_err(json)?;
        let Manifest::Image(manifest) = manifest.value() else {
            return Err(missing(&listed.digest));
        };
        let config = &manifest.config;
        let document = scan(path, &name(&config.digest), |_| {})?;
        let document = document
            .filter(|_| config.media_type == DOCUMENT_TYPE)
            .ok_or_else(|| missing(&config.digest))?;
        let document = Document::parse(&document).map_err(damaged)?;
        document.provides.into_iter().for_each(|digest| self.add(digest, &of));
        Ok(())
    }
}

fn name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Returns the digest that a file of a layout has as its name.
fn blob(name: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(name).ok()?.strip_prefix("blobs/")?;
    let (algorithm, hex) = text.split_once('/')?;
    Digest::from_parts(algorithm.parse().ok()?, hex).ok()
}

/// Reads one file of an archive, and shows the names of all.
fn scan(
    path: &Path,
    wanted: &str,
    mut see: impl FnMut(&[u8]),
) -> Result<Option<Vec<u8>>, BaseError> {
    let read = |source| BaseError::Read { path: path.to_owned(), source };
    let archive = |source| BaseError::Archive { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(read)?;
    file.rewind().map_err(read)?;
    let plain = Decompressor::new(file, 1, DecompressLimits::default()).map_err(read)?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, plain);
    let mut tar = Archive::new(reader, Limits::default());
    let mut found = None;
    while let Some(entry) = tar.next_entry().map_err(archive)? {
        if entry.kind != Kind::File {
            continue;
        }
        see(entry.path.as_bytes());
        if entry.path.as_bytes() == wanted.as_bytes() {
            let mut bytes = Vec::new();
            let most = DOCUMENT_BYTES_MAX as u64;
            tar.content().take(most).read_to_end(&mut bytes).map_err(read)?;
            found = Some(bytes);
        }
    }
    Ok(found)
}
