//! The files of an archive: small documents in memory, everything else in the store.
//!
//! A blob is hashed as it comes, and where it is compressed what comes out of it too, so that a
//! layer's diff ID is known before it is known that the file is a layer. Links (`docker save`
//! wrote one for a layer that it had written before) are kept as what they say and followed
//! within the archive only.

use std::collections::HashMap;
use std::io::{self, BufReader, Cursor, Read, Write as _};

use boatyard_content::{BlobInfo, Expected, Ingest, IngestKey, Lease, Root, StoreError};
use boatyard_oci::{Algorithm, Descriptor, DiffId, Digest, Hasher, MediaType};
use bytes::Bytes;

use super::LoadError;
use crate::layer::decompress::Format;
use crate::layer::tar::{Archive as Tar, Limits};
use crate::layer::{DecompressLimits, Decompressor, EntryPath, Kind};

/// All documents together: `docker save` of a thousand images has less than one of them.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Files, directories and links: a thousand images of a hundred layers.
const ENTRIES_MAX: u64 = 1_000_000;
/// Links that lead to links.
const LINKS_MAX: usize = 16;
const MAGIC_BYTES: u64 = 8;
const BUFFER_BYTES: usize = 256 << 10;

/// A file of the archive that is a blob of the store now.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Its path in the archive.
    pub(super) path: String,
    pub(super) blob: BlobInfo,
    format: Format,
    /// The digest of what comes out of it, or why nothing does.
    unpacked: Result<DiffId, String>,
}

/// What was read from an archive.
#[derive(Debug, Default)]
pub(super) struct Archive {
    documents: HashMap<EntryPath, Bytes>,
    files: HashMap<EntryPath, Stored>,
    by_digest: HashMap<Digest, EntryPath>,
    links: HashMap<EntryPath, EntryPath>,
    /// Blobs that a bundle's deltas gave.
    restored: HashMap<Digest, Stored>,
    document_bytes: u64,
}

/// Reads an archive to its end.
pub(super) fn read(reader: impl Read, root: &Root, lease: &Lease) -> Result<Archive, LoadError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let plain =
        Decompressor::new(reader, threads, DecompressLimits::default()).map_err(LoadError::Read)?;
    let limits = Limits { entries_max: ENTRIES_MAX, ..Limits::default() };
    let mut tar = Tar::new(BufReader::with_capacity(BUFFER_BYTES, plain), limits);
    let mut archive = Archive::default();
    while let Some(entry) = tar.next_entry()? {
        let path = entry.path;
        match entry.kind {
            Kind::File if is_document(&path) => archive.keep(path, &mut tar.content())?,
            Kind::File => {
                let stored = store(&path, &mut tar.content(), root, lease)?;
                archive.by_digest.insert(stored.blob.digest.clone(), path.clone());
                archive.files.insert(path, stored);
            }
            Kind::HardLink { target } => drop(archive.links.insert(path, target)),
            Kind::Symlink { target } => archive.link(path, &target)?,
            // Directories need no entry, and nothing else has a meaning here.
            _ => {}
        }
    }
    // Whoever writes into a pipe shall not fail because we stop to read.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(LoadError::Read)?;
    Ok(archive)
}

/// Tells documents from blobs by their names.
fn is_document(path: &EntryPath) -> bool {
    let top = matches!(
        path.as_bytes(),
        b"manifest.json" | b"index.json" | b"oci-layout" | b"repositories"
    );
    top || matches!(path.name(), Some(b"json" | b"VERSION"))
}

impl Archive {
    /// Returns a document by its path.
    pub(super) fn document(&self, path: &str) -> Option<&Bytes> {
        self.documents.get(&EntryPath::parse(path.as_bytes()).ok()?)
    }

