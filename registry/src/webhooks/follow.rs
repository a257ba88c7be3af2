//! What happened, as the journal and the files tell it together.
//!
//! A line of the journal is written before the deed, and its writer may have died in between. So
//! the last line about a thing counts only where the files show it; those before it are taken at
//! their word.

use std::collections::{BTreeSet, HashMap};

use boatyard_content::local::journal::{Change, Event, EventKind, Followed, Follower, Place};
use boatyard_content::repository::{Repository, RepositoryError, Space};
use boatyard_content::{Root, StoreError};
use boatyard_oci::{Digest, RepositoryName, Tag};

use super::event::{Action, Happened, Note};
use super::owed::Shelf;

/// A place in the journal: what stands before it was told.
#[derive(Debug)]
pub(super) struct Following(Follower);

/// What stood in the journal.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) happened: Vec<Happened>,
    /// Up to where.
    pub(super) place: Place,
}

impl Following {
    /// Goes on where the last server was, or begins at the end.
    pub(super) fn begin(root: &Root, shelf: &Shelf) -> Result<Following, StoreError> {
        let journal = root.journal();
        if let Some(place) = shelf.read_place()? {
            return Ok(Following(journal.follow_from(place)));
        }
        let follower = journal.follow()?;
        shelf.put_place(follower.place())?;
        Ok(Following(follower))
    }

    /// Returns what was written since the last time; `None` where nothing was. Where it fails, the
    /// same is read again.
    pub(super) fn read(&mut self, root: &Root) -> Result<Option<Read>, RepositoryError> {
        let mut ahead = self.0.clone();
        let followed = ahead.read()?;
        let place = ahead.place();
        if place == self.0.place() {
            return Ok(None);
        }
        let events = match followed {
            Followed::Events(events) => events,
            Followed::Gap => {
                tracing::warn!(
                    "the journal does not reach back to where webhooks were told last: what \
                     happened in between is told to nobody"
                );
                Vec::new()
            }
        };
        let happened = happened(root, &events)?;
        self.0 = ahead;
        Ok(Some(Read { happened, place }))
    }
}

/// A thing that lines are about.
type Thing<'a> = (&'a str, EventKind, &'a str);

/// Lines with what the files say now.
struct Told<'a> {
    /// The last line about each thing.
    last: HashMap<Thing<'a>, usize>,
}

impl Told<'_> {
    /// Says whether a line came true.
    fn is_true(
        &self,
        at: usize,
        event: &Event,
        now: impl FnOnce() -> Result<bool, RepositoryError>,
    ) -> Result<bool, RepositoryError> {
        let thing = (event.repository.as_str(), event.kind, event.name.as_str());
        if self.last.get(&thing) == Some(&at) { now() } else { Ok(true) }
    }
}

fn happened(root: &Root, events: &[Event]) -> Result<Vec<Happened>, RepositoryError> {
    let mut last = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        last.insert((event.repository.as_str(), event.kind, event.name.as_str()), at);
    }
    let told = Told { last };
    let mut settled = BTreeSet::new();
    let mut happened = Vec::new();
    let mut at = 0;
    while at < events.len() {
        let first = &events[at];
        let same = |event: &&Event| event.at == first.at && event.repository == first.repository;
        // One deed writes its lines at once, with one time.
        let group = &events[at..at + events[at..].iter().take_while(same).count()];
        let name = first.repository.strip_prefix("hosted/").and_then(|name| name.parse().ok());
        if let Some(name) = name {
            let repository = root.repositories().repository(&Space::Hosted, &name);
            if settled.insert(first.repository.as_str()) {
                repository.settle()?;
            }
            one(root, &repository, &told, group, at, &mut happened)?;
        }
        at += group.len();
    }
    Ok(happened)
}

