//! Which repositories there are, in the order in which the catalog lists them.

use std::path::Path;

use boatyard_oci::RepositoryName;

use crate::local::entries;
use crate::store::StoreError;

/// Returns the names of a directory's subdirectories that are parts of repositories' names.
pub(super) fn children(directory: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in entries(directory) {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| !name.starts_with(['_', '.'])).map(str::to_owned));
    }
    Ok(names)
}

/// Returns at most `most` names below `space` that are behind `after`, in ASCII order.
pub(super) fn list(
    space: &Path,
    after: Option<&str>,
    most: usize,
) -> Result<Vec<RepositoryName>, StoreError> {
    let mut walk = Walk { space, after, most, found: Vec::new() };
    walk.below("")?;
    Ok(walk.found)
}

/// Returns every name below `space`, also of those that have only blobs or upload sessions.
pub(super) fn list_all(space: &Path) -> Result<Vec<RepositoryName>, StoreError> {
    let mut found = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(prefix) = waiting.pop() {
        for child in children(&space.join(&prefix))? {
            let name = format!("{prefix}{child}");
            waiting.push(format!("{name}/"));
            found.extend(name.parse::<RepositoryName>());
        }
    }
    found.retain(|name| {
        ["_manifests", "_blobs", "_uploads"]
            .iter()
            .any(|part| space.join(name.as_str()).join(part).is_dir())
    });
    found.sort();
    Ok(found)
}

struct Walk<'a> {
    space: &'a Path,
    after: Option<&'a str>,
    most: usize,
    found: Vec<RepositoryName>,
}

impl Walk<'_> {
    /// Visits all below `prefix`, which is empty or ends in `/`.
    ///
    /// `a-b` comes before `a/b` but after `a`: so a child is two things to visit, itself and what
    /// is below it, and they are sorted with the slash.
    fn below(&mut self, prefix: &str) -> Result<(), StoreError> {
        let mut visits: Vec<String> = children(&self.space.join(prefix))?
            .into_iter()
            .flat_map(|child| [format!("{prefix}{child}"), format!("{prefix}{child}/")])
            .collect();
        visits.sort_unstable();
        for visit in visits {
            if self.found.len() >= self.most {
                return Ok(());
            }
            if visit.ends_with('/') {
                if !self.is_passed(&visit) {
                    self.below(&visit)?;
                }
            } else if self.after.is_none_or(|after| visit.as_str() > after)
                && self.space.join(&visit).join("_manifests").is_dir()
            {
                self.found.extend(visit.parse::<RepositoryName>());
            }
        }
        Ok(())
    }

    /// Says whether all below `prefix` comes before `after`.
    fn is_passed(&self, prefix: &str) -> bool {
        self.after.is_some_and(|after| after > prefix && !after.starts_with(prefix))
    }
}
