//! Lists of an upstream: tags, referrers. What is kept is the answer while the upstream is away.

use std::sync::Arc;

use boatyard_oci::{Descriptor, Digest, Reference, RepositoryName, Tag};
use boatyard_upstream::{Client, ClientError};
use tokio::time::timeout;

use super::{Mirror, MirrorError, Shared};

impl Mirror {
    /// Returns the tags of a repository, sorted: the upstream's, or those that are kept where it
    /// cannot say.
    ///
    /// # Errors
    /// Where there are neither.
    pub(crate) async fn tags(&self, repository: &RepositoryName) -> Shared<Vec<Tag>> {
        let latest = Reference::Tag(Tag::latest());
        let name = self.image(self.host(), repository, &latest).repository;
        let asked = self.lister().tags(self.host(), &name);
        let tags = self.asked(repository, &latest, asked).await;
        tags.or_else(|error| {
            self.check_known_visible(repository, &latest)?;
            let kept = self.kept(repository).tags(None, usize::MAX);
            let kept = kept.map_err(|error| Arc::new(MirrorError::from(error)))?;
            if kept.is_empty() { Err(error) } else { Ok(kept) }
        })
        .map(|mut tags| {
            tags.sort_unstable();
            tags
        })
    }

    /// Returns what refers to a manifest: what the upstream says, or what is kept where it cannot.
    ///
    /// # Errors
    /// Where what is kept cannot be read.
    pub(crate) async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Shared<Vec<Descriptor>> {
        let reference = Reference::Digest(subject.clone());
        let name = self.image(self.host(), repository, &reference).repository;
        let asked = self.lister().referrers(self.host(), &name, subject);
        match self.asked(repository, &reference, asked).await {
            Ok(descriptors) => Ok(descriptors),
            Err(_) => {
                self.check_known_visible(repository, &reference)?;
                let kept = self.kept(repository).referrers(subject);
                kept.map_err(|error| Arc::new(error.into()))
            }
        }
    }

    /// Returns who asks for lists: a stranger, unless everybody is shown what our credentials open.
    fn lister(&self) -> &Client {
        let stranger = self.options.anonymous.as_ref().filter(|_| !self.options.shares_private);
        stranger.unwrap_or(&self.options.client)
    }

    /// Waits for an answer of the upstream, but not for ever.
    pub(super) async fn asked<T>(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        asked: impl Future<Output = Result<T, ClientError>>,
    ) -> Shared<T> {
        let (upstream, what) = (self.upstream(), repository.to_string());
        let freshness = &self.options.freshness;
        self.may_ask(&upstream, &what)?;
        match timeout(freshness.deadline, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_not_found() => {
                Err(Arc::new(MirrorError::Absent { upstream, what }))
            }
            Ok(Err(error)) => Err(Arc::new(self.failed(error, repository, reference))),
            Err(_) => {
                let seconds = freshness.deadline.as_secs();
                Err(Arc::new(MirrorError::Slow { upstream, what, seconds }))
            }
        }
    }
}
