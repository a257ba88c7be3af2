//! The images of this machine: which there are, and which one a person means.
//!
//! They are the repositories in the space `images`: what was built, pulled or loaded here. A
//! person means one by a name, by a name with a digest, or by the beginning of its image ID (the
//! digest of its configuration, which docker shows too) or of its manifest's digest.

use std::collections::{BTreeMap, BTreeSet};

use boatyard_builder::dockerfile::suggest;
use boatyard_builder::image::{Image, ImageError, read_manifest};
use boatyard_content::repository::{Repository, Space};
use boatyard_content::{Lease, Root};
use boatyard_oci::{Descriptor, Digest, ImageName, Platform, Reference, RegistryHost};

use crate::report::{Context as _, Failure, Result};

/// Fewer digits of a digest are not taken for one.
const PREFIX_MIN: usize = 4;

/// A manifest of a repository, with the names that it has there.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The registry of the repository.
    pub registry: RegistryHost,
    /// The repository.
    pub repository: Repository,
    /// Its tags, in ASCII order; none where it is only an old or a listed one.
    pub tags: Vec<ImageName>,
    /// The manifest or index.
    pub target: Descriptor,
    /// Whether an index of the same repository lists it.
    pub is_listed: bool,
}

/// An image that was asked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// The names that it was asked for by; none where that was an ID.
    pub name: Option<ImageName>,
    /// Everywhere that it is; at least one.
    pub places: Vec<Listed>,
}

impl Found {
    /// Returns the manifest or index.
    pub fn target(&self) -> &Descriptor {
        &self.places[0].target
    }
}

impl Listed {
    /// Returns the repository's name as people write it.
    pub fn familiar(&self) -> String {
        let digest = Reference::Digest(self.target.digest.clone());
        let familiar = self.name(digest).familiar();
        familiar.split('@').next().unwrap_or_default().to_owned()
    }

    /// Returns a name in this repository.
    pub fn name(&self, reference: Reference) -> ImageName {
        ImageName {
            registry: self.registry.clone(),
            repository: self.repository.name().clone(),
            reference,
        }
    }
}

/// Lists all images, those without a tag too.
pub fn list(root: &Root) -> Result<Vec<Listed>> {
    let repositories = root.repositories();
    let mut all = Vec::new();
    for space in repositories.spaces().context("cannot list the images")? {
        let Space::Images(registry) = &space else { continue };
        let names = repositories.names(&space, None, usize::MAX);
        for name in names.context("cannot list the images")? {
            let repository = repositories.repository(&space, &name);
            all.extend(list_repository(root, registry, &repository)?);
        }
    }
    Ok(all)
}

/// Lists the manifests of one repository.
fn list_repository(
    root: &Root,
    registry: &RegistryHost,
    repository: &Repository,
) -> Result<Vec<Listed>> {
    let failed = || format!("cannot read the images of {}", repository.name());
    let mut tags: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
    for tag in repository.tags(None, usize::MAX).context(failed())? {
        if let Some(digest) = repository.tag(&tag).context(failed())? {
            tags.entry(digest).or_default().push(Reference::Tag(tag));
        }
    }
    let digests = repository.manifests().context(failed())?;
    let mut children = BTreeSet::new();
    for digest in &digests {
        children.extend(repository.refs(digest).context(failed())?);
    }
    let mut listed = Vec::with_capacity(digests.len());
    for digest in digests {
        let Some(stored) = repository.manifest(&digest).context(failed())? else { continue };
        let size = root.store().stat_blocking(&digest).context(failed())?;
        let size = size.map(|info| info.size).unwrap_or_default();
        let mut entry = Listed {
            registry: registry.clone(),
            repository: repository.clone(),
            tags: Vec::new(),
            is_listed: children.contains(&digest),
            target: Descriptor::new(stored.media_type, digest.clone(), size),
        };
        let tags = tags.remove(&digest).unwrap_or_default();
        entry.tags = tags.into_iter().map(|tag| entry.name(tag)).collect();
        listed.push(entry);
    }
    Ok(listed)
}

/// Finds the image that a person means.
pub fn find(root: &Root, text: &str) -> Result<Found> {
    let name = text.parse::<ImageName>();
    if let Ok(name) = &name
        && let Some(listed) = by_name(root, name)?
    {
        return Ok(Found { name: Some(name.clone()), places: vec![listed] });
    }
    let all = list(root)?;
    if let Some(prefix) = digest_prefix(text) {
        let places = by_prefix(root, &all, prefix);
        let digests: BTreeSet<_> = places.iter().map(|place| &place.target.digest).collect();
        match digests.len() {
            0 => {}
            1 => return Ok(Found { name: None, places }),
            _ => return Err(ambiguous(text, &places)),
        }
    }
    match name {
        Ok(name) => Err(not_found(&name, &all)),
        Err(error) => Err(Failure::usage(format!("`{text}` is no image name")).because(error)),
    }
}

