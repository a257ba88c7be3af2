//! Writing a bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use boatyard_content::Root;
use boatyard_oci::{Algorithm, Descriptor, DiffId, Digest, Hasher, ImageManifest, MediaType};

use super::delta::{self, Source as Old};
use super::document::{self, VERSION};
use super::packing::{self, Limited};
use super::parts::{Lookup, parts};
use super::spool::Spool;
use super::{ARTIFACT_TYPE, Base, BundleError, DELTA_TYPE, DOCUMENT_TYPE, Delta, DeltaError};
use super::{Document, Need};
use crate::export::oci::{Gathered, begin, blob};
use crate::export::{ExportError, Source, docker};
use crate::image::Image;
use crate::layer::compress::Compressor;
use crate::layer::tar::Writer;
use crate::pack::encoding;

/// A smaller layer travels whole.
const DELTA_FROM_BYTES: u64 = 4 << 10;
const COPY_BYTES: usize = 256 << 10;

/// What became of the blobs.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many blobs the receiver has, and how many bytes these are.
    pub left_out: (usize, u64),
    /// The layers that it lacks.
    pub layers: Vec<Sent>,
}

/// A layer that a bundle has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its blob.
    pub blob: Descriptor,
    /// How many bytes of it travel.
    pub bytes: u64,
    /// Why it travels whole, if it does though there are older layers.
    pub whole: Option<&'static str>,
}

/// Writes images for a receiver that has the base.
///
/// # Errors
/// Where an image is not whole, or the sink fails.
pub fn bundle<W: Write>(
    root: &Root,
    sources: &[Source],
    base: &Base,
    sink: W,
) -> Result<(W, Outcome), ExportError> {
    let store = root.store();
    let Gathered { mut listed, mut blobs } = Gathered::of(&store, sources)?;
    let provides = blobs.keys().cloned().collect();
    let mut outcome = Outcome::default();
    let mut needs = BTreeSet::new();
    let mut maker = Maker { root, base, old: None, new: blobs.keys().cloned().collect() };
    let layers = layers(&store, &blobs);
    blobs.retain(|digest, blob| {
        let Some(of) = base.of(digest) else { return true };
        outcome.left_out = (outcome.left_out.0 + 1, outcome.left_out.1 + blob.size);
        needs.insert(Need { digest: digest.clone(), of: of.to_owned() });
        false
    });
    let mut made = Vec::new();
    for (digest, diff_id) in &layers {
        let Some(blob) = blobs.get(digest).cloned() else { continue };
        let delta = maker
            .delta(&blob, diff_id)
            .map_err(|source| BundleError::Delta { digest: digest.clone(), source })?;
        match delta {
            Ok(delta) => {
                outcome.layers.push(Sent { bytes: delta.descriptor.size, blob, whole: None });
                needs.extend(delta.document.sources.iter().map(|digest| Need {
                    digest: digest.clone(),
                    of: base.of(digest).unwrap_or_default().to_owned(),
                }));
                blobs.remove(digest);
                made.push(delta);
            }
            Err(why) => {
                outcome.layers.push(Sent { bytes: blob.size, blob, whole: why });
            }
        }
    }
    drop(maker);
    let document = Document {
        version: VERSION,
        needs: needs.into_iter().collect(),
        provides,
        deltas: made.iter().map(|made| made.document.clone()).collect(),
    };
    let (config, manifest) = artifact(&document, &made);
    listed.push(Descriptor {
        artifact_type: Some(ARTIFACT_TYPE),
        ..Descriptor::of(MediaType::OCI_MANIFEST, &manifest)
    });
    let mut writer = Writer::new(sink);
    let mut files = begin(&mut writer, listed)?;
    for bytes in [(MediaType::OCI_MANIFEST, &manifest), (DOCUMENT_TYPE, &config)] {
        blob(&mut files, &Descriptor::of(bytes.0, bytes.1), &mut &bytes.1[..])?;
    }
    for delta in &made {
        let mut content = delta.spool.reader().map_err(|source| broken(delta, source))?;
        blob(&mut files, &delta.descriptor, &mut content)?;
    }
    for descriptor in blobs.values() {
        blob(&mut files, descriptor, &mut docker::open(&store, descriptor)?)?;
    }
    drop(files);
    Ok((writer.finish().map_err(ExportError::End)?, outcome))
}

fn broken(delta: &Made, source: io::Error) -> BundleError {
    BundleError::Delta { digest: delta.document.blob.digest.clone(), source: source.into() }
}

/// Returns the layers of all images among the blobs, with their diff IDs.
fn layers(
    store: &boatyard_content::local::LocalStore,
    blobs: &BTreeMap<Digest, Descriptor>,
) -> BTreeMap<Digest, DiffId> {
    let manifests = blobs.values().filter(|blob| blob.media_type.is_image_manifest());
    // An artifact has no layers in this sense.
    let images = manifests.filter_map(|manifest| Image::open(store, manifest, None).ok());
    let mut layers = BTreeMap::new();
    for image in images {
        let pairs = image.layers().map(|(layer, diff_id)| (layer.digest.clone(), diff_id.clone()));
        layers.extend(pairs);
    }
    layers
}

