//! A registry that is asked by its API.

use std::collections::BTreeSet;

use boatyard_content::repository::Repository;
use boatyard_oci::{Digest, ImageName, Reference, RegistryHost, RepositoryName, Tag};
use boatyard_upstream::distribution::PullError;
use boatyard_upstream::{Client, ClientError, Outcome, Platforms, Pulled, TransferProgress, pull};

use super::{Here, Selection, Summary, Target, outdated};
use crate::report::{Context as _, Failure, Result};

/// How far it is followed what refers to what refers to something.
const DEPTH_MAX: usize = 4;

/// A registry that is taken over.
pub struct Source<'a> {
    /// The client, with the credentials of whoever takes it over.
    pub client: &'a Client,
    /// The registry.
    pub host: RegistryHost,
}

impl Source<'_> {
    /// Returns the repositories that are meant: those of the catalog, or those that were named, where
    /// the registry has none.
    pub async fn repositories(
        &self,
        selection: &Selection,
        named: &[String],
    ) -> Result<Vec<RepositoryName>> {
        let is_name = |text: &String| !text.contains('*');
        if !named.is_empty() && named.iter().all(is_name) {
            let parse = |text: &String| {
                text.parse().context(format!("`{text}` cannot be the name of a repository"))
            };
            return named.iter().map(parse).collect();
        }
        let catalog = self.client.catalog(&self.host).await.map_err(|error| {
            Failure::new(format!("cannot list the repositories of {}", self.host))
                .because(error)
                .hint("name them, each with a --repository of its own, or log in with `boatyard login`")
        })?;
        let mut names: Vec<RepositoryName> =
            catalog.into_iter().filter(|name| selection.takes(name)).collect();
        names.sort();
        Ok(names)
    }

    /// Returns the tags of a repository that are meant.
    pub async fn tags(
        &self,
        name: &RepositoryName,
        selection: &Selection,
    ) -> std::result::Result<Vec<Tag>, ClientError> {
        let mut tags = match self.client.tags(&self.host, name).await {
            // A catalog lists repositories whose last tag was deleted.
            Err(error) if error.is_not_found() => Vec::new(),
            tags => tags?,
        };
        tags.retain(|tag| selection.takes_tag(tag));
        tags.sort();
        Ok(tags)
    }

    /// Takes a repository over.
    pub async fn take(
        &self,
        name: &RepositoryName,
        selection: &Selection,
        target: &Target<'_>,
        progress: &dyn TransferProgress,
        summary: &mut Summary,
    ) -> Result<()> {
        summary.repositories += 1;
        let tags = match self.tags(name, selection).await {
            Ok(tags) => tags,
            Err(error) => {
                summary.fail(name.to_string(), said(&error));
                return Ok(());
            }
        };
        let repository = target.repository(name);
        let mut work = Work {
            source: self,
            repository,
            target,
            counted: Counted { progress, bytes: Default::default() },
            summary,
            asked: BTreeSet::new(),
        };
        for tag in &tags {
            work.tag(tag, selection).await?;
        }
        let Counted { bytes, .. } = work.counted;
        let (blobs, bytes) = bytes.into_inner().unwrap_or_default();
        summary.blobs += blobs;
        summary.bytes += bytes;
        Ok(())
    }

    fn image(&self, repository: &RepositoryName, reference: Reference) -> ImageName {
        ImageName { registry: self.host.clone(), repository: repository.clone(), reference }
    }
}

struct Work<'a, 'b> {
    source: &'a Source<'a>,
    repository: Repository,
    target: &'a Target<'b>,
    counted: Counted<'a>,
    summary: &'a mut Summary,
    /// The manifests whose referrers are known.
    asked: BTreeSet<Digest>,
}

