//! The manifests of a repository, and what each refers to.

use boatyard_oci::{Descriptor, Digest, Manifest, MediaType, Raw, Tag};

use super::{Repository, RepositoryError, Told};
use crate::local::journal::{Change, EventKind};
use crate::local::{Staged, entries, read_if_there, temporary_name};
use crate::store::{Doing as _, StoreError};

/// A manifest that a repository has. Its bytes are a blob of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The Content-Type that it was pushed with: the bytes may lack `mediaType`.
    pub media_type: MediaType,
}

impl Repository {
    pub(super) fn manifest_directory(&self, digest: &Digest) -> std::path::PathBuf {
        self.directory.join("_manifests").join(digest.to_string())
    }

    /// Puts a manifest, whose bytes are a blob of the store that the caller's lease holds, and
    /// points tags at it. Durable when it returns. It does not look whether what the manifest
    /// refers to is there.
    ///
    /// # Errors
    /// Where a file could not be written. The manifest may be there then, the tags not.
    pub fn put_manifest(
        &self,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
        tags: &[Tag],
    ) -> Result<(), RepositoryError> {
        self.put_manifest_moving(manifest, media_type, tags, |_| true).map(drop)
    }

    /// As [`Repository::put_manifest`]; returns the tags that pointed at another manifest before,
    /// and at which. Those are moved only where `may_move` says so of each: else nothing is done at all.
    ///
    /// # Errors
    /// Also [`RepositoryError::TagTaken`].
    pub fn put_manifest_moving(
        &self,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
        tags: &[Tag],
        may_move: impl Fn(&Tag) -> bool,
    ) -> Result<Vec<(Tag, Digest)>, RepositoryError> {
        let digest = manifest.digest();
        let _lock = self.lock()?;
        let mut moved = Vec::new();
        for tag in tags {
            let before = match self.tag(tag) {
                // What holds no digest points at nothing; it is written anew.
                Err(RepositoryError::Store(StoreError::Damaged { .. })) => None,
                before => before?,
            };
            let Some(before) = before.filter(|before| before != digest) else { continue };
            if !may_move(tag) {
                return Err(RepositoryError::TagTaken { tag: tag.clone() });
            }
            moved.push((tag.clone(), before));
        }
        let mut changes = vec![Told::of(EventKind::Manifest, Change::Put, digest)];
        changes.extend(tags.iter().map(|tag| Told::tagged(tag, digest)));
        self.tell(changes)?;
        let needed = manifest.value().blobs().into_iter().chain(manifest.value().manifests());
        let mut needed: Vec<Digest> = needed.map(|needed| needed.digest.clone()).collect();
        needed.push(digest.clone());
        self.refer(&needed, || self.write_manifest(manifest, media_type))?;
        let mut staged = Staged::new(&*self.root.disk);
        if let Some(subject) = manifest.value().subject() {
            let descriptor = referrer_descriptor(manifest, media_type);
            let bytes = serde_json::to_vec(&descriptor).expect("maps with text keys serialise");
            staged.put(self.referrer_path(&subject.digest, digest), &bytes)?;
        }
        for tag in tags {
            staged.put(self.tag_path(tag), format!("{digest}\n").as_bytes())?;
        }
        staged.publish()?;
        Ok(moved)
    }

    /// Writes the manifest's directory whole and renames it into place.
    fn write_manifest(
        &self,
        manifest: &Raw<Manifest>,
        media_type: &MediaType,
    ) -> Result<(), StoreError> {
        let disk = &*self.root.disk;
        let place = self.manifest_directory(manifest.digest());
        if place.is_dir() {
            let there = read_if_there(&place.join("type"))?;
            if there.as_deref() == Some(media_type.as_str().as_bytes()) {
                return self.renew_manifest(manifest.digest()).map(drop);
            }
            let mut staged = Staged::new(disk);
            staged.put(place.join("type"), media_type.as_str().as_bytes())?;
            return staged.publish();
        }
        let manifests = self.make("_manifests")?;
        let directory = manifests.join(temporary_name());
        let mut staged = Staged::new(disk);
        staged.put(directory.join("type"), media_type.as_str().as_bytes())?;
        staged.put(directory.join("refs"), refs_text(manifest.value()).as_bytes())?;
        staged.publish()?;
        disk.rename(&directory, &place).doing("put a manifest in its place")?;
        disk.sync_directory(&manifests).doing("sync a directory")
    }

