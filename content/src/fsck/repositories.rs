//! What repositories say: each manifest is read, and what it needs is looked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use boatyard_oci::{Descriptor, Digest, Manifest, MediaType, Raw, Tag};
use bytes::Bytes;
use serde::Deserialize;

use super::report::{Broken, Finding, How, Wrong};
use super::{Check, FsckError};
use crate::repository::{Repository, RepositoryError};
use crate::store::{Blob, StoreError};

/// What is learnt of a repository while it is checked.
struct Learnt {
    /// Which tags point at a manifest.
    tags: HashMap<Digest, Vec<Tag>>,
    /// Which indexes list a manifest.
    parents: HashMap<Digest, Vec<Digest>>,
    /// Which manifests lack what.
    broken: BTreeSet<(Digest, Digest)>,
    /// Which blobs the manifests need.
    needed: HashSet<Digest>,
    findings: Vec<Wrong>,
}

impl Check<'_, '_> {
    /// Checks a repository.
    pub(super) fn repository(&mut self, repository: &Repository) -> Result<(), FsckError> {
        self.check_repository(repository).map_err(|source| FsckError::Repository {
            repository: repository.key().to_owned(),
            source,
        })
    }

    fn check_repository(&mut self, repository: &Repository) -> Result<(), RepositoryError> {
        let mut learnt = Learnt {
            tags: HashMap::new(),
            parents: HashMap::new(),
            broken: BTreeSet::new(),
            needed: HashSet::new(),
            findings: Vec::new(),
        };
        self.tags(repository, &mut learnt)?;
        for manifest in repository.manifests()? {
            self.manifest(repository, &manifest, &mut learnt)?;
        }
        self.links(repository, &learnt)?;
        self.conclude(repository, &learnt);
        Ok(())
    }

