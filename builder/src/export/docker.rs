//! The archive of `docker save`, that every tool loads.
//!
//! ```text
//! manifest.json     [{"Config": ..., "RepoTags": [...], "Layers": [...]}]
//! <hex>.json        a configuration, under its own digest
//! <hex>.tar.gz      a layer blob as it is, under its own digest, if it is packed with gzip
//! <hex>.tar         a layer that is not packed, under its diff ID
//! ```
//!
//! Docker looks at a layer's first bytes and unpacks gzip since its version 1.10; zstd only since
//! 23. So layers that are packed otherwise are unpacked on the way. A layer or configuration that
//! several images share is written once. `manifest.json` comes first: who reads the archive from
//! a pipe knows what it needs before it comes.

use std::io::{self, Read, Write};
use std::path::Path;

use boatyard_content::local::LocalStore;
use boatyard_oci::{Descriptor, DiffId};
use serde::Serialize;

use super::place::{Directory, Files, Place};
use super::{ExportError, Image, ImageError, Source};
use crate::layer::decompress::Format;
use crate::layer::tar::Writer;
use crate::layer::{DecompressLimits, Decompressor};

/// An image, as `manifest.json` lists it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes images as an archive of `docker save`. Of an index it holds one image.
///
/// # Errors
/// Where an image is not whole, or the sink fails.
pub fn docker_archive<W: Write>(
    store: &LocalStore,
    sources: &[Source],
    sink: W,
) -> Result<W, ExportError> {
    let mut writer = Writer::new(sink);
    write(store, sources, &mut writer)?;
    writer.finish().map_err(ExportError::End)
}

/// Writes the files of such an archive into a directory that is empty or not there yet.
///
/// # Errors
/// Where an image is not whole, or the directory cannot be used.
pub fn docker_layout(
    store: &LocalStore,
    sources: &[Source],
    directory: &Path,
) -> Result<(), ExportError> {
    write(store, sources, &mut Directory::new(directory)?)
}

fn write(store: &LocalStore, sources: &[Source], place: &mut dyn Place) -> Result<(), ExportError> {
    let mut images = Vec::with_capacity(sources.len());
    let mut items = Vec::with_capacity(sources.len());
    for source in sources {
        let image = Image::open(store, &source.target, source.platform.as_ref())?;
        items.push(item(store, source, &image)?);
        images.push(image);
    }
    let mut files = Files::new(place);
    let manifest = serde_json::to_vec(&items).expect("texts always serialise");
    files.bytes("manifest.json", &manifest)?;
    for (image, item) in images.iter().zip(&items) {
        files.bytes(&item.config, image.config.bytes())?;
    }
    for (image, item) in images.iter().zip(&items) {
        for ((layer, _), name) in image.layers().zip(&item.layers) {
            write_layer(store, layer, name, &mut files)?;
        }
    }
    Ok(())
}

fn item(store: &LocalStore, source: &Source, image: &Image) -> Result<Item, ExportError> {
    let layers = image.layers().map(|(layer, diff_id)| layer_name(store, layer, diff_id));
    Ok(Item {
        config: format!("{}.json", image.id().hex()),
        // In full: docker reads both forms, and others do not take the short one for Docker's.
        repo_tags: super::oci::tagged(&source.names).map(ToString::to_string).collect(),
        layers: layers.collect::<Result<_, _>>()?,
    })
}

fn layer_name(
    store: &LocalStore,
    layer: &Descriptor,
    diff_id: &DiffId,
) -> Result<String, ExportError> {
    let mut start = Vec::new();
    open(store, layer)?
        .take(8)
        .read_to_end(&mut start)
        .map_err(|source| decompress_error(layer, source))?;
    Ok(match Format::sniff(&start) {
        Format::Gzip => format!("{}.tar.gz", layer.digest.hex()),
        _ => format!("{}.tar", diff_id.digest().hex()),
    })
}

fn write_layer(
    store: &LocalStore,
    layer: &Descriptor,
    name: &str,
    files: &mut Files<'_>,
) -> Result<(), ExportError> {
    if files.has(name) {
        return Ok(());
    }
    if name.ends_with(".gz") {
        return files.stream(name, layer.size, &mut open(store, layer)?);
    }
    // An archive says a file's size before its content: what is packed is unpacked twice.
    let mut plain = unpacked(store, layer)?;
    let size =
        io::copy(&mut plain, &mut io::sink()).map_err(|source| decompress_error(layer, source))?;
    files.stream(name, size, &mut unpacked(store, layer)?)
}

/// Opens a blob of the store.
pub(crate) fn open(store: &LocalStore, blob: &Descriptor) -> Result<fs_err::File, ExportError> {
    let digest = &blob.digest;
    let found = store
        .open_blocking(digest)
        .map_err(|source| ExportError::Blob { digest: digest.clone(), source })?;
    let missing = || ImageError::Missing { what: "blob", digest: digest.clone() };
    Ok(found.ok_or_else(missing)?.into_file())
}

fn unpacked(
    store: &LocalStore,
    layer: &Descriptor,
) -> Result<Decompressor<fs_err::File>, ExportError> {
    Decompressor::new(open(store, layer)?, 1, DecompressLimits::default())
        .map_err(|source| decompress_error(layer, source))
}

fn decompress_error(layer: &Descriptor, source: io::Error) -> ExportError {
    ExportError::Decompress { digest: layer.digest.clone(), source }
}