    /// Says of a manifest that it was pushed, or is relied on, just now; `false` where it is not
    /// there.
    fn renew_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        let file =
            fs_err::File::options().write(true).open(self.manifest_directory(digest).join("type"));
        let now = std::time::SystemTime::now();
        match file.and_then(|file| file.into_file().set_modified(now)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).doing("renew a manifest"),
        }
    }

    /// Says whether a manifest is here, and if so that it is relied on now: who decided before to
    /// retire it leaves it alone.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn hold_manifest(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        let _lock = self.lock_shared()?;
        Ok(self.renew_manifest(digest)?)
    }

    /// Returns a manifest that this repository has.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<StoredManifest>, RepositoryError> {
        let bytes = read_if_there(&self.manifest_directory(digest).join("type"))?;
        Ok(bytes.map(|bytes| StoredManifest {
            digest: digest.clone(),
            media_type: MediaType::new(&String::from_utf8_lossy(&bytes)),
        }))
    }

    /// Deletes a manifest with all its tags; `false` where it was not there.
    ///
    /// # Errors
    /// Where a file could not be deleted.
    pub fn delete_manifest(&self, digest: &Digest) -> Result<bool, RepositoryError> {
        self.delete_manifest_unless(digest, |_| false)
    }

    /// As [`Repository::delete_manifest`], unless one of its tags is to be kept.
    ///
    /// # Errors
    /// Also [`RepositoryError::TagKept`]: then nothing is deleted.
    pub fn delete_manifest_unless(
        &self,
        digest: &Digest,
        is_kept: impl Fn(&Tag) -> bool,
    ) -> Result<bool, RepositoryError> {
        let _lock = self.lock()?;
        if self.manifest(digest)?.is_none() {
            return Ok(false);
        }
        let tags = self.tags_of(digest)?;
        if let Some(tag) = tags.iter().find(|tag| is_kept(tag)) {
            return Err(RepositoryError::TagKept { tag: tag.clone() });
        }
        self.remove_manifest(digest, &tags)?;
        Ok(true)
    }

    /// Deletes a manifest with these tags, all that it has; the caller has the lock.
    pub(super) fn remove_manifest(
        &self,
        digest: &Digest,
        tags: &[Tag],
    ) -> Result<(), RepositoryError> {
        let mut changes = vec![Told::of(EventKind::Manifest, Change::Delete, digest)];
        changes.extend(tags.iter().map(|tag| Told::of(EventKind::Tag, Change::Delete, tag)));
        self.tell(changes)?;
        let disk = &*self.root.disk;
        for tag in tags {
            disk.remove_file(&self.tag_path(tag)).doing("delete a tag")?;
            self.forget_use(tag.as_str());
        }
        if !tags.is_empty() {
            disk.sync_directory(&self.directory.join("_tags")).doing("sync a directory")?;
        }
        for subject in self.subjects(digest)? {
            disk.remove_file(&self.referrer_path(&subject, digest)).doing("delete a referrer")?;
        }
        let manifests = self.directory.join("_manifests");
        let aside = manifests.join(temporary_name());
        disk.rename(&self.manifest_directory(digest), &aside).doing("delete a manifest")?;
        disk.sync_directory(&manifests).doing("sync a directory")?;
        self.forget_use(&digest.to_string());
        // It is gone; what is left of it has a temporary name, which the collector knows.
        for file in ["type", "refs"] {
            let _ = disk.remove_file(&aside.join(file));
        }
        let _ = disk.remove_directory(&aside);
        Ok(())
    }

    /// Returns the digests of all manifests, in no order.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn manifests(&self) -> Result<Vec<Digest>, RepositoryError> {
        let mut digests = Vec::new();
        for entry in entries(&self.directory.join("_manifests")) {
            digests
                .extend(entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    /// Returns what a manifest needs: blobs and manifests, without reading it.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn refs(&self, manifest: &Digest) -> Result<Vec<Digest>, RepositoryError> {
        self.refs_of_kinds(manifest, &["blob", "manifest"])
    }

    /// Returns the blobs that a manifest needs, without the manifests that it lists.
    pub(crate) fn blob_refs(&self, manifest: &Digest) -> Result<Vec<Digest>, RepositoryError> {
        self.refs_of_kinds(manifest, &["blob"])
    }

    /// Returns the manifests that a manifest lists, without the blobs that it needs.
    pub(crate) fn manifest_refs(&self, manifest: &Digest) -> Result<Vec<Digest>, RepositoryError> {
        self.refs_of_kinds(manifest, &["manifest"])
    }

    pub(super) fn subjects(&self, manifest: &Digest) -> Result<Vec<Digest>, RepositoryError> {
        self.refs_of_kinds(manifest, &["subject"])
    }

    fn refs_of_kinds(
        &self,
        manifest: &Digest,
        kinds: &[&str],
    ) -> Result<Vec<Digest>, RepositoryError> {
        let path = self.manifest_directory(manifest).join("refs");
        let bytes = read_if_there(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let digests = lines.filter(|(kind, _)| kinds.contains(kind));
        digests
            .map(|(_, digest)| {
                digest.parse().map_err(|_| {
                    let problem = format!("`{}` is not a digest", digest.escape_debug());
                    StoreError::Damaged { path: path.clone(), problem }.into()
                })
            })
            .collect()
    }
}

/// Returns what stands in `refs`: a line for each thing the manifest points at.
fn refs_text(manifest: &Manifest) -> String {
    let blobs = manifest.blobs().into_iter().map(|blob| ("blob", blob));
    let manifests = manifest.manifests().iter().map(|child| ("manifest", child));
    let subject = manifest.subject().into_iter().map(|subject| ("subject", subject));
    blobs
        .chain(manifests)
        .chain(subject)
        .map(|(kind, descriptor)| format!("{kind} {}\n", descriptor.digest))
        .collect()
}

/// Returns the descriptor under which the referrers API lists a manifest.
fn referrer_descriptor(manifest: &Raw<Manifest>, media_type: &MediaType) -> Descriptor {
    let mut descriptor =
        Descriptor::new(media_type.clone(), manifest.digest().clone(), manifest.size());
    descriptor.artifact_type = manifest.value().artifact_type().cloned();
    descriptor.annotations.clone_from(manifest.value().annotations());
    descriptor
}
