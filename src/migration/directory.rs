//! The storage directory of a docker-registry (distribution v2 and v3).
//!
//! ```text
//! DIR/docker/registry/v2/blobs/sha256/ab/<hex>/data
//! DIR/docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
//!                                                      /revisions/sha256/<hex>/link
//!                                           /_layers/sha256/<hex>/link
//! ```
//!
//! A `link` holds a digest. The media type of a manifest stands inside it or nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use boatyard_content::local::adopt::{self, Came, Sharing};
use boatyard_content::repository::Repository;
use boatyard_content::{BlobInfo, StoreError};
use boatyard_oci::{Algorithm, Digest, Manifest, MediaType, Raw, RepositoryName, Tag};
use fs_err as fs;
use serde::Deserialize;

use super::{Here, Selection, Summary, Target, outdated};
use crate::report::{Context as _, Failure, Result};

/// How deep indexes may lie in indexes.
const DEPTH_MAX: usize = 4;

/// The directory of another registry.
#[derive(Clone, Debug)]
pub struct Directory {
    base: PathBuf,
}

/// A repository of it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: RepositoryName,
    /// Its tags.
    pub tags: BTreeMap<Tag, Digest>,
    /// All manifests that it has.
    pub manifests: BTreeSet<Digest>,
}

/// Why a manifest was not taken over.
enum Not {
    /// It never will be.
    Skipped(String),
    /// Something is missing or damaged there.
    Failed(String),
}

impl Directory {
    /// Finds the storage in a directory: what `rootdirectory` names, or a directory below.
    pub fn open(path: &Path) -> Result<Directory> {
        for below in ["docker/registry/v2", "registry/v2", "v2", ""] {
            let base = path.join(below);
            if base.join("repositories").is_dir() && base.join("blobs").is_dir() {
                return Ok(Directory { base });
            }
        }
        Err(Failure::new(format!("{} is no storage of a docker-registry", path.display())).hint(
            "name its `rootdirectory`: the directory in which docker/registry/v2 lies, such as \
             /var/lib/registry",
        ))
    }

