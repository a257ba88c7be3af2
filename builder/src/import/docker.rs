//! Archives of `docker save`: a list of configurations, each with the layers that belong to it.

use boatyard_content::{Blob, Lease, Root};
use boatyard_oci::{Descriptor, ImageConfig, ImageName, MediaType};
use serde::Deserialize;

use super::archive::{Archive, Stored};
use super::{LoadError, Loaded, put_image};

const MANIFEST: &str = "manifest.json";

/// An image, as `manifest.json` lists it. Docker writes `null` for an empty list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Makes the images that `manifest.json` lists.
pub(super) fn images(
    archive: &Archive,
    root: &Root,
    lease: &Lease,
) -> Result<Vec<Loaded>, LoadError> {
    let bytes = archive.document(MANIFEST).ok_or(LoadError::NoImages)?;
    let items: Vec<Item> = serde_json::from_slice(bytes).map_err(|source| LoadError::Document {
        path: MANIFEST.to_owned(),
        source: source.into(),
    })?;
    items.into_iter().map(|item| image(item, archive, root, lease)).collect()
}

fn image(item: Item, archive: &Archive, root: &Root, lease: &Lease) -> Result<Loaded, LoadError> {
    let file = archive.file(&item.config, MANIFEST)?;
    let config = config(file, root)?;
    let diff_ids = &config.rootfs.diff_ids;
    let names = item.layers.unwrap_or_default();
    if names.len() != diff_ids.len() {
        let (layers, diff_ids) = (names.len(), diff_ids.len());
        return Err(LoadError::LayerCount { image: file.path.clone(), layers, diff_ids });
    }
    let mut layers = Vec::with_capacity(names.len());
    for (name, diff_id) in names.iter().zip(diff_ids) {
        layers.push(archive.file(name, MANIFEST)?.layer(diff_id)?);
    }
    let (digest, size) = (file.blob.digest.clone(), file.blob.size);
    let config = Descriptor::new(MediaType::OCI_CONFIG, digest, size);
    let target = put_image(root, lease, config, layers)
        .map_err(|source| LoadError::Store { path: file.path.clone(), source })?;
    let names = item.repo_tags.unwrap_or_default();
    Ok(Loaded { names: parse_names(&names)?, target })
}

/// Reads a configuration that was stored.
fn config(file: &Stored, root: &Root) -> Result<ImageConfig, LoadError> {
    let failed = |source| LoadError::Store { path: file.path.clone(), source };
    let blob = root.store().open_blocking(&file.blob.digest).map_err(failed)?;
    let missing = || LoadError::Missing { path: file.path.clone(), by: MANIFEST.to_owned() };
    let blob = Blob::File(blob.ok_or_else(missing)?);
    if blob.size() > ImageConfig::SIZE_MAX as u64 {
        let most = ImageConfig::SIZE_MAX as u64;
        return Err(LoadError::DocumentSize { path: file.path.clone(), most });
    }
    let bytes = blob.into_bytes(ImageConfig::SIZE_MAX).map_err(failed)?;
    let config = ImageConfig::parse(bytes)
        .map_err(|source| LoadError::Document { path: file.path.clone(), source: source.into() })?;
    Ok(config.into_value())
}

/// Reads names as docker writes them.
pub(super) fn parse_names(names: &[String]) -> Result<Vec<ImageName>, LoadError> {
    let parse = |name: &String| {
        name.parse()
            .map_err(|source| LoadError::Name { name: name.escape_debug().to_string(), source })
    };
    names.iter().map(parse).collect()
}