fn by_name(root: &Root, name: &ImageName) -> Result<Option<Listed>> {
    let failed = || format!("cannot look for {}", name.familiar());
    let repository = root.images_of(name);
    let digest = match &name.reference {
        Reference::Tag(tag) => repository.tag(tag).context(failed())?,
        Reference::Digest(digest) => Some(digest.clone()),
    };
    let Some(digest) = digest else { return Ok(None) };
    let listed = list_repository(root, &name.registry, &repository)?;
    Ok(listed.into_iter().find(|listed| listed.target.digest == digest))
}

/// Returns the hex digits, where a text can be the beginning of a digest.
fn digest_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ((PREFIX_MIN..=64).contains(&hex.len()) && is_hex).then_some(hex)
}

fn by_prefix(root: &Root, all: &[Listed], prefix: &str) -> Vec<Listed> {
    let id_matches = |listed: &&Listed| {
        let image = Image::open(&root.store(), &listed.target, None);
        image.is_ok_and(|image| image.id().hex().starts_with(prefix))
    };
    // An index and the image in it have one image ID: what people mean is the index.
    let by_id = all.iter().filter(|listed| !listed.is_listed).filter(id_matches);
    let by_digest = all.iter().filter(|listed| listed.target.digest.hex().starts_with(prefix));
    let found: Vec<Listed> = by_id.cloned().collect();
    if found.is_empty() { by_digest.cloned().collect() } else { found }
}

fn ambiguous(text: &str, places: &[Listed]) -> Failure {
    let mut names: Vec<String> = places
        .iter()
        .map(|place| match place.tags.first() {
            Some(name) => format!("{} ({})", place.target.digest.short(), name.familiar()),
            None => place.target.digest.short().to_owned(),
        })
        .collect();
    names.dedup();
    Failure::new(format!("several images begin with `{text}`: {}", names.join(", ")))
        .hint("write more digits, or a name")
}

fn not_found(name: &ImageName, all: &[Listed]) -> Failure {
    let failure = Failure::new(format!("there is no image {name} on this machine"));
    let known: Vec<String> =
        all.iter().flat_map(|listed| &listed.tags).map(ImageName::familiar).collect();
    match near(name, all, &known) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => {
            failure.hint("there are none yet: `boatyard pull` and `boatyard build` bring some")
        }
        None => failure.hint("`boatyard images` lists what there is"),
    }
}

/// Returns a name that may have been meant: a mistyped one, another tag, or another registry.
fn near(name: &ImageName, all: &[Listed], known: &[String]) -> Option<String> {
    let asked = name.familiar();
    let typed = suggest::nearest(&asked, known.iter().map(String::as_str), true);
    let last = |name: &ImageName| name.repository.as_str().rsplit('/').next().map(str::to_owned);
    let names = || all.iter().flat_map(|listed| &listed.tags);
    let same_repository = || {
        names().find(|other| {
            (&other.registry, &other.repository) == (&name.registry, &name.repository)
        })
    };
    let same_word = || names().find(|other| last(other) == last(name));
    typed
        .map(str::to_owned)
        .or_else(|| same_repository().or_else(same_word).map(ImageName::familiar))
}

/// Opens the image that is meant, for a platform or this machine's.
pub fn open(root: &Root, target: &Descriptor, platform: Option<&Platform>) -> Result<Image> {
    Image::open(&root.store(), target, platform).map_err(|error| {
        let hint = match &error {
            ImageError::Platform { .. } => "name one of these with --platform, or pull another",
            ImageError::Missing { .. } => {
                "`boatyard fsck` says what else is missing; pulling or building again brings it back"
            }
            _ => "`boatyard inspect --raw` shows the manifest",
        };
        Failure::new(format!("cannot use the image {}", target.digest)).because(error).hint(hint)
    })
}

/// Holds all of an image that is here, for as long as the lease lives, and returns its blobs.
pub fn hold(root: &Root, lease: &Lease, place: &Listed) -> Result<BTreeSet<Digest>> {
    let failed = || format!("cannot hold the image {}", place.target.digest);
    let mut waiting = vec![place.target.digest.clone()];
    let (mut seen, mut held) = (BTreeSet::new(), BTreeSet::new());
    while let Some(digest) = waiting.pop() {
        if seen.insert(digest.clone()) {
            let blob = root.store().hold_blocking(&digest, Some(lease)).context(failed())?;
            held.extend(blob.map(|blob| blob.digest));
            // What is no manifest of the repository refers to nothing.
            waiting.extend(place.repository.refs(&digest).context(failed())?);
        }
    }
    Ok(held)
}

/// Returns the bytes of a manifest.
pub fn manifest_bytes(root: &Root, target: &Descriptor) -> Result<Vec<u8>> {
    let manifest = read_manifest(&root.store(), target);
    Ok(manifest.context("cannot read the manifest")?.bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_from_names() {
        for (text, expected) in [
            ("abcd", Some("abcd")),
            ("sha256:abcd", Some("abcd")),
            ("abc", None),
            ("debian", None),
            ("ABCD", None),
        ] {
            assert_eq!(digest_prefix(text), expected, "{text}");
        }
    }
}
