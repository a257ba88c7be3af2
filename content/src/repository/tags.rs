//! Tags: movable pointers to manifests.

use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::time::SystemTime;

use boatyard_oci::{Digest, Tag};

use super::{Repository, RepositoryError, Told};
use crate::local::journal::{Change, EventKind};
use crate::local::{Staged, each_name, entries, read_if_there};
use crate::store::{Doing as _, StoreError};

impl Repository {
    pub(super) fn tag_path(&self, tag: &Tag) -> PathBuf {
        self.directory.join("_tags").join(tag.as_str())
    }

    /// Returns what a tag points at.
    ///
    /// # Errors
    /// Where its file cannot be read, or holds no digest.
    pub fn tag(&self, tag: &Tag) -> Result<Option<Digest>, RepositoryError> {
        let path = self.tag_path(tag);
        let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let digest = text
            .trim_end()
            .parse()
            .map_err(|_| StoreError::Damaged { path, problem: "it holds no digest".to_owned() })?;
        Ok(Some(digest))
    }

    /// Points tags at a manifest of this repository; durable when it returns.
    ///
    /// # Errors
    /// Where a file could not be written.
    pub fn set_tags(&self, tags: &[Tag], digest: &Digest) -> Result<(), RepositoryError> {
        let _lock = self.lock()?;
        self.tell(tags.iter().map(|tag| Told::tagged(tag, digest)).collect())?;
        let mut staged = Staged::new(&*self.root.disk);
        for tag in tags {
            staged.put(self.tag_path(tag), format!("{digest}\n").as_bytes())?;
        }
        Ok(staged.publish()?)
    }

    /// Returns when a tag was last written or confirmed; `None` where it is not there.
    ///
    /// # Errors
    /// Where the file system does not answer.
    pub fn tag_confirmed(&self, tag: &Tag) -> Result<Option<SystemTime>, RepositoryError> {
        match fs_err::metadata(self.tag_path(tag)) {
            Ok(metadata) => Ok(metadata.modified().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Ok(Err(error).doing("look at a tag")?),
        }
    }

    /// Notes that a tag still points where it does: a mirror has asked its upstream. That time
    /// may be lost in a crash; the upstream is asked once more then.
    ///
    /// # Errors
    /// Where the time could not be set.
    pub fn confirm_tag(&self, tag: &Tag, at: SystemTime) -> Result<(), RepositoryError> {
        let file = fs_err::File::options().write(true).open(self.tag_path(tag));
        let confirmed = file.and_then(|file| file.into_file().set_modified(at));
        match confirmed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            confirmed => Ok(confirmed.doing("confirm a tag")?),
        }
    }

    /// Deletes a tag; `false` where it was not there. The manifest stays.
    ///
    /// # Errors
    /// Where the file could not be deleted.
    pub fn delete_tag(&self, tag: &Tag) -> Result<bool, RepositoryError> {
        let _lock = self.lock()?;
        Ok(self.remove_tag(tag)?)
    }

    /// Deletes a tag; the caller has the lock.
    pub(super) fn remove_tag(&self, tag: &Tag) -> Result<bool, StoreError> {
        let path = self.tag_path(tag);
        if !path.try_exists().doing("look for a tag")? {
            return Ok(false);
        }
        self.tell(vec![Told::of(EventKind::Tag, Change::Delete, tag)])?;
        let removed = self.root.disk.remove_file(&path).doing("delete a tag")?;
        self.forget_use(tag.as_str());
        self.root.disk.sync_directory(&self.directory.join("_tags")).doing("sync a directory")?;
        Ok(removed)
    }

    /// Returns at most `most` tags behind `after`, in ASCII order. However many there are, no more
    /// than these are in memory at once.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn tags(&self, after: Option<&str>, most: usize) -> Result<Vec<Tag>, RepositoryError> {
        // The last of those that were found is on top.
        let mut tags: BinaryHeap<Tag> = BinaryHeap::new();
        each_name(&self.directory.join("_tags"), &mut |name| {
            let is_full = tags.len() >= most;
            let is_behind_all = || tags.peek().is_none_or(|last| name >= last.as_str());
            if after.is_some_and(|after| name <= after) || (is_full && is_behind_all()) {
                return;
            }
            // Only what belongs on the page so far is worth a closer look.
            let Ok(tag) = name.parse() else { return };
            tags.push(tag);
            if tags.len() > most {
                tags.pop();
            }
        })?;
        Ok(tags.into_sorted_vec())
    }

    /// Returns the tags that point at a manifest.
    ///
    /// # Errors
    /// Where a tag cannot be read.
    pub fn tags_of(&self, digest: &Digest) -> Result<Vec<Tag>, RepositoryError> {
        let mut tags = Vec::new();
        self.each_tag(|tag| {
            if self.tag(&tag)?.as_ref() == Some(digest) {
                tags.push(tag);
            }
            Ok(())
        })?;
        tags.sort_unstable();
        Ok(tags)
    }

    /// Visits all tags, in no order.
    pub(crate) fn each_tag(
        &self,
        mut visit: impl FnMut(Tag) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        for entry in entries(&self.directory.join("_tags")) {
            let name = entry?.file_name();
            if let Some(tag) = name.to_str().and_then(|name| name.parse::<Tag>().ok()) {
                visit(tag)?;
            }
        }
        Ok(())
    }
}
