//! Archives of docker before its version 1.10: no list of images, but a chain of layers, each with
//! a document about itself and its parent.
//!
//! ```text
//! repositories      {"name": {"tag": "<id>"}}
//! <id>/json         {"id", "parent", "created", "config", ...}
//! <id>/layer.tar
//! ```

use std::collections::BTreeMap;

use boatyard_content::{Lease, Root};
use boatyard_oci::image_config::RunConfig;
use boatyard_oci::{Descriptor, History, ImageConfig, MediaType};
use jiff::Timestamp;
use serde::Deserialize;

use super::archive::Archive;
use super::docker::parse_names;
use super::{LoadError, Loaded, put, put_image};

const REPOSITORIES: &str = "repositories";
/// Docker's own limit was 127.
const LAYERS_MAX: usize = 1000;

/// What a layer says about itself.
#[derive(Deserialize)]
struct Layer {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<Timestamp>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    config: Option<RunConfig>,
    #[serde(default)]
    container_config: Option<RunConfig>,
}

/// Makes the images that `repositories` names.
pub(super) fn images(
    archive: &Archive,
    root: &Root,
    lease: &Lease,
) -> Result<Vec<Loaded>, LoadError> {
    let bytes = archive.document(REPOSITORIES).ok_or(LoadError::NoImages)?;
    let repositories: BTreeMap<String, BTreeMap<String, String>> = parse(bytes, REPOSITORIES)?;
    let mut images = Vec::new();
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            let names = parse_names(&[format!("{repository}:{tag}")])?;
            images.push(Loaded { names, target: image(&id, archive, root, lease)? });
        }
    }
    Ok(images)
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], path: &str) -> Result<T, LoadError> {
    serde_json::from_slice(bytes)
        .map_err(|source| LoadError::Document { path: path.to_owned(), source: source.into() })
}

fn image(id: &str, archive: &Archive, root: &Root, lease: &Lease) -> Result<Descriptor, LoadError> {
    let chain = chain(id, archive)?;
    let mut config = ImageConfig::default();
    let mut layers = Vec::with_capacity(chain.len());
    for (id, layer) in chain {
        let file = archive.file(&format!("{id}/layer.tar"), &format!("`{id}/json`"))?;
        let diff_id = file.diff_id()?;
        layers.push(file.layer(&diff_id)?);
        config.rootfs.diff_ids.push(diff_id);
        config.history.push(history(&layer));
        // The topmost layer says how to run the image.
        config.created = layer.created.or(config.created);
        config.author = layer.author.or(config.author);
        config.architecture = layer.architecture.unwrap_or(config.architecture);
        config.os = layer.os.unwrap_or(config.os);
        config.config = layer.config.unwrap_or_default();
    }
    if config.architecture.is_empty() {
        config.architecture = "amd64".to_owned();
    }
    if config.os.is_empty() {
        config.os = "linux".to_owned();
    }
    let bytes = config.to_bytes();
    let failed = |source| LoadError::Store { path: format!("{id}/json"), source };
    put(root, lease, &bytes).map_err(failed)?;
    let config = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
    put_image(root, lease, config, layers).map_err(failed)
}

/// Returns the layers of an image, bottom first.
fn chain(id: &str, archive: &Archive) -> Result<Vec<(String, Layer)>, LoadError> {
    let mut chain = Vec::new();
    let mut next = Some((id.to_owned(), REPOSITORIES.to_owned()));
    while let Some((id, by)) = next {
        let path = format!("{id}/json");
        if chain.len() >= LAYERS_MAX {
            return Err(LoadError::Path { path, by: "a chain of parents without an end".into() });
        }
        let shown = path.escape_debug().to_string();
        let bytes =
            archive.document(&path).ok_or(LoadError::Missing { path: shown.clone(), by })?;
        let layer: Layer = parse(bytes, &path)?;
        let parent = layer.parent.clone().filter(|parent| !parent.is_empty());
        next = parent.map(|parent| (parent, format!("`{shown}`")));
        chain.push((id, layer));
    }
    chain.reverse();
    Ok(chain)
}

fn history(layer: &Layer) -> History {
    let command = layer.container_config.as_ref().and_then(|config| config.cmd.as_ref());
    History {
        created: layer.created,
        created_by: command.map(|words| words.join(" ")).unwrap_or_default(),
        author: layer.author.clone().unwrap_or_default(),
        comment: layer.comment.clone().unwrap_or_default(),
        ..History::default()
    }
}
