//! Counting what other processes do, as the journal tells it.

use std::collections::BTreeMap;

use boatyard_content::local::journal::{Event, EventKind, Followed, Follower};
use boatyard_content::repository::{Repository, RepositoryError, Space};
use boatyard_content::{Root, StoreError};
use boatyard_oci::{Digest, RepositoryName, Tag};

use super::book::{BlobId, Book, blob_id, tag_id};

/// A place in the journal: what stands before it is counted, unless all has to be listed anew.
#[derive(Debug)]
pub(super) struct Following {
    follower: Follower,
    must_list: bool,
}

/// What has changed.
pub(super) enum News {
    /// These things.
    Changes(Vec<Change>),
    /// Nobody knows what.
    Anything,
}

/// What a repository has now, or no longer.
pub(super) enum Change {
    Blob { repository: RepositoryName, blob: BlobId, size: Option<u64> },
    Tag { repository: RepositoryName, tag: u64, is_there: bool },
}

impl Change {
    pub(super) fn apply(self, book: &mut Book) {
        match self {
            Change::Blob { repository, blob, size: Some(size) } => {
                book.put_blob(&repository, blob, size);
            }
            Change::Blob { repository, blob, size: None } => book.take_blob(&repository, blob),
            Change::Tag { repository, tag, is_there: true } => book.put_tag(&repository, tag),
            Change::Tag { repository, tag, is_there: false } => book.take_tag(&repository, tag),
        }
    }
}

impl Following {
    /// Begins at the journal's end.
    pub(super) fn new(root: &Root) -> Result<Following, StoreError> {
        Ok(Following { follower: root.journal().follow()?, must_list: false })
    }

    /// Says that all was listed anew, after [`News::Anything`].
    pub(super) fn listed(&mut self) {
        self.must_list = false;
    }

    /// Returns what changed since the last time in repositories that are covered: the journal says
    /// what may have changed, the files say what is.
    pub(super) fn read(
        &mut self,
        root: &Root,
        covers: &dyn Fn(&RepositoryName) -> bool,
    ) -> Result<News, RepositoryError> {
        let events = match self.follower.read()? {
            Followed::Events(events) if !self.must_list => events,
            Followed::Events(_) | Followed::Gap => {
                self.must_list = true;
                return Ok(News::Anything);
            }
        };
        // What fails now is not read again.
        self.must_list = true;
        let changes = changes(root, events, covers)?;
        self.must_list = false;
        Ok(News::Changes(changes))
    }
}

fn changes(
    root: &Root,
    events: Vec<Event>,
    covers: &dyn Fn(&RepositoryName) -> bool,
) -> Result<Vec<Change>, RepositoryError> {
    let mut changed: BTreeMap<RepositoryName, Vec<Event>> = BTreeMap::new();
    for event in events {
        let name = event.repository.strip_prefix("hosted/").and_then(|name| name.parse().ok());
        if let Some(name) = name.filter(covers) {
            changed.entry(name).or_default().push(event);
        }
    }
    let mut changes = Vec::new();
    for (name, events) in changed {
        let repository = root.repositories().repository(&Space::Hosted, &name);
        // A line is written before the deed, under the repository's lock.
        repository.settle()?;
        for event in events {
            changes.extend(change(root, &repository, &event)?);
        }
    }
    Ok(changes)
}

fn change(
    root: &Root,
    repository: &Repository,
    event: &Event,
) -> Result<Option<Change>, RepositoryError> {
    let name = repository.name().clone();
    if event.kind == EventKind::Tag {
        let Ok(tag) = event.name.parse::<Tag>() else { return Ok(None) };
        let is_there = repository.tag_confirmed(&tag)?.is_some();
        return Ok(Some(Change::Tag { repository: name, tag: tag_id(&tag), is_there }));
    }
    let Ok(digest) = event.name.parse::<Digest>() else { return Ok(None) };
    let is_there = repository.has_blob(&digest)? || repository.manifest(&digest)?.is_some();
    let size = match is_there {
        true => Some(root.store().stat_blocking(&digest)?.map_or(0, |blob| blob.size)),
        false => None,
    };
    Ok(Some(Change::Blob { repository: name, blob: blob_id(&digest), size }))
}