/// Says what one deed was.
fn one(
    root: &Root,
    repository: &Repository,
    told: &Told<'_>,
    group: &[Event],
    at: usize,
    happened: &mut Vec<Happened>,
) -> Result<(), RepositoryError> {
    let manifest = group.iter().position(|event| event.kind == EventKind::Manifest);
    let tags = group.iter().enumerate().filter(|(_, event)| event.kind == EventKind::Tag);
    let mut tell = |event: &Event, action, digest: Option<Digest>, tag: Option<&str>| {
        let one = describe(root, repository, event, action, digest, tag)?;
        happened.push(one);
        Ok::<_, RepositoryError>(())
    };
    if let Some(place) = manifest {
        let event = &group[place];
        let Ok(digest) = event.name.parse::<Digest>() else { return Ok(()) };
        let is_put = event.change == Change::Put;
        let now = || Ok(repository.manifest(&digest)?.is_some() == is_put);
        if !told.is_true(at + place, event, now)? {
            return Ok(());
        }
        if !is_put {
            return tell(event, Action::Delete, Some(digest), None);
        }
        let mut is_tagged = false;
        for (place, tag) in tags {
            is_tagged = true;
            if told.is_true(at + place, tag, || points(repository, tag, &digest))? {
                tell(tag, Action::Push, Some(digest.clone()), Some(&tag.name))?;
            }
        }
        return if is_tagged { Ok(()) } else { tell(event, Action::Push, Some(digest), None) };
    }
    for (place, event) in group.iter().enumerate() {
        let at = at + place;
        match (event.kind, event.change) {
            (EventKind::Tag, Change::Put) => {
                let digest = event.digest.as_deref().and_then(|digest| digest.parse().ok());
                let Some(digest) = digest else { continue };
                if told.is_true(at, event, || points(repository, event, &digest))? {
                    tell(event, Action::Push, Some(digest), Some(&event.name))?;
                }
            }
            (EventKind::Tag, Change::Delete) => {
                let is_gone = || match event.name.parse::<Tag>() {
                    Ok(tag) => Ok(repository.tag_confirmed(&tag)?.is_none()),
                    Err(_) => Ok(false),
                };
                if told.is_true(at, event, is_gone)? {
                    tell(event, Action::Delete, None, Some(&event.name))?;
                }
            }
            // What has no note was pushed or collected: that is nothing that people do.
            (EventKind::Blob, change) => {
                let Ok(digest) = event.name.parse::<Digest>() else { continue };
                let note = note_of(event);
                let action = match change {
                    Change::Put if note.is_some_and(|note| note.from.is_some()) => Action::Mount,
                    Change::Delete if event.note.is_some() => Action::Delete,
                    _ => continue,
                };
                let is_put = change == Change::Put;
                if told.is_true(at, event, || Ok(repository.has_blob(&digest)? == is_put))? {
                    tell(event, action, Some(digest), None)?;
                }
            }
            // Packages are no repository's of the registry.
            (EventKind::Manifest | EventKind::Package, _) => {}
        }
    }
    Ok(())
}

fn points(
    repository: &Repository,
    event: &Event,
    digest: &Digest,
) -> Result<bool, RepositoryError> {
    let Ok(tag) = event.name.parse::<Tag>() else { return Ok(false) };
    Ok(repository.see_tag(&tag)?.is_some_and(|seen| seen.digest == *digest))
}

fn note_of(event: &Event) -> Option<Note> {
    serde_json::from_str(event.note.as_deref()?).ok()
}

fn describe(
    root: &Root,
    repository: &Repository,
    event: &Event,
    action: Action,
    digest: Option<Digest>,
    tag: Option<&str>,
) -> Result<Happened, RepositoryError> {
    let (mut media_type, mut size) = (None, None);
    if let Some(digest) = &digest {
        media_type = repository.manifest(digest)?.map(|manifest| manifest.media_type);
        size = root.store().stat_blocking(digest)?.map(|blob| blob.size);
    }
    Ok(Happened {
        id: id(event, repository.name()),
        at: event.at,
        action,
        repository: repository.name().clone(),
        digest,
        media_type,
        size,
        tag: tag.map(str::to_owned),
        note: note_of(event),
    })
}

/// Returns the id of what a line tells: the same each time that the line is read.
fn id(event: &Event, repository: &RepositoryName) -> String {
    let Event { at, name, kind, change, .. } = event;
    let text = format!("{at} {repository} {kind:?} {change:?} {name}");
    let digest = Digest::sha256(text.as_bytes());
    let hex = digest.hex();
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
    // > "UUIDv8 provides a format for experimental or vendor-specific use cases" (RFC 9562, 5.8)
    format!("{a}-{b}-8{c}-8{d}-{e}")
}
