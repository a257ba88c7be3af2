//! Webhooks: who is told what was pushed, pulled, deleted and mounted, in the form of docker's
//! notifications.
//!
//! ```text
//! requests, builds, commands, retention ─▶ ROOT/journal ─▶ follow ─▶ ROOT/deliveries/<webhook>/
//!                           pulls ─▶ memory ──────────────▶             │ a file for each envelope
//!                                                                       ▼ deliver: POST, again and
//!                                                                         again; then it is deleted
//! ```
//!
//! What changes stands in the journal before it happens, whichever process does it, with a note of
//! who asked for it. So a server that was killed finds on its next start what it has not told yet,
//! and so it does for what others did while it was away. The place up to which the journal was read
//! is written down after the envelopes are: one can be delivered twice, with the same ids, and none
//! is left out, as long as the journal reaches back. Pulls are not in the journal: those of the
//! last moment before a crash are told to nobody.

pub mod event;

mod deliver;
mod follow;
mod owed;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boatyard_access::RepositoryPattern;
use boatyard_content::repository::RepositoryError;
use boatyard_content::{IngestKey, Root};
use boatyard_oci::RepositoryName;
use boatyard_upstream::Secret;
use boatyard_upstream::transport::Transport;
use http::HeaderMap;
use tokio::sync::Notify;
use url::Url;

pub use event::{Action, Note};

use event::Happened;
use follow::Following;
use owed::Shelf;

