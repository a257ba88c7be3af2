//! When what is hosted was pulled last: noted in memory at the pull, written a little later.
//!
//! A pull costs one look into a map. Once in a while a thread writes what has come together, a file
//! for each tag and digest, and at most once an hour for each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use boatyard_content::repository::{Repositories, RepositoryError, Space};
use boatyard_oci::{Reference, RepositoryName};

use crate::cache::Cache;

/// How many tags and digests are remembered as noted within the hour.
const NOTED_MAX: usize = 100_000;
/// How many wait to be written, at most: then pulls that nobody noted yet stay so.
const WAITING_MAX: usize = 100_000;
/// How exact the time is, as [`Repository::mark_used`](boatyard_content::repository::Repository)
/// writes it.
const GRAIN: Duration = Duration::from_secs(3600);

type Used = (RepositoryName, Reference);

/// The uses that were seen and are not written yet.
#[derive(Debug)]
pub struct Uses {
    repositories: Repositories,
    noted: Cache<Used, Instant>,
    waiting: Mutex<HashSet<Used>>,
}

impl Uses {
    /// Returns the uses of a root's hosted repositories: none so far.
    pub fn new(repositories: Repositories) -> Uses {
        Uses { repositories, noted: Cache::new(NOTED_MAX), waiting: Mutex::default() }
    }

    /// Notes that something is used now. Waits for nothing.
    pub fn note(&self, repository: &RepositoryName, reference: &Reference) {
        let used = (repository.clone(), reference.clone());
        if self.noted.get(&used).is_some_and(|at| at.elapsed() < GRAIN) {
            return;
        }
        self.noted.put(used.clone(), Instant::now(), 1);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.insert(used);
        }
    }

    /// Says whether something was used of which the files do not know yet.
    pub fn is_waiting(&self, repository: &RepositoryName, reference: &Reference) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.contains(&(repository.clone(), reference.clone()))
    }

    /// Writes what was noted. Blocks.
    ///
    /// # Errors
    /// Where a file could not be written: that use, and those behind it, are lost.
    pub fn write(&self) -> Result<(), RepositoryError> {
        self.repositories.begin_noting_uses()?;
        let used: Vec<Used> = {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.iter().cloned().collect()
        };
        for one in &used {
            let repository = self.repositories.repository(&Space::Hosted, &one.0);
            // It may have been deleted meanwhile: a use makes no repository.
            let written = if repository.exists()? { repository.mark_used(&one.1) } else { Ok(()) };
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.remove(one);
            written?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boatyard_content::Root;
    use boatyard_content::local::RootOptions;

    #[test]
    fn a_use_is_written_once_and_a_deleted_repository_stays_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(&directory.path().join("root"), RootOptions::default()).unwrap();
        let uses = Uses::new(root.repositories());
        let app: RepositoryName = "app".parse().unwrap();
        let tag: Reference = "1.0".parse().unwrap();
        uses.note(&app, &tag);
        assert!(uses.is_waiting(&app, &tag));
        uses.write().unwrap();
        assert!(!uses.is_waiting(&app, &tag));
        let repository = root.repositories().repository(&Space::Hosted, &app);
        assert!(!repository.exists().unwrap());
        assert_eq!(repository.last_used(&tag).unwrap(), None);
        assert!(root.repositories().uses_noted_since().unwrap().is_some());

        repository.set_tags(&["1.0".parse().unwrap()], &boatyard_oci::Digest::sha256(b"")).unwrap();
        fs_err::create_dir_all(root.path().join("hosted/app/_manifests")).unwrap();
        uses.note(&app, &tag);
        assert!(!uses.is_waiting(&app, &tag), "it was noted within the hour");
        let other = Uses::new(root.repositories());
        other.note(&app, &tag);
        other.write().unwrap();
        assert!(repository.last_used(&tag).unwrap().is_some());
    }
}