    /// Returns a file that something names, through links.
    pub(super) fn file(&self, name: &str, by: &str) -> Result<&Stored, LoadError> {
        let shown = || name.escape_debug().to_string();
        let wrong = || LoadError::Path { path: shown(), by: by.to_owned() };
        let mut path = &EntryPath::parse(name.as_bytes()).map_err(|_| wrong())?;
        for _ in 0..LINKS_MAX {
            match (self.files.get(path), self.links.get(path)) {
                (Some(file), _) => return Ok(file),
                (None, Some(target)) => path = target,
                (None, None) => {
                    return Err(LoadError::Missing { path: shown(), by: by.to_owned() });
                }
            }
        }
        Err(wrong())
    }

    /// Takes a layer that was put together from what the archive has and others.
    pub(super) fn adopt(&mut self, blob: BlobInfo, diff_id: DiffId) {
        let (digest, path) = (blob.digest.clone(), format!("blobs/{}", blob.digest));
        let stored = Stored { path, blob, format: Format::None, unpacked: Ok(diff_id) };
        self.restored.insert(digest, stored);
    }

    /// Returns the file that has a digest.
    pub(super) fn by_digest(&self, digest: &Digest) -> Option<&Stored> {
        let file = self.by_digest.get(digest).and_then(|path| self.files.get(path));
        file.or_else(|| self.restored.get(digest))
    }

    /// Keeps a document in memory.
    fn keep(&mut self, path: EntryPath, content: &mut dyn Read) -> Result<(), LoadError> {
        let most = DOCUMENT_BYTES_MAX - self.document_bytes;
        let mut bytes = Vec::new();
        content.take(most + 1).read_to_end(&mut bytes).map_err(LoadError::Read)?;
        if bytes.len() as u64 > most {
            return Err(LoadError::DocumentSize { path: show(&path), most: DOCUMENT_BYTES_MAX });
        }
        self.document_bytes += bytes.len() as u64;
        self.documents.insert(path, bytes.into());
        Ok(())
    }

    /// Keeps a symbolic link, with its target resolved against its directory.
    fn link(&mut self, path: EntryPath, target: &[u8]) -> Result<(), LoadError> {
        let parent = path.parent().unwrap_or_default();
        let full = match target.first() {
            Some(b'/') => target.to_vec(),
            _ => [parent.as_bytes(), b"/", target].concat(),
        };
        let full = EntryPath::parse(&full).map_err(|_| LoadError::Path {
            path: target.escape_ascii().to_string(),
            by: format!("the link `{}`", show(&path)),
        })?;
        self.links.insert(path, full);
        Ok(())
    }
}

impl Stored {
    /// Returns the descriptor of a layer, once it is the promised one.
    pub(super) fn layer(&self, expected: &DiffId) -> Result<Descriptor, LoadError> {
        self.check_layer(expected)?;
        let media_type = match self.format {
            Format::None => MediaType::OCI_LAYER,
            Format::Gzip => MediaType::OCI_LAYER_GZIP,
            Format::Zstd => MediaType::OCI_LAYER_ZSTD,
            Format::Bzip2 => return Err(self.packed("bzip2")),
            Format::Xz => return Err(self.packed("xz")),
        };
        Ok(Descriptor::new(media_type, self.blob.digest.clone(), self.blob.size))
    }

    /// Checks that this is the layer that a configuration promises.
    pub(super) fn check_layer(&self, expected: &DiffId) -> Result<(), LoadError> {
        let path = || self.path.clone();
        match &self.unpacked {
            Ok(got) if got == expected => Ok(()),
            Ok(got) => {
                let (expected, got) = (expected.clone(), got.clone());
                Err(LoadError::DiffId { path: path(), expected, got })
            }
            Err(problem) => Err(LoadError::Layer { path: path(), problem: problem.clone() }),
        }
    }

    /// Returns the diff ID that the file has as a layer.
    pub(super) fn diff_id(&self) -> Result<DiffId, LoadError> {
        self.unpacked
            .clone()
            .map_err(|problem| LoadError::Layer { path: self.path.clone(), problem })
    }

    fn packed(&self, format: &'static str) -> LoadError {
        LoadError::Packed { path: self.path.clone(), format }
    }
}

fn show(path: &EntryPath) -> String {
    path.as_bytes().escape_ascii().to_string()
}

