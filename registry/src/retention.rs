//! Retention: which tags and manifests go by themselves, and which stay and why.
//!
//! A rule covers the tags that its patterns name, and keeps some of them. A tag stays if any rule
//! that covers it keeps it, or if none covers it. What no tag leads to any more goes with its last
//! tag, or after a while of its own; an index keeps what it lists, and what says something about a
//! manifest follows that manifest. [`plan`] decides, from what was seen; [`apply`] takes away what
//! is still as it was seen. The bytes are the collector's business.

pub mod plan;
pub mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use boatyard_access::{Access, Deed, Entry};
use boatyard_content::Root;
use boatyard_content::repository::{Repository, RepositoryError, SeenManifest, Space};
use boatyard_oci::{Digest, Reference, RepositoryName};

use crate::immutable::Immutable;
use crate::uses::Uses;
use crate::webhooks::Note;

pub use plan::{Kept, Plan, PlannedManifest, PlannedTag, Verdict};
pub use rule::{RetentionRule, RuleError};

/// What rules say of one repository.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The repository.
    pub repository: RepositoryName,
    /// What is to go, and what stays and why.
    pub plan: Plan,
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// What was to go, and was pushed or pulled meanwhile.
    pub spared: u64,
}

/// Evaluates rules on a root's hosted repositories. Changes nothing. Repositories that no rule
/// covers are left out.
///
/// # Errors
/// Where a repository cannot be read.
pub fn evaluate(
    root: &Root,
    rules: &[RetentionRule],
    immutable: &Immutable,
    now: SystemTime,
    each: &mut dyn FnMut(&Repository, Evaluated) -> Result<(), RepositoryError>,
) -> Result<(), RepositoryError> {
    let repositories = root.repositories();
    // A use of which nothing is noted counts as the time when noting began.
    let noted_since = repositories.uses_noted_since()?.unwrap_or(now);
    for name in repositories.names(&Space::Hosted, None, usize::MAX)? {
        let covering: Vec<(usize, &RetentionRule)> =
            rules.iter().enumerate().filter(|(_, rule)| rule.covers(&name)).collect();
        if covering.is_empty() {
            continue;
        }
        let repository = repositories.repository(&Space::Hosted, &name);
        let seen = plan::Seen {
            tags: repository.see_tags()?,
            manifests: repository.see_manifests()?,
            noted_since,
        };
        let plan = plan::plan(&covering, &seen, &|tag| immutable.holds(&name, tag), now);
        each(&repository, Evaluated { repository: name, plan })?;
    }
    Ok(())
}

/// Who takes something away, for the audit log and for those who are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Retirer<'a> {
    /// Where it is written down.
    pub access: &'a dyn Access,
    /// What it is called there.
    pub who: &'a str,
    /// Uses of which the files do not know yet.
    pub uses: Option<&'a Uses>,
}

/// Takes away what a plan says is to go, as far as it is still as it was seen.
///
/// # Errors
/// Where a file cannot be read or deleted: what went before is gone.
pub fn apply(
    repository: &Repository,
    evaluated: &Evaluated,
    rules: &[RetentionRule],
    by: Retirer<'_>,
) -> Result<Removed, RepositoryError> {
    let name = &evaluated.repository;
    let note = Note { who: by.who.to_owned(), ..Note::default() };
    let note = serde_json::to_string(&note).unwrap_or_default();
    let repository = &repository.clone().on_behalf_of(note.into());
    let mut removed = Removed::default();
    let is_used =
        |reference: Reference| by.uses.is_some_and(|uses| uses.is_waiting(name, &reference));
    let record = |target: String, digest: &Digest, rule: usize| {
        let mut entry = Entry::new(Deed::Retire, by.who.to_owned());
        entry.repository = Some(name.to_string());
        entry.target = Some(target);
        entry.previous = Some(digest.to_string());
        entry.detail = rules.get(rule).map(|of| format!("[[retention]] {}", of.title(rule)));
        by.access.record(&entry);
    };
    // A manifest whose tag stays after all stays as well.
    let mut spared: BTreeSet<&Digest> = BTreeSet::new();
    for tag in &evaluated.plan.tags {
        let Verdict::Removed { rule } = tag.verdict else { continue };
        let used = || {
            is_used(Reference::Tag(tag.seen.tag.clone()))
                || is_used(Reference::Digest(tag.seen.digest.clone()))
        };
        if repository.retire_tag(&tag.seen, used)? {
            removed.tags += 1;
            record(tag.seen.tag.to_string(), &tag.seen.digest, rule);
        } else {
            removed.spared += 1;
            spared.insert(&tag.seen.digest);
        }
    }
    let going: BTreeMap<Digest, SeenManifest> = evaluated
        .plan
        .manifests
        .iter()
        .filter(|manifest| !spared.contains(&manifest.digest))
        .map(|manifest| (manifest.digest.clone(), manifest.seen.clone()))
        .collect();
    let gone =
        repository.retire_manifests(&going, |digest| is_used(Reference::Digest(digest.clone())))?;
    removed.manifests += gone.len() as u64;
    removed.spared += (evaluated.plan.manifests.len() - gone.len()) as u64;
    for manifest in &evaluated.plan.manifests {
        if gone.contains(&manifest.digest) {
            record(manifest.digest.to_string(), &manifest.digest, manifest.rule);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
