//! Quotas: how much the repositories below a name may hold, enforced before bytes are stored.
//!
//! A blob counts once for a quota, however many of its repositories have it. What they hold is
//! listed once, when the server starts or the rules change; from then on the server counts what it
//! does itself, and the journal tells what other processes do. So a push costs a look into a map.
//! What is being uploaded is reserved as it comes, so that two uploads at once cannot go beyond a
//! limit together. What counts is decided under one lock, which nobody holds while waiting for a
//! disk.

mod book;
mod follow;
mod reservation;
mod rule;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boatyard_content::Root;
use boatyard_content::repository::{Repository, RepositoryError, Space};
use boatyard_content::{IngestKey, StoreError};
use boatyard_oci::{Digest, RepositoryName, Tag};

use book::{Book, Used, blob_id, tag_id};
use follow::{Following, News};
use reservation::{Held, Wanted};

pub use reservation::Reservation;
pub use rule::{Exceeded, Limited, QuotaRule, QuotaUse};

/// The quotas of a root. One value as long as a server runs, whatever its configuration says.
#[derive(Debug)]
pub struct Quotas {
    root: Arc<Root>,
    state: Mutex<State>,
    /// Taken before `state`, by whoever reads files.
    following: Mutex<Option<Following>>,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    /// What is being uploaded, by a number for each.
    open: HashMap<u64, Open>,
    /// Those of upload sessions.
    sessions: HashMap<IngestKey, u64>,
    next: u64,
}

/// Something that is on its way into a repository.
#[derive(Clone, Debug)]
struct Open {
    repository: RepositoryName,
    bytes: u64,
    /// How many tags the repository did not have.
    tags: u64,
    /// The upload session that it is of.
    session: Option<IngestKey>,
    /// No request is sending it now: its session may have expired.
    is_idle: bool,
}

impl Open {
    /// Returns something of which nothing came yet.
    fn begun(repository: &RepositoryName) -> Open {
        let repository = repository.clone();
        Open { repository, bytes: 0, tags: 0, session: None, is_idle: false }
    }

    /// Returns an upload session with what came in it.
    fn session(repository: &RepositoryName, session: &IngestKey, bytes: u64) -> Open {
        Open { bytes, session: Some(session.clone()), ..Open::begun(repository) }
    }
}