/// Returns the digest that a file of an OCI layout has as its name.
fn promised(path: &EntryPath) -> Option<Digest> {
    let text = std::str::from_utf8(path.as_bytes()).ok()?.strip_prefix("blobs/")?;
    let (algorithm, hex) = text.split_once('/')?;
    Digest::from_parts(algorithm.parse().ok()?, hex).ok()
}

/// Puts a file into the store. What could not be read whole leaves nothing behind.
fn store(
    path: &EntryPath,
    content: &mut dyn Read,
    root: &Root,
    lease: &Lease,
) -> Result<Stored, LoadError> {
    let key = IngestKey::fleeting();
    let stored = root
        .store()
        .ingest_blocking(&key, lease)
        .map_err(|source| LoadError::Store { path: show(path), source })
        .and_then(|ingest| fill(path, content, ingest));
    if stored.is_err() {
        // The reason why it was not stored matters more; the collector finds what stays.
        let _ = root.store().discard_blocking(&key);
    }
    stored
}

/// Copies a file into an ingest and commits it.
fn fill(path: &EntryPath, content: &mut dyn Read, mut ingest: Ingest) -> Result<Stored, LoadError> {
    let failed = |source| LoadError::Store { path: show(path), source };
    let promised = promised(path);
    let algorithm = promised.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    if algorithm != Algorithm::Sha256 {
        ingest.also(algorithm);
    }
    let mut start = Vec::new();
    content.take(MAGIC_BYTES).read_to_end(&mut start).map_err(LoadError::Read)?;
    let format = Format::sniff(&start);
    let mut tee = Tee { inner: Cursor::new(start).chain(content), ingest, broken: None };
    // What is not packed is its own unpacked form, but a diff ID is always SHA-256.
    let read_through = format != Format::None || algorithm != Algorithm::Sha256;
    let unpacked = read_through.then(|| unpack(&mut tee));
    let copied = io::copy(&mut tee, &mut io::sink());
    match tee.broken.take() {
        Some(Broken::Read(error)) => return Err(LoadError::Read(error)),
        Some(Broken::Write(error)) => {
            return Err(failed(StoreError::Io { doing: "write a blob", source: error }));
        }
        None => copied.map(drop).map_err(LoadError::Read)?,
    }
    let expected = promised.as_ref().map_or_else(Expected::any, Expected::digest);
    let landed = tee.ingest.commit_blocking(&expected).map_err(|error| match error {
        StoreError::DigestMismatch { got, .. } => LoadError::Digest { path: show(path), got },
        error => failed(error),
    })?;
    let blob = landed.info().clone();
    let unpacked = unpacked.unwrap_or_else(|| Ok(DiffId::new(blob.digest.clone())));
    Ok(Stored { path: show(path), blob, format, unpacked })
}

/// Hashes what comes out of a compressed stream.
fn unpack(packed: &mut impl Read) -> Result<DiffId, String> {
    let unpack = || -> io::Result<Digest> {
        let mut plain = Decompressor::new(packed, 1, DecompressLimits::default())?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match plain.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    unpack().map(DiffId::new).map_err(|error| error.to_string())
}

/// Writes what is read through it into an ingest.
struct Tee<R> {
    inner: R,
    ingest: Ingest,
    broken: Option<Broken>,
}

/// Which side of a [`Tee`] failed.
enum Broken {
    Read(io::Error),
    Write(io::Error),
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.broken.is_some() {
            return Err(io::Error::other("the stream failed before"));
        }
        let read = match self.inner.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(self.fail(Broken::Read, error));
            }
            read => read?,
        };
        if let Err(error) = self.ingest.write_all(&buffer[..read]) {
            return Err(self.fail(Broken::Write, error));
        }
        Ok(read)
    }
}

impl<R> Tee<R> {
    /// Keeps the error for whoever asks at the end, and returns one like it.
    fn fail(&mut self, side: fn(io::Error) -> Broken, error: io::Error) -> io::Error {
        let told = io::Error::new(error.kind(), error.to_string());
        self.broken = Some(side(error));
        told
    }
}