    /// Returns the repositories that are meant, with their tags and manifests.
    pub fn repositories(&self, selection: &Selection) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let top = self.base.join("repositories");
        let mut waiting = vec![String::new()];
        while let Some(prefix) = waiting.pop() {
            for child in names(&top.join(&prefix))? {
                if child.starts_with('_') {
                    continue;
                }
                let name = format!("{prefix}{child}");
                waiting.push(format!("{name}/"));
                let Ok(name) = name.parse::<RepositoryName>() else { continue };
                let its = top.join(name.as_str());
                if its.join("_manifests").is_dir() && selection.takes(&name) {
                    found.push(Found { tags: tags(&its)?, manifests: revisions(&its)?, name });
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Returns how many bytes a repository's blobs have, each once: `seen` has those that count
    /// already.
    pub fn bytes(&self, found: &Found, seen: &mut BTreeSet<Digest>) -> u64 {
        let links = self.base.join("repositories").join(found.name.as_str()).join("_layers");
        let blobs = by_algorithm(&links).unwrap_or_default();
        let new = blobs.into_iter().filter(|digest| seen.insert(digest.clone()));
        new.filter_map(|digest| Some(fs::metadata(self.blob(&digest)).ok()?.len())).sum()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        self.base.join("blobs").join(algorithm).join(&hex[..2]).join(hex).join("data")
    }

    /// Takes a repository over.
    pub fn take(
        &self,
        found: &Found,
        selection: &Selection,
        sharing: Sharing,
        target: &Target<'_>,
        summary: &mut Summary,
    ) -> Result<()> {
        summary.repositories += 1;
        let repository = target.repository(&found.name);
        let mut work = Work { directory: self, repository, sharing, target, summary, found };
        for (tag, digest) in found.tags.iter().filter(|(tag, _)| selection.takes_tag(tag)) {
            let what = format!("{}:{tag}", found.name);
            match target.tag(&work.repository, tag, digest)? {
                Here::Same => work.summary.already += 1,
                Here::Elsewhere(there) if !selection.overwrite => {
                    work.summary.skip(what, format!("it points at {there} here: see --overwrite"));
                }
                Here::Elsewhere(_) | Here::Not => {
                    if work.manifest_or_tell(digest, &what, std::slice::from_ref(tag))? {
                        work.summary.tags += 1;
                    }
                }
            }
        }
        work.rest(selection)
    }
}

/// A repository that is being taken over.
struct Work<'a, 'b> {
    directory: &'a Directory,
    repository: Repository,
    sharing: Sharing,
    target: &'a Target<'b>,
    summary: &'a mut Summary,
    found: &'a Found,
}

impl Work<'_, '_> {
    /// Takes what has no tag: all of it where that is asked for, else what refers to what came.
    fn rest(&mut self, selection: &Selection) -> Result<()> {
        // What refers to something that refers to something comes in a later round.
        for _ in 0..DEPTH_MAX {
            let mut came = false;
            for digest in &self.found.manifests {
                let is_here =
                    self.repository.manifest(digest).context("cannot look for a manifest")?;
                if is_here.is_some() || !(selection.untagged || self.refers(digest)?) {
                    continue;
                }
                let what = format!("{}@{digest}", self.found.name);
                let known = self.summary.skipped.iter().chain(&self.summary.failed);
                if known.into_iter().all(|known| known.what != what) {
                    came |= self.manifest_or_tell(digest, &what, &[])?;
                }
            }
            if !came {
                break;
            }
        }
        Ok(())
    }

    /// Says whether a manifest says something about one that is here.
    fn refers(&self, digest: &Digest) -> Result<bool> {
        let Ok((manifest, _)) = self.read(digest) else { return Ok(false) };
        let Some(subject) = manifest.value().subject() else { return Ok(false) };
        let there = self.repository.manifest(&subject.digest);
        Ok(there.context("cannot look for a manifest")?.is_some())
    }

    fn manifest_or_tell(&mut self, digest: &Digest, what: &str, tags: &[Tag]) -> Result<bool> {
        match self.manifest(digest, tags, 0)? {
            Ok(()) => return Ok(true),
            Err(Not::Skipped(why)) => self.summary.skip(what, why),
            Err(Not::Failed(why)) => self.summary.fail(what, why),
        }
        Ok(false)
    }

    /// Takes a manifest with all that it needs.
    fn manifest(
        &mut self,
        digest: &Digest,
        tags: &[Tag],
        depth: usize,
    ) -> Result<std::result::Result<(), Not>> {
        let (manifest, media_type) = match self.read(digest) {
            Ok(read) => read,
            Err(not) => return Ok(Err(not)),
        };
        for listed in manifest.value().manifests() {
            if depth >= DEPTH_MAX {
                return Ok(Err(Not::Skipped("indexes lie too deep in indexes".to_owned())));
            }
            if let Err(not) = self.manifest(&listed.digest, &[], depth + 1)? {
                return Ok(Err(not));
            }
        }
        for blob in manifest.value().blobs() {
            match self.take_in(&blob.digest)? {
                Ok(None) => {}
                Ok(Some(blob)) => {
                    self.summary.blobs += 1;
                    self.summary.bytes += blob.size;
                }
                Err(not) => return Ok(Err(not)),
            }
        }
        if let Err(not) = self.take_in(digest)? {
            return Ok(Err(not));
        }
        let is_new =
            self.repository.manifest(digest).context("cannot look for a manifest")?.is_none();
        self.target.put(&self.repository, &manifest, &media_type, tags)?;
        self.summary.manifests += u64::from(is_new);
        Ok(Ok(()))
    }

    fn read(&self, digest: &Digest) -> std::result::Result<(Raw<Manifest>, MediaType), Not> {
        let path = self.directory.blob(digest);
        let bytes = fs::read(&path)
            .map_err(|error| Not::Failed(format!("its manifest cannot be read: {error}")))?;
        let media_type = type_of(&bytes);
        match Manifest::parse_expecting(bytes.into(), &media_type, digest) {
            Ok(manifest) => Ok((manifest, media_type)),
            Err(error) => Err(match outdated(&error) {
                Some(why) => Not::Skipped(why),
                None => Not::Failed(error.to_string()),
            }),
        }
    }

    /// Makes a blob of ours of one of theirs; one that was here is `None`.
    fn take_in(&self, digest: &Digest) -> Result<std::result::Result<Option<BlobInfo>, Not>> {
        let path = self.directory.blob(digest);
        let (root, lease) = (self.target.root, self.target.lease);
        Ok(match adopt::take_in(root, &path, digest, lease, self.sharing) {
            Ok((_, Came::AlreadyThere)) => Ok(None),
            Ok((blob, _)) => Ok(Some(blob)),
            Err(error @ StoreError::DigestMismatch { .. }) => {
                Err(Not::Failed(format!("{digest} is damaged there: {error}")))
            }
            Err(_) if !path.exists() => Err(Not::Failed(format!("{digest} is missing there"))),
            Err(error) => return Err(error).context(format!("cannot take {}", path.display())),
        })
    }
}

/// Returns the type of a manifest from what is in it.
fn type_of(bytes: &[u8]) -> MediaType {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Inside {
        schema_version: u64,
        media_type: Option<MediaType>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let inside: Inside = serde_json::from_slice(bytes).unwrap_or_default();
    if inside.schema_version == 1 {
        return MediaType::new("application/vnd.docker.distribution.manifest.v1+prettyjws");
    }
    match (inside.media_type, inside.manifests) {
        (Some(media_type), _) => media_type,
        (None, Some(_)) => MediaType::OCI_INDEX,
        (None, None) => MediaType::OCI_MANIFEST,
    }
}

fn tags(repository: &Path) -> Result<BTreeMap<Tag, Digest>> {
    let directory = repository.join("_manifests/tags");
    let mut tags = BTreeMap::new();
    for name in names(&directory)? {
        let Ok(tag) = name.parse::<Tag>() else { continue };
        let link = fs::read_to_string(directory.join(&name).join("current/link"));
        let digest = link.ok().and_then(|link| link.trim().parse::<Digest>().ok());
        tags.extend(digest.map(|digest| (tag, digest)));
    }
    Ok(tags)
}

/// Returns the manifests of a repository. A deleted one has a directory and no link.
fn revisions(repository: &Path) -> Result<BTreeSet<Digest>> {
    by_algorithm(&repository.join("_manifests/revisions"))
}

/// Returns the digests that are linked below a directory.
fn by_algorithm(directory: &Path) -> Result<BTreeSet<Digest>> {
    let mut digests = BTreeSet::new();
    for algorithm in Algorithm::ALL {
        let directory = directory.join(algorithm.name());
        for hex in names(&directory)? {
            let digest = Digest::from_parts(algorithm, &hex).ok();
            digests.extend(digest.filter(|_| directory.join(&hex).join("link").exists()));
        }
    }
    Ok(digests)
}

/// Returns the names in a directory, which may be absent.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => entries.context("cannot read the storage")?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.context("cannot read the storage")?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