impl Quotas {
    /// Returns the quotas of a root, none so far.
    pub fn new(root: Arc<Root>) -> Arc<Quotas> {
        Arc::new(Quotas { root, state: Mutex::default(), following: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these rules count from now on, and lists what there is. Blocks.
    ///
    /// # Errors
    /// Where something cannot be listed: then the old ones stay.
    pub fn configure(&self, rules: Vec<QuotaRule>) -> Result<(), RepositoryError> {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().book.rules() == rules {
            return Ok(());
        }
        // What changes while it is listed is told by the journal afterwards.
        let from_here = Following::new(&self.root)?;
        let unlimited = rules.is_empty();
        let book = Book::of(&self.root, rules)?;
        let sessions = sessions(&self.root, &book)?;
        let mut state = self.state();
        *following = (!unlimited).then_some(from_here);
        state.replace(book);
        for (repository, session, bytes) in sessions {
            if !state.sessions.contains_key(&session) {
                state.add(Open { is_idle: true, ..Open::session(&repository, &session, bytes) });
            }
        }
        Ok(())
    }

    /// Returns how much of each quota is used.
    pub fn usage(&self) -> Vec<QuotaUse> {
        self.state().usage()
    }

    /// Counts what other processes have changed. Blocks.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn catch_up(&self) -> Result<(), RepositoryError> {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(following) = following.as_mut() else { return Ok(()) };
        let covers = |name: &RepositoryName| self.state().book.covers(name);
        match following.read(&self.root, &covers)? {
            News::Changes(changes) => {
                let mut state = self.state();
                changes.into_iter().for_each(|change| change.apply(&mut state.book));
            }
            News::Anything => {
                let rules = self.state().book.rules().to_vec();
                let book = Book::of(&self.root, rules)?;
                self.state().replace(book);
                following.listed();
            }
        }
        Ok(())
    }

    /// Says whether a repository has a quota.
    pub fn covers(&self, repository: &RepositoryName) -> bool {
        self.state().book.covers(repository)
    }

    /// Reserves nothing yet for something that is going to be pushed.
    pub fn open(self: &Arc<Self>, repository: &RepositoryName) -> Reservation {
        let mut state = self.state();
        if !state.book.covers(repository) {
            return Reservation::free();
        }
        let number = state.add(Open::begun(repository));
        Reservation(Some(Held { quotas: Arc::clone(self), number }))
    }

    /// As [`Quotas::open`], and refuses it where nothing more fits. Blocks where it is refused.
    ///
    /// # Errors
    /// [`Exceeded`], inside.
    pub fn begin(
        self: &Arc<Self>,
        repository: &RepositoryName,
    ) -> Result<Result<Reservation, Exceeded>, RepositoryError> {
        let reservation = self.open(repository);
        Ok(match reservation.try_reserve(Wanted::Anything)? {
            Ok(()) => Ok(reservation),
            Err(exceeded) => Err(exceeded),
        })
    }

    /// As [`Quotas::begin`], for an upload session of which this many bytes are there already:
    /// they count even where they do not fit.
    pub fn resume(
        self: &Arc<Self>,
        repository: &RepositoryName,
        session: &IngestKey,
        bytes: u64,
    ) -> Reservation {
        let mut state = self.state();
        if !state.book.covers(repository) {
            return Reservation::free();
        }
        // A session has one writer: what was kept for it is the writer's now.
        state.remove_session(session);
        let number = state.add(Open::session(repository, session, bytes));
        Reservation(Some(Held { quotas: Arc::clone(self), number }))
    }

    /// Says whether a blob would take nothing more: all quotas of a repository count it already.
    pub fn has(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.state().book.has(repository, blob_id(digest))
    }

    /// Forgets the reservation of an upload session that has ended.
    pub fn end(&self, session: &IngestKey) {
        self.state().remove_session(session);
    }

    /// Forgets the reservations of upload sessions that have ended by themselves.
    fn forget_ended(&self) -> Result<(), RepositoryError> {
        let open: Vec<(u64, RepositoryName, IngestKey)> = self
            .state()
            .open
            .iter()
            .filter(|(_, open)| open.is_idle)
            .filter_map(|(number, open)| {
                Some((*number, open.repository.clone(), open.session.clone()?))
            })
            .collect();
        for (number, name, session) in open {
            let repository = self.root.repositories().repository(&Space::Hosted, &name);
            if !repository.has_upload(&session)? {
                let mut state = self.state();
                state.remove(number);
            }
        }
        Ok(())
    }
}

/// Returns the upload sessions of the repositories that quotas cover, with what came in them.
fn sessions(
    root: &Root,
    book: &Book,
) -> Result<Vec<(RepositoryName, IngestKey, u64)>, RepositoryError> {
    let mut sessions = Vec::new();
    for repository in hosted(root)? {
        if book.covers(repository.name()) {
            let sizes = repository.upload_sizes()?;
            let name = repository.name();
            sessions.extend(sizes.into_iter().map(|(key, bytes)| (name.clone(), key, bytes)));
        }
    }
    Ok(sessions)
}

/// Returns the hosted repositories.
fn hosted(root: &Root) -> Result<Vec<Repository>, StoreError> {
    let all = root.repositories().all()?;
    Ok(all.into_iter().filter(|repository| repository.key().starts_with("hosted/")).collect())
}

impl State {
    fn add(&mut self, open: Open) -> u64 {
        self.next += 1;
        self.book.reserve(&open.repository, open.bytes, open.tags);
        if let Some(session) = &open.session {
            self.sessions.insert(session.clone(), self.next);
        }
        self.open.insert(self.next, open);
        self.next
    }

    fn remove_session(&mut self, session: &IngestKey) {
        if let Some(number) = self.sessions.get(session).copied() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        self.book.give_back(&open.repository, open.bytes, open.tags);
        if let Some(session) = &open.session {
            self.sessions.remove(session);
        }
        Some(open)
    }

    /// Counts by another book from now on.
    fn replace(&mut self, book: Book) {
        self.book = book;
        for open in self.open.values() {
            self.book.reserve(&open.repository, open.bytes, open.tags);
        }
    }

    fn usage(&self) -> Vec<QuotaUse> {
        let usage = |(rule, used, reserved): (&QuotaRule, Used, Used)| QuotaUse {
            rule: rule.clone(),
            bytes: used.bytes,
            bytes_reserved: reserved.bytes,
            tags: used.tags,
        };
        self.book.each().map(usage).collect()
    }

    /// Adds to what is reserved, if that fits.
    fn grow(&mut self, number: u64, wanted: Wanted<'_>) -> Result<(), Exceeded> {
        let Some(open) = self.open.get_mut(&number) else { return Ok(()) };
        let (bytes, tags) = match wanted {
            Wanted::Anything => (0, 0),
            Wanted::Bytes(bytes) => (bytes, 0),
            Wanted::Manifest { bytes, tags } => {
                let is_new = |tag: &&Tag| !self.book.has_tag(&open.repository, tag_id(tag));
                (bytes, tags.iter().filter(is_new).count() as u64)
            }
        };
        let must_leave = matches!(wanted, Wanted::Anything);
        let covering = self.book.each().filter(|(rule, ..)| rule.covers(&open.repository));
        for (rule, used, reserved) in covering {
            let check = |what, used: u64, wanted: u64, most: Option<u64>| {
                let Some(most) = most else { return Ok(()) };
                let is_full = must_leave && what == Limited::Bytes && used >= most;
                let is_more = wanted > 0 && used.saturating_add(wanted) > most;
                let quota = || rule.title();
                match is_full || is_more {
                    true => Err(Exceeded { quota: quota(), what, used, wanted, most }),
                    false => Ok(()),
                }
            };
            check(Limited::Bytes, used.bytes + reserved.bytes, bytes, rule.bytes_max)?;
            check(Limited::Tags, used.tags + reserved.tags, tags, rule.tags_max)?;
        }
        open.bytes += bytes;
        open.tags += tags;
        self.book.reserve(&open.repository, bytes, tags);
        Ok(())
    }
}

/// Measures what quotas count, without a server.
///
/// # Errors
/// Where something cannot be listed.
pub fn measure(root: &Root, rules: Vec<QuotaRule>) -> Result<Vec<QuotaUse>, RepositoryError> {
    let book = Book::of(root, rules)?;
    let mut state = State { book, ..State::default() };
    for (repository, session, bytes) in sessions(root, &state.book)? {
        state.add(Open::session(&repository, &session, bytes));
    }
    Ok(state.usage())
}

#[cfg(test)]
mod tests;
