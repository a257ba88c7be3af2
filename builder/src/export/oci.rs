//! OCI image layouts (image-spec, image-layout.md), as an archive or a directory.
//!
//! Manifests and blobs are the very bytes of the store, so every digest stays what it is. An index
//! is written as one where all its images are here; where only some are, one image is written.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use boatyard_content::local::LocalStore;
use boatyard_oci::{Descriptor, Digest, ImageName, Index, Manifest, Reference};

use super::docker::open;
use super::place::{Directory, Files, Place};
use super::{ExportError, Image, ImageError, Source, read_manifest};
use crate::layer::tar::Writer;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The tag alone: podman, skopeo and buildah look for it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name: containerd and Docker look for it.
const IMAGE_NAME: &str = "io.containerd.image.name";
const NESTED_MAX: usize = 4;

/// Writes images as one archive with an OCI layout in it.
///
/// # Errors
/// Where an image is not whole, or the sink fails.
pub fn oci_archive<W: Write>(
    store: &LocalStore,
    sources: &[Source],
    sink: W,
) -> Result<W, ExportError> {
    let mut writer = Writer::new(sink);
    write(store, sources, &mut writer)?;
    writer.finish().map_err(ExportError::End)
}

/// Writes images as an OCI layout into a directory that is empty or not there yet.
///
/// # Errors
/// Where an image is not whole, or the directory cannot be used.
pub fn oci_layout(
    store: &LocalStore,
    sources: &[Source],
    directory: &Path,
) -> Result<(), ExportError> {
    write(store, sources, &mut Directory::new(directory)?)
}

fn write(store: &LocalStore, sources: &[Source], place: &mut dyn Place) -> Result<(), ExportError> {
    let gathered = Gathered::of(store, sources)?;
    let mut files = begin(place, gathered.listed)?;
    for descriptor in gathered.blobs.values() {
        blob(&mut files, descriptor, &mut open(store, descriptor)?)?;
    }
    Ok(())
}

/// What belongs to some images.
pub(crate) struct Gathered {
    /// The entries of `index.json`.
    pub(crate) listed: Vec<Descriptor>,
    /// All blobs, manifests among them, sorted by digest.
    pub(crate) blobs: BTreeMap<Digest, Descriptor>,
}

impl Gathered {
    pub(crate) fn of(store: &LocalStore, sources: &[Source]) -> Result<Gathered, ExportError> {
        let (mut listed, mut blobs) = (Vec::new(), BTreeMap::new());
        for source in sources {
            let target = target(store, source)?;
            gather(store, &target, &mut blobs, 0)?;
            listed.extend(list(&target, source));
        }
        Ok(Gathered { listed, blobs })
    }
}

/// Begins a layout with what comes before the blobs.
pub(crate) fn begin(
    place: &mut dyn Place,
    listed: Vec<Descriptor>,
) -> Result<Files<'_>, ExportError> {
    let mut files = Files::new(place);
    files.bytes("oci-layout", LAYOUT)?;
    files.bytes("index.json", &Index::new(listed).to_bytes())?;
    files.directory("blobs")?;
    Ok(files)
}

/// Writes a blob.
pub(crate) fn blob(
    files: &mut Files<'_>,
    descriptor: &Descriptor,
    content: &mut dyn Read,
) -> Result<(), ExportError> {
    let digest = &descriptor.digest;
    files.directory(&format!("blobs/{}", digest.algorithm()))?;
    let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
    files.stream(&name, descriptor.size, content)
}

/// Returns what is written of a source: all of it, or one image.
fn target(store: &LocalStore, source: &Source) -> Result<Descriptor, ExportError> {
    if source.platform.is_none() && is_whole(store, &source.target, 0)? {
        return Ok(source.target.clone());
    }
    let mut image = Image::open(store, &source.target, source.platform.as_ref())?.descriptor;
    image.annotations.clear();
    Ok(image)
}

/// Says whether the store has every manifest that a target lists.
fn is_whole(store: &LocalStore, target: &Descriptor, depth: usize) -> Result<bool, ExportError> {
    let manifest = match read_manifest(store, target) {
        Ok(manifest) => manifest,
        Err(ImageError::Missing { .. }) if depth > 0 => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    check_depth(target, depth)?;
    for child in manifest.value().manifests() {
        if !is_whole(store, child, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_depth(target: &Descriptor, depth: usize) -> Result<(), ImageError> {
    if depth < NESTED_MAX {
        return Ok(());
    }
    Err(ImageError::Nested { digest: target.digest.clone() })
}

/// Adds all blobs of a manifest, itself among them, sorted by digest.
fn gather(
    store: &LocalStore,
    target: &Descriptor,
    blobs: &mut BTreeMap<Digest, Descriptor>,
    depth: usize,
) -> Result<(), ExportError> {
    check_depth(target, depth)?;
    let manifest = read_manifest(store, target)?;
    blobs.insert(target.digest.clone(), target.clone());
    match manifest.value() {
        Manifest::Image(_) => {
            let needed = manifest.value().blobs().into_iter().cloned();
            blobs.extend(needed.map(|blob| (blob.digest.clone(), blob)));
        }
        Manifest::Index(index) => {
            for child in &index.manifests {
                gather(store, child, blobs, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// Returns the entries of `index.json`: one for each name, or one without.
fn list(target: &Descriptor, source: &Source) -> Vec<Descriptor> {
    let bare = Descriptor {
        platform: target.platform.clone(),
        annotations: source.annotations.clone(),
        ..Descriptor::new(target.media_type.clone(), target.digest.clone(), target.size)
    };
    let named = |name: &ImageName| {
        let mut descriptor = bare.clone();
        descriptor.annotations.insert(REF_NAME.to_owned(), name.reference.to_string());
        descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        descriptor
    };
    let listed: Vec<_> = tagged(&source.names).map(named).collect();
    if listed.is_empty() { vec![bare] } else { listed }
}

/// Returns the names that have a tag: a digest is no name that can be given.
pub(super) fn tagged(names: &[ImageName]) -> impl Iterator<Item = &ImageName> {
    names.iter().filter(|name| matches!(name.reference, Reference::Tag(_)))
}