/// How many pulls wait to be written, at most; further ones are told to nobody.
const PULLS_MAX: usize = 10_000;
/// How often the journal is looked at, where nothing says that there is something.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Somebody who is told.
#[derive(Clone)]
pub struct Webhook {
    /// What it is called, in messages and below `ROOT/deliveries`.
    pub name: String,
    /// Where envelopes are sent.
    pub url: Url,
    /// What it is told of.
    pub actions: BTreeSet<Action>,
    /// The repositories that it is told of.
    pub repositories: Vec<RepositoryPattern>,
    /// Headers of each request; secret ones are marked as such.
    pub headers: HeaderMap,
    /// The key by which envelopes are signed.
    pub secret: Option<Secret>,
    /// How many failures in a row count as one matter, tried again soon.
    pub threshold: u32,
    /// How long to wait after more of them.
    pub backoff: Duration,
    /// What sends.
    pub transport: Arc<Transport>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Webhook {
    fn wants(&self, action: Action, repository: &RepositoryName) -> bool {
        self.actions.contains(&action)
            && self.repositories.iter().any(|pattern| pattern.matches(repository))
    }
}

/// What counts deliveries.
pub trait Tally: fmt::Debug + Send + Sync {
    /// An envelope with this many events was taken.
    fn delivered(&self, events: u64);
    /// One was not; it is sent again.
    fn failed(&self);
    /// Events are told to nobody, for too many are owed already.
    fn dropped(&self, events: u64);
    /// So many envelopes are owed.
    fn owed(&self, envelopes: u64);
}

/// Counts nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoTally;

impl Tally for NoTally {
    fn delivered(&self, _: u64) {}
    fn failed(&self) {}
    fn dropped(&self, _: u64) {}
    fn owed(&self, _: u64) {}
}

/// The webhooks of a root. One value as long as a server runs, whatever its configuration says.
#[derive(Debug)]
pub struct Webhooks {
    root: Arc<Root>,
    tally: Arc<dyn Tally>,
    /// The server, as events name it.
    source: event::Source,
    hooks: Mutex<Arc<Vec<Arc<Webhook>>>>,
    pulls: Mutex<Vec<Happened>>,
    following: Mutex<Option<Following>>,
    shelf: Shelf,
    /// Something may have happened.
    hint: Notify,
    /// Something is owed, to each of those who deliver.
    news: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Webhooks {
    /// Returns the webhooks of a root, none so far; `address` is what the server calls itself.
    pub fn new(root: Arc<Root>, address: String, tally: Arc<dyn Tally>) -> Arc<Webhooks> {
        let source = event::Source { addr: address, instance_id: IngestKey::random().to_string() };
        Arc::new(Webhooks {
            shelf: Shelf::new(root.path().join("deliveries")),
            root,
            tally,
            source,
            hooks: Mutex::default(),
            pulls: Mutex::default(),
            following: Mutex::default(),
            hint: Notify::new(),
            news: Mutex::default(),
        })
    }

    /// Has these webhooks count from now on. What is owed to others is forgotten. Blocks.
    ///
    /// # Errors
    /// Where files cannot be read or written.
    pub fn configure(&self, hooks: Vec<Webhook>) -> Result<(), RepositoryError> {
        let names: BTreeSet<&str> = hooks.iter().map(|hook| hook.name.as_str()).collect();
        for name in self.shelf.forget_others(&names)? {
            tracing::warn!("there is no webhook `{name}` any more: what it was owed is forgotten");
        }
        {
            let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
            if hooks.is_empty() {
                *following = None;
                self.shelf.forget_place()?;
            } else if following.is_none() {
                *following = Some(Following::begin(&self.root, &self.shelf)?);
            }
        }
        *self.hooks.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(hooks.into_iter().map(Arc::new).collect());
        Ok(())
    }

    fn hooks(&self) -> Arc<Vec<Arc<Webhook>>> {
        Arc::clone(&self.hooks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whether anybody is told of anything.
    pub fn is_used(&self) -> bool {
        !self.hooks().is_empty()
    }

    /// Says that the journal has something new.
    pub fn hint(&self) {
        self.hint.notify_one();
    }

    /// Notes that a manifest was pulled, if anybody wants to know. Waits for nothing.
    pub(crate) fn pulled(&self, repository: &RepositoryName, what: impl FnOnce() -> Happened) {
        if !self.hooks().iter().any(|hook| hook.wants(Action::Pull, repository)) {
            return;
        }
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        if pulls.len() < PULLS_MAX {
            pulls.push(what());
        } else {
            self.tally.dropped(1);
        }
        self.hint.notify_one();
    }

    /// Writes down what is owed now, and to whom. Blocks.
    ///
    /// # Errors
    /// Where files cannot be read or written.
    pub fn collect(&self) -> Result<(), RepositoryError> {
        let hooks = self.hooks();
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(following) = following.as_mut() else { return Ok(()) };
        let pulls = std::mem::take(&mut *self.pulls.lock().unwrap_or_else(PoisonError::into_inner));
        self.owe(&hooks, &pulls)?;
        while let Some(read) = following.read(&self.root)? {
            self.owe(&hooks, &read.happened)?;
            self.shelf.put_place(read.place)?;
        }
        Ok(())
    }

    /// Writes the envelopes of some events.
    fn owe(&self, hooks: &[Arc<Webhook>], happened: &[Happened]) -> Result<(), RepositoryError> {
        for hook in hooks {
            let wanted: Vec<_> = happened
                .iter()
                .filter(|one| hook.wants(one.action, &one.repository))
                .map(|one| one.event(&self.source))
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let dropped = self.shelf.put(&hook.name, &wanted)?;
            if dropped > 0 {
                self.tally.dropped(dropped);
                tracing::error!(
                    "webhook `{}` is owed too much: {dropped} events are dropped",
                    hook.name
                );
            }
            self.news(&hook.name).notify_one();
        }
        self.tally.owed(self.shelf.owed());
        Ok(())
    }

    fn news(&self, name: &str) -> Arc<Notify> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(news.entry(name.to_owned()).or_default())
    }

    /// Finds out what is owed and delivers it, for ever. One at a time does that.
    pub async fn run(self: Arc<Webhooks>) {
        let hooks = self.hooks();
        if hooks.is_empty() {
            return;
        }
        let mut delivering = tokio::task::JoinSet::new();
        for hook in hooks.iter() {
            delivering.spawn(Arc::clone(&self).deliver(Arc::clone(hook)));
        }
        let mut told = None;
        loop {
            let webhooks = Arc::clone(&self);
            let collected = tokio::task::spawn_blocking(move || webhooks.collect()).await;
            let Ok(collected) = collected else { return };
            let failure = collected.err().map(|error| error.to_string());
            // The same failure again and again is told once.
            if let Some(failure) = failure.as_ref().filter(|now| told.as_ref() != Some(*now)) {
                tracing::error!("cannot tell webhooks what happened: {failure}");
            }
            told = failure;
            let _ = tokio::time::timeout(LOOK_EVERY, self.hint.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests;
