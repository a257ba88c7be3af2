//! One blob of a pull: a transfer that nobody reads while it arrives.

use std::sync::Arc;
use std::time::Duration;

use boatyard_content::{Growing, Ingest, IngestKey, StoreError};
use boatyard_oci::{Descriptor, Digest};
use tokio::sync::watch;

use super::{Pull, PullError};
use crate::distribution::progress::{Outcome, TransferProgress};
use crate::transfer::{Admission, Audience, Fetch, Fetched, Head, Limits, Source, Wanted};

/// How often to look whether somebody else's write of the same blob has ended.
const BUSY_POLL: Duration = Duration::from_millis(200);
/// How often at most, in one go: an hour. After that we fetch it ourselves.
const BUSY_POLLS_MAX: u32 = 5 * 3600;

/// Tells the pull's progress.
struct Onlooker<'a> {
    progress: &'a dyn TransferProgress,
    digest: &'a Digest,
}

impl Audience for Onlooker<'_> {
    fn follow(&self, _: Arc<Head>, _: Arc<Growing>, _: watch::Receiver<u64>) {}

    fn advanced(&self, bytes: u64) {
        self.progress.advanced(self.digest, bytes);
    }

    fn goes_on(&self, _missing: Option<u64>) -> bool {
        true
    }
}

impl Pull<'_> {
    /// Brings one blob into the store.
    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<(), PullError> {
        self.progress.started(blob);
        let sources: Vec<Arc<dyn Source>> = self
            .sources
            .iter()
            .map(|source| self.client.blob_source(source.clone(), &blob.digest))
            .collect();
        let options = self.client.options();
        let limits = Limits::patient(&options.timeouts, &options.retry);
        let admission = Admission::new(limits.clone());
        loop {
            let Some((wanted, ingest)) = self.begin(blob).await? else {
                self.progress.finished(&blob.digest, Outcome::AlreadyThere);
                return Ok(());
            };
            let fetch = Fetch {
                store: self.store,
                lease: self.lease,
                wanted: &wanted,
                limits: &limits,
                admission: &admission,
                clock: self.client.clock(),
                audience: &Onlooker { progress: self.progress, digest: &blob.digest },
            };
            let fetched = fetch.bring(ingest, &sources).await;
            let failed = |source| PullError::Blob { digest: blob.digest.clone(), source };
            if let Fetched::Landed(_) = fetched.map_err(failed)? {
                self.progress.finished(&blob.digest, Outcome::Transferred);
                return Ok(());
            }
        }
    }

    /// Begins or takes up the write; `None` where the blob is there, or another writer made it.
    async fn begin(&self, blob: &Descriptor) -> Result<Option<(Wanted, Ingest)>, PullError> {
        let fails = |source| self.store_error(&blob.digest, source);
        let mut wanted = Wanted::described(blob);
        for _ in 0..BUSY_POLLS_MAX {
            if self.store.hold(&blob.digest, self.lease).await.map_err(fails)?.is_some() {
                return Ok(None);
            }
            match self.store.ingest(&wanted.key, self.lease).await {
                Ok(ingest) => return Ok(Some((wanted, ingest))),
                Err(StoreError::IngestBusy { .. }) => self.client.clock().sleep(BUSY_POLL).await,
                Err(error) => return Err(fails(error)),
            }
        }
        wanted.key = IngestKey::random();
        let ingest = self.store.ingest(&wanted.key, self.lease).await.map_err(fails)?;
        Ok(Some((wanted, ingest)))
    }
}