    /// Reads all tags, and looks whether the repository has what they point at.
    fn tags(
        &mut self,
        repository: &Repository,
        learnt: &mut Learnt,
    ) -> Result<(), RepositoryError> {
        let mut dangling = Vec::new();
        let mut torn = Vec::new();
        repository.each_tag(|tag| {
            match repository.tag(&tag) {
                Ok(Some(digest)) if repository.has_manifest(&digest) => {
                    learnt.tags.entry(digest).or_default().push(tag);
                }
                Ok(Some(_)) => dangling.push(tag),
                Ok(None) => {}
                Err(RepositoryError::Store(StoreError::Damaged { .. })) => torn.push(tag),
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        for tag in dangling {
            // A deletion takes the tag first: it may have been under way.
            let Ok(Some(digest)) = repository.tag(&tag) else { continue };
            if !repository.has_manifest(&digest) {
                self.dangling(repository, &tag, &digest)?;
            }
        }
        for tag in torn {
            let mut finding =
                Finding::new(Wrong::Torn { repository: repository.clone(), tag: tag.clone() });
            if self.repairs() && repository.is_mirrored() {
                repository.delete_tag(&tag)?;
                finding.mended = Some("it is asked for again at the upstream".to_owned());
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    /// A tag points at what the repository does not have. Where the bytes are in the store, the
    /// repository gets them back; a mirror asks its upstream again.
    fn dangling(
        &mut self,
        repository: &Repository,
        tag: &Tag,
        manifest: &Digest,
    ) -> Result<(), RepositoryError> {
        let mut finding = Finding::new(Wrong::Dangling {
            repository: repository.clone(),
            tag: tag.clone(),
            manifest: manifest.clone(),
        });
        if self.repairs() {
            if let Ok(Some(parsed)) = self.parse(manifest, None) {
                repository.put_manifest(&parsed.0, &parsed.1, &[])?;
                finding.mended = Some("the manifest was in the store".to_owned());
            } else if repository.is_mirrored() {
                repository.delete_tag(tag)?;
                finding.mended = Some("it is asked for again at the upstream".to_owned());
            }
        }
        self.findings.push(finding);
        Ok(())
    }

    fn manifest(
        &mut self,
        repository: &Repository,
        digest: &Digest,
        learnt: &mut Learnt,
    ) -> Result<(), RepositoryError> {
        let stored = repository.manifest(digest)?.map(|stored| stored.media_type);
        let parsed = if self.losses.contains_key(digest) {
            None
        } else {
            match self.parse(digest, stored.clone()) {
                Ok(parsed) => parsed,
                Err(Unparsed::Store(error)) => return Err(error.into()),
                Err(Unparsed::Not(problem)) => {
                    learnt.findings.push(Wrong::Manifest {
                        repository: repository.clone(),
                        manifest: digest.clone(),
                        tags: learnt.tags.get(digest).cloned().unwrap_or_default(),
                        problem,
                    });
                    return Ok(());
                }
            }
        };
        let Some((manifest, media_type)) = parsed else {
            let is_there = self.root.store().stat_blocking(digest)?.is_some();
            let is_lost = self.losses.contains_key(digest) || !is_there;
            if is_lost && repository.has_manifest(digest) {
                self.lose(digest, How::Missing);
                learnt.broken.insert((digest.clone(), digest.clone()));
                // What it needs is known without it.
                let is_hosted = repository.key().starts_with("hosted/");
                for needed in repository.refs(digest)? {
                    learnt.needed.insert(needed.clone());
                    learnt.parents.entry(needed.clone()).or_default().push(digest.clone());
                    let is_there = self.root.store().stat_blocking(&needed)?.is_some();
                    if !is_there && (is_hosted || repository.has_blob(&needed)?) {
                        self.lose(&needed, How::Missing);
                    }
                    if self.losses.contains_key(&needed) {
                        learnt.broken.insert((digest.clone(), needed));
                    }
                }
            }
            return Ok(());
        };
        if !repository.is_described(&manifest, &media_type)? && repository.has_manifest(digest) {
            let mut finding = Finding::new(Wrong::Refs {
                repository: repository.clone(),
                manifest: digest.clone(),
            });
            if self.repairs() {
                repository.describe_again(&manifest, &media_type)?;
                finding.mended = Some("they were written again".to_owned());
            }
            self.findings.push(finding);
        }
        for blob in manifest.value().blobs() {
            let may_lack = repository.is_mirrored() && !repository.has_blob(&blob.digest)?;
            self.need(repository, digest, blob, may_lack, learnt)?;
        }
        // Whoever pulls an index for one machine has the other images of it on purpose not, and a
        // mirror has what was asked for. What was pushed must be there.
        let may_lack = !repository.key().starts_with("hosted/");
        for listed in manifest.value().manifests() {
            learnt.parents.entry(listed.digest.clone()).or_default().push(digest.clone());
            self.need(repository, digest, listed, may_lack, learnt)?;
        }
        Ok(())
    }

    /// Looks for what a manifest needs, and whether it has the size that the manifest says.
    fn need(
        &mut self,
        repository: &Repository,
        manifest: &Digest,
        needed: &Descriptor,
        may_lack: bool,
        learnt: &mut Learnt,
    ) -> Result<(), RepositoryError> {
        let digest = &needed.digest;
        learnt.needed.insert(digest.clone());
        let mut has = None;
        if !self.losses.contains_key(digest) {
            has = self.root.store().stat_blocking(digest)?.map(|blob| blob.size);
            if has.is_some_and(|has| has != needed.size) && !self.whole.contains(digest) {
                // A check by sizes alone: what has another one is read.
                self.read_blob(digest)?;
            }
        }
        if self.losses.contains_key(digest) {
            learnt.broken.insert((manifest.clone(), digest.clone()));
            return Ok(());
        }
        match has {
            Some(has) if has != needed.size => learnt.findings.push(Wrong::Size {
                repository: repository.clone(),
                manifest: manifest.clone(),
                tags: learnt.tags.get(manifest).cloned().unwrap_or_default(),
                blob: digest.clone(),
                says: needed.size,
                has,
            }),
            None if !may_lack && repository.has_manifest(manifest) => {
                self.lose(digest, How::Missing);
                learnt.broken.insert((manifest.clone(), digest.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks for blobs that the repository says it has, and that no manifest needs.
    fn links(&mut self, repository: &Repository, learnt: &Learnt) -> Result<(), RepositoryError> {
        for blob in repository.blobs()? {
            if let Some(loss) = self.losses.get_mut(&blob) {
                loss.holders.push(format!("{} has it", repository.key()));
                continue;
            }
            let is_there = || self.root.store().stat_blocking(&blob);
            if learnt.needed.contains(&blob) || is_there()?.is_some() {
                continue;
            }
            // It may have been pushed and deleted since.
            if !repository.has_blob(&blob)? || is_there()?.is_some() {
                continue;
            }
            let wrong = Wrong::Link { repository: repository.clone(), blob: blob.clone() };
            let mut finding = Finding::new(wrong);
            if self.repairs() {
                repository.unlink_blob(&blob)?;
                finding.mended = Some("it is not listed any more".to_owned());
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    /// Tells each loss what it breaks here.
    fn conclude(&mut self, repository: &Repository, learnt: &Learnt) {
        self.findings.extend(learnt.findings.iter().cloned().map(Finding::new));
        let mut tags: BTreeMap<&Digest, Vec<Tag>> = BTreeMap::new();
        for (manifest, lost) in &learnt.broken {
            let tags = tags.entry(manifest).or_insert_with(|| learnt.tags_above(manifest));
            if let Some(loss) = self.losses.get_mut(lost) {
                loss.breaks.push(Broken {
                    repository: repository.clone(),
                    manifest: manifest.clone(),
                    tags: tags.clone(),
                });
            }
        }
    }

    /// Reads a manifest; `None` where it is not there, or is lost by being read.
    fn parse(
        &mut self,
        digest: &Digest,
        media_type: Option<MediaType>,
    ) -> Result<Option<(Raw<Manifest>, MediaType)>, Unparsed> {
        let Some(file) = self.root.store().open_blocking(digest)? else { return Ok(None) };
        let bytes = match Blob::File(file).into_bytes(Manifest::SIZE_MAX) {
            Ok(bytes) => bytes,
            Err(StoreError::TooLarge { size, .. }) => {
                return Err(Unparsed::Not(format!("it has {size} bytes")));
            }
            // Reading it once more says what is wrong.
            Err(_) => Bytes::new(),
        };
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            self.read_blob(digest)?;
            return Ok(None);
        }
        let Some(media_type) = media_type.or_else(|| type_inside(&bytes)) else {
            return Err(Unparsed::Not("nothing says of which type it is".to_owned()));
        };
        match Manifest::parse_expecting(bytes, &media_type, digest) {
            Ok(manifest) => Ok(Some((manifest, media_type))),
            Err(error) => Err(Unparsed::Not(error.to_string())),
        }
    }
}

/// Why there is no manifest to look at.
enum Unparsed {
    Store(StoreError),
    Not(String),
}

impl From<StoreError> for Unparsed {
    fn from(error: StoreError) -> Unparsed {
        Unparsed::Store(error)
    }
}

impl Learnt {
    /// Returns the tags that lead to a manifest, directly or by an index.
    fn tags_above(&self, manifest: &Digest) -> Vec<Tag> {
        let mut tags = BTreeSet::new();
        let mut seen = HashSet::from([manifest]);
        let mut waiting = vec![manifest];
        while let Some(digest) = waiting.pop() {
            tags.extend(self.tags.get(digest).into_iter().flatten().cloned());
            let parents = self.parents.get(digest).into_iter().flatten();
            waiting.extend(parents.filter(|parent| seen.insert(parent)));
        }
        tags.into_iter().collect()
    }
}

fn type_inside(bytes: &[u8]) -> Option<MediaType> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inside {
        media_type: Option<MediaType>,
    }
    serde_json::from_slice::<Inside>(bytes).ok()?.media_type
}
