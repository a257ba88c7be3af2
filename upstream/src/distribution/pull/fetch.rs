//! One blob of a pull: joined, resumed, verified.

use std::time::Duration;

use boatyard_content::{Expected, Ingest, IngestKey, StoreError};
use boatyard_oci::Descriptor;
use http::StatusCode;

use super::{Pull, PullError};
use crate::distribution::error::ClientError;
use crate::distribution::progress::Outcome;
use crate::registries_conf::Source;

/// How often to look whether somebody else's write of the same blob has ended.
const BUSY_POLL: Duration = Duration::from_millis(200);
/// How often at most, in one go: an hour. After that we fetch it ourselves.
const BUSY_POLLS_MAX: u32 = 5 * 3600;
/// After how many bytes what is there is made durable, so that a crash costs no more than these.
const CHECKPOINT: u64 = 256 * 1024 * 1024;

/// What came of reading one answer.
enum Reading {
    /// All bytes are there.
    Complete,
    /// The connection broke, or ended early.
    Broken(Option<ClientError>),
}

impl Pull<'_> {
    /// Brings one blob into the store.
    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<(), PullError> {
        self.progress.started(blob);
        let Some(ingest) = self.begin(blob).await? else {
            self.progress.finished(&blob.digest, Outcome::AlreadyThere);
            return Ok(());
        };
        let mut ingest = Some(ingest);
        let mut last = None;
        for source in &self.sources {
            let ingest = match ingest.take() {
                Some(ingest) => ingest,
                None => self.ingest(blob).await?,
            };
            match self.fetch_at(source, blob, ingest).await {
                Ok(()) => {
                    self.progress.finished(&blob.digest, Outcome::Transferred);
                    return Ok(());
                }
                // Our own failure: another source would not help.
                Err(error @ PullError::Store { .. }) => return Err(error),
                Err(error) => {
                    if source.mirror {
                        tracing::info!(registry = %source.registry, %error, "the mirror is passed over");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.expect("there is always the registry itself"))
    }

    /// Begins or takes up the write; `None` where the blob is there, or another writer made it.
    async fn begin(&self, blob: &Descriptor) -> Result<Option<Ingest>, PullError> {
        let fails = |source| self.store_error(&blob.digest, source);
        for _ in 0..BUSY_POLLS_MAX {
            if self.store.hold(&blob.digest, self.lease).await.map_err(fails)?.is_some() {
                return Ok(None);
            }
            match self.store.ingest(&IngestKey::of(&blob.digest), self.lease).await {
                Ok(ingest) => return Ok(Some(ingest)),
                Err(StoreError::IngestBusy { .. }) => self.client.clock().sleep(BUSY_POLL).await,
                Err(error) => return Err(fails(error)),
            }
        }
        self.store.ingest(&IngestKey::random(), self.lease).await.map(Some).map_err(fails)
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest, PullError> {
        let ingest = self.store.ingest(&IngestKey::of(&blob.digest), self.lease).await;
        ingest.map_err(|source| self.store_error(&blob.digest, source))
    }

    /// Fetches from one source until the blob is whole, then commits it. What an earlier attempt
    /// left may be wrong: then everything is fetched anew, once.
    async fn fetch_at(
        &self,
        source: &Source,
        blob: &Descriptor,
        ingest: Ingest,
    ) -> Result<(), PullError> {
        let fails = |error| self.store_error(&blob.digest, error);
        let mut inherited = ingest.offset() > 0;
        let mut ingest = ingest;
        loop {
            let whole = self.fill(source, blob, ingest).await?;
            match whole.commit(Expected::exactly(&blob.digest, blob.size)).await {
                Ok(_) => return Ok(()),
                Err(StoreError::DigestMismatch { .. }) if inherited => {
                    tracing::info!(digest = %blob.digest, "what was resumed was wrong: fetching all of it");
                    inherited = false;
                    ingest = self.ingest(blob).await?;
                }
                Err(StoreError::DigestMismatch { expected, got }) => {
                    let registry = source.registry.to_string();
                    return Err(PullError::Digest { expected, registry, got });
                }
                Err(error) => return Err(fails(error)),
            }
        }
    }

    /// Appends what is missing, over as many connections as it takes. Attempts are counted anew
    /// whenever one brought bytes.
    async fn fill(
        &self,
        source: &Source,
        blob: &Descriptor,
        mut ingest: Ingest,
    ) -> Result<Ingest, PullError> {
        let fails = |error| self.store_error(&blob.digest, error);
        if ingest.offset() > blob.size {
            ingest.abort().await.map_err(fails)?;
            ingest = self.ingest(blob).await?;
        }
        self.progress.advanced(&blob.digest, ingest.offset());
        let mut failed = 0;
        loop {
            let before = ingest.offset();
            let (reading, kept) = self.read(source, blob, ingest).await?;
            ingest = kept;
            let error = match reading {
                Reading::Complete => return Ok(ingest),
                Reading::Broken(error) => error,
            };
            failed = if ingest.offset() > before { 1 } else { failed + 1 };
            let clock = self.client.clock();
            let retry = &self.client.options().retry;
            let delay = retry.delay(failed, None, clock.jitter());
            let given_up = error.as_ref().is_some_and(|error| !error.is_retryable());
            match delay.filter(|_| !given_up) {
                Some(delay) => clock.sleep(delay).await,
                None => {
                    let at = ingest.offset();
                    if at == 0 {
                        ingest.abort().await.map_err(fails)?;
                    } else {
                        ingest.suspend().await.map_err(fails)?;
                    }
                    return Err(self.broken(source, blob, at, failed, error));
                }
            }
        }
    }

    fn broken(
        &self,
        source: &Source,
        blob: &Descriptor,
        at: u64,
        attempts: u32,
        error: Option<ClientError>,
    ) -> PullError {
        match error {
            // The registry's refusal says it all.
            Some(error) if error.status().is_some() => PullError::Client(error),
            Some(error) if !error.is_retryable() => PullError::Client(error),
            error => PullError::Broken {
                digest: blob.digest.clone(),
                registry: source.registry.to_string(),
                at,
                size: blob.size,
                attempts,
                source: error.map(Box::new),
            },
        }
    }

    /// Asks once for what is missing and appends what comes.
    async fn read(
        &self,
        source: &Source,
        blob: &Descriptor,
        mut ingest: Ingest,
    ) -> Result<(Reading, Ingest), PullError> {
        let fails = |error| self.store_error(&blob.digest, error);
        let offset = ingest.offset();
        if offset == blob.size && offset > 0 {
            return Ok((Reading::Complete, ingest));
        }
        let range = (offset > 0).then(|| offset..=blob.size - 1);
        let mut stream = match self.client.blob_at(source, blob, range).await {
            Ok(stream) => stream,
            // What is there cannot be a beginning of what the registry has.
            Err(error)
                if offset > 0 && error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE) =>
            {
                ingest.abort().await.map_err(fails)?;
                return Ok((Reading::Broken(None), self.ingest(blob).await?));
            }
            Err(error) => return Ok((Reading::Broken(Some(error)), ingest)),
        };
        if let Some(got) = stream.whole_size().filter(|got| *got != blob.size) {
            ingest.suspend().await.map_err(fails)?;
            return Err(self.wrong_length(source, blob, got));
        }
        if stream.offset() != offset {
            if stream.offset() != 0 {
                let error = ClientError::Protocol {
                    deed: crate::distribution::Deed::new("fetch blob", &blob.digest, source),
                    problem: "another range than was asked for".to_owned(),
                };
                return Ok((Reading::Broken(Some(error)), ingest));
            }
            // The registry knows no ranges: all of it comes again.
            ingest.abort().await.map_err(fails)?;
            ingest = self.ingest(blob).await?;
        }
        if ingest.offset() == 0 {
            ingest.also(blob.digest.algorithm());
        }
        let mut checkpoint = ingest.offset() + CHECKPOINT;
        loop {
            let bytes = match stream.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) if ingest.offset() == blob.size => return Ok((Reading::Complete, ingest)),
                Ok(None) => return Ok((Reading::Broken(None), ingest)),
                Err(error) => return Ok((Reading::Broken(Some(error)), ingest)),
            };
            let got = ingest.offset() + bytes.len() as u64;
            if got > blob.size {
                ingest.abort().await.map_err(fails)?;
                return Err(self.wrong_length(source, blob, got));
            }
            self.progress.advanced(&blob.digest, bytes.len() as u64);
            ingest.append(bytes).await.map_err(fails)?;
            if ingest.offset() >= checkpoint && ingest.offset() < blob.size {
                ingest.suspend().await.map_err(fails)?;
                ingest = self.ingest(blob).await?;
                checkpoint = ingest.offset() + CHECKPOINT;
            }
        }
    }

    fn wrong_length(&self, source: &Source, blob: &Descriptor, got: u64) -> PullError {
        PullError::Length {
            digest: blob.digest.clone(),
            registry: source.registry.to_string(),
            expected: blob.size,
            got,
        }
    }
}
