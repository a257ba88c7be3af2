//! Completing what a bundle left out.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};

use boatyard_content::{Blob, BlobInfo, Expected, Ingest, IngestKey, Lease, Root, StoreError};
use boatyard_oci::{Algorithm, Descriptor, DiffId, Digest, Hasher, Manifest};

use super::document::{DOCUMENT_BYTES_MAX, check_expansion};
use super::packing::{self, Limited};
use super::spool::Spool;
use super::{ARTIFACT_TYPE, BundleError, DOCUMENT_TYPE, Delta, DeltaError, Document, delta};
use crate::image::{ImageError, read_manifest};
use crate::import::LoadError;
use crate::layer::Compressor;

const READ_BYTES: usize = 256 << 10;

/// Says whether an entry of an `index.json` is what makes the archive a bundle.
pub(crate) fn is_bundle(listed: &Descriptor) -> bool {
    listed.artifact_type.as_ref() == Some(&ARTIFACT_TYPE)
}

/// Checks that all is here that a bundle needs, and puts the layers together that are not. The lease
/// holds all of it.
///
/// # Errors
/// Where something is missing, or a delta does not give what it promises.
pub(crate) fn complete(
    root: &Root,
    lease: &Lease,
    listed: &Descriptor,
) -> Result<Vec<(BlobInfo, DiffId)>, LoadError> {
    let document = document(root, lease, listed)?;
    let sizes = needs(root, lease, &document)?;
    let mut bench = Bench { root, lease, needed: sizes, spools: HashMap::new() };
    let mut complete = Vec::with_capacity(document.deltas.len());
    for delta in &document.deltas {
        let digest = || delta.blob.digest.clone();
        let blob = bench
            .restore(delta)
            .map_err(|source| BundleError::Delta { digest: digest(), source })?;
        complete.extend(blob.map(|blob| (blob, delta.diff_id.clone())));
    }
    Ok(complete)
}

/// Reads what the bundle says of itself.
fn document(root: &Root, lease: &Lease, listed: &Descriptor) -> Result<Document, LoadError> {
    let failed = |digest: &Digest| {
        let digest = digest.clone();
        |source| BundleError::Store { digest, source }
    };
    let absent = |digest: &Digest| ImageError::Missing { what: "blob", digest: digest.clone() };
    let held = root.store().hold_blocking(&listed.digest, Some(lease));
    held.map_err(failed(&listed.digest))?.ok_or_else(|| absent(&listed.digest))?;
    let manifest = read_manifest(&root.store(), listed)?;
    let Manifest::Image(manifest) = manifest.value() else {
        return Err(BundleError::Document("it is an index".into()).into());
    };
    let config = &manifest.config;
    if config.media_type != DOCUMENT_TYPE {
        let text = format!("its configuration is `{}`", config.media_type);
        return Err(BundleError::Document(text.into()).into());
    }
    let blob = root.store().open_blocking(&config.digest).map_err(failed(&config.digest))?;
    let blob = blob.ok_or_else(|| absent(&config.digest))?;
    let bytes = Blob::File(blob).into_bytes(DOCUMENT_BYTES_MAX);
    Ok(Document::parse(&bytes.map_err(failed(&config.digest))?)?)
}

/// Holds what the bundle needs, and says how large it is.
fn needs(
    root: &Root,
    lease: &Lease,
    document: &Document,
) -> Result<HashMap<Digest, u64>, BundleError> {
    let (mut here, mut missing) = (HashMap::new(), Vec::new());
    for need in &document.needs {
        let held = root
            .store()
            .hold_blocking(&need.digest, Some(lease))
            .map_err(|source| BundleError::Store { digest: need.digest.clone(), source })?;
        match held {
            Some(blob) => drop(here.insert(blob.digest, blob.size)),
            None => missing.push(need),
        }
    }
    match missing.split_first() {
        None => Ok(here),
        Some((first, more)) => Err(BundleError::Base {
            digest: first.digest.clone(),
            of: first.of.escape_debug().to_string(),
            more: more.len(),
        }),
    }
}

struct Bench<'a> {
    root: &'a Root,
    lease: &'a Lease,
    needed: HashMap<Digest, u64>,
    spools: HashMap<Digest, Spool>,
}

impl Bench<'_> {
    /// Puts a layer together; `None` where it is here already.
    fn restore(&mut self, delta: &Delta) -> Result<Option<BlobInfo>, DeltaError> {
        let compression = packing::parse(&delta.packing)?;
        let store = self.root.store();
        let outside = delta.sources.iter().find(|source| !self.needed.contains_key(source));
        if let Some(outside) = outside {
            return Err(DeltaError::Undeclared(outside.clone()));
        }
        if store.hold_blocking(&delta.blob.digest, Some(self.lease))?.is_some() {
            return Ok(None);
        }
        let Some(bytes) = store.hold_blocking(&delta.delta, Some(self.lease))? else {
            return Err(DeltaError::Malformed("is not in the bundle"));
        };
        for source in &delta.sources {
            if !self.spools.contains_key(source) {
                let spool = Spool::unpack(self.root, source)?;
                let spool = spool.ok_or(DeltaError::Malformed("takes from a blob that is gone"))?;
                self.spools.insert(source.clone(), spool);
            }
        }
        let sources: Vec<&Spool> =
            delta.sources.iter().filter_map(|source| self.spools.get(source)).collect();
        let together = sources.iter().map(|spool| spool.size()).sum();
        check_expansion(delta.plain_size, bytes.size, together)?;
        let key = IngestKey::random();
        let ingest = store.ingest_blocking(&key, self.lease)?;
        let restored = self.fill(delta, compression, &sources, ingest);
        if restored.is_err() {
            // Why it failed matters more; the collector finds what stays.
            let _ = store.discard_blocking(&key);
        }
        restored.map(Some)
    }

    fn fill(
        &self,
        delta: &Delta,
        compression: crate::layer::Compression,
        sources: &[&Spool],
        mut ingest: Ingest,
    ) -> Result<BlobInfo, DeltaError> {
        let gone = || DeltaError::Malformed("is not in the bundle");
        let blob = self.root.store().open_blocking(&delta.delta)?.ok_or_else(gone)?;
        let mut reader = BufReader::with_capacity(READ_BYTES, blob.into_file());
        if delta.blob.digest.algorithm() != Algorithm::Sha256 {
            ingest.also(delta.blob.digest.algorithm());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let packed = Limited { inner: ingest, left: delta.blob.size };
        let mut tee = Tee {
            compressor: Compressor::new(packed, compression, threads)?,
            hasher: Hasher::new(Algorithm::Sha256),
        };
        delta::apply(&mut reader, sources, delta.plain_size, &mut tee)?;
        let got = tee.hasher.finish();
        if got != *delta.diff_id.digest() {
            return Err(DeltaError::Differs { got });
        }
        let ingest = tee.compressor.finish()?.inner;
        let expected = Expected::exactly(&delta.blob.digest, delta.blob.size);
        match ingest.commit_blocking(&expected) {
            Ok(landed) => Ok(landed.info().clone()),
            Err(StoreError::DigestMismatch { got, .. }) => Err(DeltaError::Differs { got }),
            Err(error) => Err(error.into()),
        }
    }
}

/// Hashes what is packed.
struct Tee<W: Write> {
    compressor: Compressor<W>,
    hasher: Hasher,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.compressor.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.compressor.flush()
    }
}