impl Work<'_, '_> {
    async fn tag(&mut self, tag: &Tag, selection: &Selection) -> Result<()> {
        let what = format!("{}:{tag}", self.repository.name());
        let image = self.source.image(self.repository.name(), Reference::Tag(tag.clone()));
        let there = match self.source.client.resolve(&image).await {
            Ok(there) => there.digest,
            Err(error) => {
                self.tell(&what, &error);
                return Ok(());
            }
        };
        match self.target.tag(&self.repository, tag, &there)? {
            Here::Same => {
                self.summary.already += 1;
                return Ok(());
            }
            Here::Elsewhere(here) if !selection.overwrite => {
                self.summary.skip(what, format!("it points at {here} here: see --overwrite"));
                return Ok(());
            }
            Here::Elsewhere(_) | Here::Not => {}
        }
        // By its digest: the tag may be moved there meanwhile.
        if let Some(pulled) = self.pull(&there, &what, std::slice::from_ref(tag)).await? {
            self.summary.tags += 1;
            self.referrers(&pulled).await?;
        }
        Ok(())
    }

    /// Brings a manifest with all that it needs.
    async fn pull(&mut self, digest: &Digest, what: &str, tags: &[Tag]) -> Result<Option<Pulled>> {
        let reference = Reference::Digest(digest.clone());
        let image = self.source.image(self.repository.name(), reference);
        let store = self.target.root.store();
        let pulled = pull(
            self.source.client,
            &image,
            Platforms::All,
            &store,
            self.target.lease,
            &self.counted,
        );
        let pulled = match pulled.await {
            Ok(pulled) => pulled,
            Err(PullError::Client(error)) => {
                self.tell(what, &error);
                return Ok(None);
            }
            Err(error @ PullError::Store { .. }) => {
                return Err(error).context(format!("cannot keep {what}"));
            }
            Err(error) => {
                self.summary.fail(what, said(&error));
                return Ok(None);
            }
        };
        for (manifest, media_type) in &pulled.manifests {
            let is_here = self.repository.manifest(manifest.digest());
            let is_new = is_here.context("cannot look for a manifest")?.is_none();
            let tags = if *manifest.digest() == pulled.top.digest { tags } else { &[] };
            self.target.put(&self.repository, manifest, media_type, tags)?;
            self.summary.manifests += u64::from(is_new);
        }
        Ok(Some(pulled))
    }

    /// Brings what refers to what came: signatures, lists of parts.
    async fn referrers(&mut self, pulled: &Pulled) -> Result<()> {
        let all = |pulled: &Pulled| -> Vec<Digest> {
            pulled.manifests.iter().map(|(manifest, _)| manifest.digest().clone()).collect()
        };
        let mut level = all(pulled);
        for _ in 0..DEPTH_MAX {
            let mut next = Vec::new();
            for subject in std::mem::take(&mut level) {
                if !self.asked.insert(subject.clone()) {
                    continue;
                }
                let name = self.repository.name().clone();
                let listed = self.source.client.referrers(&self.source.host, &name, &subject).await;
                let listed = match listed {
                    Ok(listed) => listed,
                    Err(error) => {
                        let what = format!("the referrers of {name}@{subject}");
                        self.summary.fail(what, said(&error));
                        continue;
                    }
                };
                for referrer in listed {
                    let what = format!("{name}@{}", referrer.digest);
                    if let Some(pulled) = self.pull(&referrer.digest, &what, &[]).await? {
                        next.extend(all(&pulled));
                    }
                }
            }
            level = next;
        }
        Ok(())
    }

    fn tell(&mut self, what: &str, error: &ClientError) {
        let outdated = match error {
            ClientError::Manifest { source, .. } => outdated(source),
            _ => None,
        };
        match outdated {
            Some(why) => self.summary.skip(what, why),
            None => self.summary.fail(what, said(error)),
        }
    }
}

/// Counts what comes, and passes on what it is told.
struct Counted<'a> {
    progress: &'a dyn TransferProgress,
    bytes: std::sync::Mutex<(u64, u64)>,
}

impl TransferProgress for Counted<'_> {
    fn started(&self, blob: &boatyard_oci::Descriptor) {
        self.progress.started(blob);
    }

    fn advanced(&self, digest: &Digest, bytes: u64) {
        if let Ok(mut counted) = self.bytes.lock() {
            counted.1 += bytes;
        }
        self.progress.advanced(digest, bytes);
    }

    fn finished(&self, digest: &Digest, outcome: Outcome) {
        if outcome == Outcome::Transferred
            && let Ok(mut counted) = self.bytes.lock()
        {
            counted.0 += 1;
        }
        self.progress.finished(digest, outcome);
    }
}

/// Returns what an error says, with its sources.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