/// Returns the configuration of the artifact and its manifest.
fn artifact(document: &Document, made: &[Made]) -> (Vec<u8>, Vec<u8>) {
    let config = document.to_bytes();
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST),
        artifact_type: Some(ARTIFACT_TYPE),
        config: Descriptor::of(DOCUMENT_TYPE, &config),
        layers: made.iter().map(|made| made.descriptor.clone()).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    (config, manifest.to_bytes().to_vec())
}

/// A delta that gives the very blob: it was tried.
struct Made {
    document: Delta,
    descriptor: Descriptor,
    spool: Spool,
}

/// What deltas are made from.
struct Maker<'a> {
    root: &'a Root,
    base: &'a Base,
    /// All blobs of the new images.
    new: BTreeSet<Digest>,
    old: Option<(Vec<Digest>, Vec<Old>, Lookup)>,
}

impl Maker<'_> {
    /// Makes a delta of a layer; or says why it travels whole, where it is worth a word.
    fn delta(
        &mut self,
        blob: &Descriptor,
        diff_id: &DiffId,
    ) -> Result<Result<Made, Option<&'static str>>, DeltaError> {
        if blob.size < DELTA_FROM_BYTES || self.base.layers().is_empty() {
            return Ok(Err(None));
        }
        let root = self.root;
        let Some(target) = Spool::unpack(root, &blob.digest)? else { return Ok(Err(None)) };
        let Some(compression) = packing::guess(root, diff_id, &blob.digest, &target)? else {
            return Ok(Err(Some("another tool packed it")));
        };
        let Ok(list) = parts(&target) else { return Ok(Err(Some("its archive is unusual"))) };
        let (digests, old, lookup) = self.old()?;
        let mut file = Spool::file(root)?;
        let used = {
            let mut sink = io::BufWriter::with_capacity(COPY_BYTES, &mut file);
            let used = delta::write(&target, &list, old, lookup, &mut sink)?;
            sink.flush()?;
            used
        };
        let spool = Spool::new(file)?;
        if spool.size() >= blob.size {
            return Ok(Err(None));
        }
        let spools: Vec<&Spool> = used.iter().map(|source| &old[*source].spool).collect();
        let document = Delta {
            blob: blob.clone(),
            diff_id: diff_id.clone(),
            plain_size: target.size(),
            packing: encoding(compression),
            delta: digest(&mut spool.reader()?)?,
            sources: used.iter().map(|source| digests[*source].clone()).collect(),
        };
        let sources_size = spools.iter().map(|spool| spool.size()).sum();
        if document::check_expansion(target.size(), spool.size(), sources_size).is_err() {
            return Ok(Err(Some("it repeats itself too often")));
        }
        if !comes_back(&document, &spool, &spools)? {
            return Ok(Err(Some("packing it again gives other bytes")));
        }
        let descriptor = Descriptor::new(DELTA_TYPE, document.delta.clone(), spool.size());
        Ok(Ok(Made { document, descriptor, spool }))
    }

    /// Unpacks the layers that the receiver has; those first that the new images do without.
    fn old(&mut self) -> Result<&(Vec<Digest>, Vec<Old>, Lookup), DeltaError> {
        if self.old.is_none() {
            let (shared, gone): (Vec<_>, Vec<_>) =
                self.base.layers().iter().partition(|layer| self.new.contains(layer));
            let (mut digests, mut old, mut lookup) = (Vec::new(), Vec::new(), Lookup::default());
            for digest in gone.into_iter().chain(shared) {
                let Some(spool) = Spool::unpack(self.root, digest)? else { continue };
                let Ok(parts) = parts(&spool) else { continue };
                let Ok(number) = u32::try_from(old.len()) else { break };
                lookup.add(number, &parts);
                digests.push(digest.clone());
                old.push(Old { spool, parts });
            }
            self.old = Some((digests, old, lookup));
        }
        Ok(self.old.get_or_insert_default())
    }
}

/// Does what the receiver will do, and says whether the very blob comes out.
fn comes_back(document: &Delta, delta: &Spool, sources: &[&Spool]) -> Result<bool, DeltaError> {
    let compression = packing::parse(&document.packing)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let hashing = Hashing(Hasher::new(Algorithm::Sha256), 0);
    let packed = Limited { inner: hashing, left: document.blob.size };
    let mut compressor = Compressor::new(packed, compression, threads)?;
    let mut delta = io::BufReader::with_capacity(COPY_BYTES, delta.reader()?);
    match delta::apply(&mut delta, sources, document.plain_size, &mut compressor) {
        Ok(()) => {}
        // It became larger than the blob.
        Err(DeltaError::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let packed = match compressor.finish() {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(false),
        packed => packed?.inner,
    };
    if document.blob.digest.algorithm() != Algorithm::Sha256 {
        return Ok(false);
    }
    Ok(packed.1 == document.blob.size && packed.0.finish() == document.blob.digest)
}

/// Hashes and counts what is written to it.
struct Hashing(Hasher, u64);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn digest(reader: &mut impl Read) -> io::Result<Digest> {
    let mut hashing = Hashing(Hasher::new(Algorithm::Sha256), 0);
    io::copy(reader, &mut hashing)?;
    Ok(hashing.0.finish())
}
