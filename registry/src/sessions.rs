//! How many upload sessions there are, and the end of those that nobody goes on with.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use boatyard_content::repository::{Repositories, Repository, RepositoryError};

use crate::limits::Limits;

/// How soon after one count of all sessions another is worth its time.
const COUNT_AGAIN: Duration = Duration::from_secs(10);
/// The longest time between two looks for sessions that have expired.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(3600);
/// How long after a start sessions are looked for that have expired, at most.
pub(crate) const FIRST_LOOK: Duration = Duration::from_secs(300);

/// The number of sessions of all repositories.
///
/// They are files; counting them takes a walk through all repositories. So they are counted when
/// the first one begins, and again where there seem to be too many: another process may have ended
/// some.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    open: usize,
    at: Instant,
}

/// Why no session can begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TooMany {
    #[error(
        "the repository has as many unfinished uploads as uploads_per_repository_max allows \
         ({most}): finish or cancel some, or wait until they expire"
    )]
    OfRepository { most: usize },
    #[error(
        "there are as many unfinished uploads as uploads_max allows ({most}): finish or cancel \
         some, or wait until they expire"
    )]
    OfAll { most: usize },
}

impl Sessions {
    /// Counts one that is about to begin. Blocks.
    pub(crate) fn begin(
        &self,
        repositories: &Repositories,
        repository: &Repository,
        limits: &Limits,
    ) -> Result<Result<(), TooMany>, RepositoryError> {
        let most = limits.uploads_per_repository_max;
        if repository.uploads()? >= most {
            repository.end_stale_uploads(expired_before(limits))?;
            if repository.uploads()? >= most {
                return Ok(Err(TooMany::OfRepository { most }));
            }
        }
        let most = limits.uploads_max;
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |known: &Counted| known.open >= most && known.at.elapsed() >= COUNT_AGAIN;
        if counted.as_ref().is_none_or(is_due) {
            *counted = Some(Counted { open: repositories.uploads()?, at: Instant::now() });
        }
        Ok(match counted.as_mut() {
            Some(known) if known.open < most => {
                known.open += 1;
                Ok(())
            }
            _ => Err(TooMany::OfAll { most }),
        })
    }

    /// Counts one that has ended.
    pub(crate) fn end(&self, ended: usize) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = counted.as_mut() {
            known.open = known.open.saturating_sub(ended);
        }
    }
}

/// Returns the time since which nothing was written to a session that has expired.
pub(crate) fn expired_before(limits: &Limits) -> SystemTime {
    SystemTime::now().checked_sub(limits.upload_expiry).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns how long to wait between two looks for sessions that have expired.
pub(crate) fn look_again(limits: &Limits) -> Duration {
    (limits.upload_expiry / 2).clamp(Duration::from_secs(1), LOOK_AGAIN_MAX)
}
