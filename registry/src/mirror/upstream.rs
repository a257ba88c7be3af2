//! One upstream: what is asked of it, and what is kept of it here.

mod blobs;
mod fetch;
mod limit;
mod lists;
mod vouch;
mod whole;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use boatyard_content::local::LocalStore;
use boatyard_content::repository::{Repository, RepositoryError, Space, StoredManifest};
use boatyard_content::{Root, StoreError};
use boatyard_oci::{Digest, Reference, RegistryHost, RepositoryName, Tag};
use boatyard_upstream::transfer::Failure;
use boatyard_upstream::{Client, ClientError, Clock, Transfers};
use tokio::time::timeout;

pub(crate) use blobs::{Arriving, Found};
pub use whole::FetchError;

use self::limit::Looked;
use super::flight::Flights;
use super::freshness::{Freshness, FreshnessOptions, Remembered};
use crate::chain::chain;

/// How many absent names are remembered.
const ABSENT_MAX: usize = 10_000;

/// How a mirror works.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    /// What it is called in paths, in messages, and in rules.
    pub name: String,
    /// The upstream, which names what is kept.
    pub host: RegistryHost,
    /// Others that have the same, asked where the first gives a wrong answer or none.
    pub also: Vec<RegistryHost>,
    /// What stands before repositories there.
    pub prefix: Option<RepositoryName>,
    /// Asks the upstream, with the credentials that were configured for it.
    pub client: Client,
    /// Asks it without them; `None` where there are none. What only the credentials open is
    /// private, and is not given to everybody.
    pub anonymous: Option<Client>,
    /// Gives what is private to everybody all the same.
    pub shares_private: bool,
    /// How long things count.
    pub freshness: FreshnessOptions,
    /// Brings blobs; one for all mirrors of a server.
    pub transfers: Transfers,
    /// How many bytes of blobs are kept; no limit if there is none.
    pub bytes_max: Option<u64>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Why a mirror cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The upstream does not have it.
    #[error("{upstream} does not have {what}")]
    Absent {
        /// Which upstream.
        upstream: String,
        /// What was asked for.
        what: String,
    },
    /// Only our own credentials open it, and they are not everybody's.
    #[error("{upstream} does not show {what} to everybody, and this mirror does not either")]
    Private {
        /// Which upstream.
        upstream: String,
        /// What was asked for.
        what: String,
    },
    /// It is not kept here, and the upstream is not asked.
    #[error("{what} was never fetched from {upstream}, and this mirror is offline")]
    Offline {
        /// Which upstream.
        upstream: String,
        /// What was asked for.
        what: String,
    },
    /// The upstream did not answer in time.
    #[error("{upstream} did not answer within {seconds} s when it was asked for {what}")]
    Slow {
        /// Which upstream.
        upstream: String,
        /// What was asked for.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The upstream refused, or could not be reached.
    #[error("{upstream} was asked for {what}")]
    Upstream {
        /// Which upstream.
        upstream: String,
        /// What was asked for.
        what: String,
        /// Why it failed.
        #[source]
        source: Arc<ClientError>,
    },
    /// The upstream has it, but does not say how many bytes it has.
    #[error("{upstream} does not say how long {what} is")]
    Sizeless {
        /// Which upstream.
        upstream: String,
        /// What was asked for.
        what: String,
    },
    /// A blob could not be fetched.
    #[error("{what} could not be fetched")]
    Transfer {
        /// What was asked for.
        what: String,
        /// Why, and from whom.
        #[source]
        source: Failure,
    },
    /// What is kept here cannot be read or written.
    #[error(transparent)]
    Kept(#[from] RepositoryError),
    /// The work ended without a result: a bug.
    #[error("a fetch from {upstream} ended without a result")]
    Lost {
        /// Which upstream.
        upstream: String,
    },
}

impl From<StoreError> for MirrorError {
    fn from(error: StoreError) -> MirrorError {
        MirrorError::Kept(error.into())
    }
}

/// A result that several callers share.
pub type Shared<T> = Result<T, Arc<MirrorError>>;

/// What a flight is about: a repository and a reference in it.
type Question = (RepositoryName, Reference);

/// A mirror of one upstream.
pub struct Mirror {
    pub(super) options: MirrorOptions,
    pub(super) root: Arc<Root>,
    pub(super) store: LocalStore,
    manifests: Flights<Question, Shared<StoredManifest>>,
    absent: Remembered<Question, ()>,
    /// Why the upstream is left alone for a moment.
    resting: Remembered<(), Arc<ClientError>>,
    visible: Remembered<RepositoryName, bool>,
    looked: Mutex<Looked>,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl Mirror {
    /// Returns a mirror that has asked nothing yet.
    pub fn new(root: Arc<Root>, options: MirrorOptions) -> Arc<Mirror> {
        Arc::new(Mirror {
            store: root.store(),
            root,
            options,
            manifests: Flights::default(),
            absent: Remembered::new(ABSENT_MAX),
            resting: Remembered::new(1),
            visible: Remembered::new(ABSENT_MAX),
            looked: Mutex::default(),
        })
    }

    /// Returns what it is called.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Returns the upstream that names what is kept.
    pub fn host(&self) -> &RegistryHost {
        &self.options.host
    }

    /// Returns all who have what the upstream has, in the order in which they are asked.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &RegistryHost> {
        std::iter::once(&self.options.host).chain(&self.options.also)
    }

    /// Returns the space in which it keeps what it fetched.
    pub fn space(&self) -> Space {
        Space::Mirror(self.host().to_string())
    }

    /// Returns what is here of a repository.
    pub fn kept(&self, repository: &RepositoryName) -> Repository {
        self.root.repositories().repository(&self.space(), repository)
    }

    /// Returns a repository as the upstream names it: Docker Hub's own images are in `library/`.
    pub(super) fn canonical(&self, repository: RepositoryName) -> RepositoryName {
        if !self.host().is_docker_hub() || repository.as_str().contains('/') {
            return repository;
        }
        format!("library/{repository}").parse().unwrap_or(repository)
    }

    /// Finds a manifest: among what is kept, or at the upstream, and keeps it.
    ///
    /// # Errors
    /// Where nothing is kept and the upstream does not give it.
    pub(crate) async fn manifest(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<StoredManifest> {
        self.check_visible(repository, reference).await?;
        match reference {
            Reference::Digest(digest) => {
                if let Some(kept) = self.kept_manifest(repository, digest)? {
                    return Ok(kept);
                }
                self.ask_in_time(repository, reference).await
            }
            Reference::Tag(tag) => self.tag(repository, tag, reference).await,
        }
    }

    async fn tag(
        self: &Arc<Self>,
        repository: &RepositoryName,
        tag: &Tag,
        reference: &Reference,
    ) -> Shared<StoredManifest> {
        let kept = self.kept_tag(repository, tag)?;
        let confirmed = kept.as_ref().map(|(_, confirmed)| *confirmed);
        let kept = kept.map(|(manifest, _)| manifest);
        match (self.options.freshness.decide(confirmed, self.options.clock.now()), kept) {
            (Freshness::Fresh, Some(kept)) => Ok(kept),
            (Freshness::Revalidate, Some(kept)) => {
                let asked = self.ask(repository, reference);
                match timeout(self.options.freshness.patience, asked).await {
                    Ok(Ok(found)) => Ok(found),
                    Ok(Err(error)) if matches!(*error, MirrorError::Absent { .. }) => Err(error),
                    Ok(Err(error)) => {
                        tracing::warn!(
                            error = %chain(&*error),
                            "{} could not be revalidated; what is kept is answered",
                            self.what(repository, reference)
                        );
                        Ok(kept)
                    }
                    // It goes on, for whoever asks next.
                    Err(_) => Ok(kept),
                }
            }
            _ => self.ask_in_time(repository, reference).await,
        }
    }

    /// Asks the upstream, and gives up after a while; the question goes on for others.
    async fn ask_in_time(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<StoredManifest> {
        let (upstream, what) = (self.upstream(), self.what(repository, reference));
        self.may_ask(&upstream, &what)?;
        let deadline = self.options.freshness.deadline;
        match timeout(deadline, self.ask(repository, reference)).await {
            Ok(answer) => answer,
            Err(_) => {
                let seconds = deadline.as_secs();
                Err(Arc::new(MirrorError::Slow { upstream, what, seconds }))
            }
        }
    }

    /// Asks the upstream, or waits for whoever asks the same already.
    async fn ask(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Shared<StoredManifest> {
        let question = (repository.clone(), reference.clone());
        let now = self.options.clock.now();
        let (upstream, what) = (self.upstream(), self.what(repository, reference));
        if self.absent.get(&question, now).is_some() {
            return Err(Arc::new(MirrorError::Absent { upstream, what }));
        }
        self.may_ask(&upstream, &what)?;
        let mirror = Arc::clone(self);
        let work = {
            let question = question.clone();
            move || async move { mirror.fetch_manifest(question.0, question.1).await.map_err(Arc::new) }
        };
        let answer = self.manifests.join(question, work).await;
        answer.unwrap_or_else(|| Err(Arc::new(MirrorError::Lost { upstream })))
    }

    /// Refuses where the upstream is not to be asked now: it is offline, or failed a moment ago.
    pub(super) fn may_ask(&self, upstream: &str, what: &str) -> Shared<()> {
        let (upstream, what) = (upstream.to_owned(), what.to_owned());
        if self.options.freshness.offline {
            return Err(Arc::new(MirrorError::Offline { upstream, what }));
        }
        match self.resting.get(&(), self.options.clock.now()) {
            Some(source) => Err(Arc::new(MirrorError::Upstream { upstream, what, source })),
            None => Ok(()),
        }
    }

    /// Returns the error for what a client says, and remembers what follows from it.
    pub(super) fn failed(
        &self,
        error: ClientError,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> MirrorError {
        let (upstream, what) = (self.upstream(), self.what(repository, reference));
        let now = self.options.clock.now();
        let freshness = &self.options.freshness;
        if error.is_not_found() {
            let question = (repository.clone(), reference.clone());
            self.absent.put(question, (), now, freshness.negative_ttl);
            return MirrorError::Absent { upstream, what };
        }
        let source = Arc::new(error);
        if is_the_upstreams(&source) {
            self.resting.put((), Arc::clone(&source), now, freshness.rest);
        }
        MirrorError::Upstream { upstream, what, source }
    }

    /// Returns a manifest that is kept, with its bytes.
    pub(super) fn kept_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<StoredManifest>, MirrorError> {
        let Some(manifest) = self.kept(repository).manifest(digest)? else { return Ok(None) };
        let is_whole = self.store.stat_blocking(digest)?.is_some();
        Ok(is_whole.then_some(manifest))
    }

    /// Returns what is kept of a tag, and when the upstream last confirmed it.
    fn kept_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(StoredManifest, SystemTime)>, MirrorError> {
        let kept = self.kept(repository);
        let Some(confirmed) = kept.tag_confirmed(tag)? else { return Ok(None) };
        let Some(digest) = kept.tag(tag)? else { return Ok(None) };
        Ok(self.kept_manifest(repository, &digest)?.map(|manifest| (manifest, confirmed)))
    }

    pub(super) fn upstream(&self) -> String {
        self.host().to_string()
    }

    pub(super) fn what(&self, repository: &RepositoryName, reference: &Reference) -> String {
        match reference {
            Reference::Tag(tag) => format!("{repository}:{tag}"),
            Reference::Digest(digest) => format!("{repository}@{digest}"),
        }
    }
}

/// Says whether an error is about the upstream as a whole: it is down, or wants to be left alone.
fn is_the_upstreams(error: &ClientError) -> bool {
    match error.status() {
        Some(status) => [429, 503].contains(&status.as_u16()),
        None => matches!(error, ClientError::Transport { .. } | ClientError::Token { .. }),
    }
}
