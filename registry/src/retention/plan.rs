//! What goes and what stays of one repository: a pure function of what was seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use boatyard_content::repository::{SeenManifest, SeenTag};
use boatyard_oci::{Digest, Tag};

use super::rule::RetentionRule;

/// How long a signature's tag waits for what it signs: clients push it a moment later, or before.
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A repository as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its tags.
    pub tags: Vec<SeenTag>,
    /// Its manifests.
    pub manifests: BTreeMap<Digest, SeenManifest>,
    /// Since when uses are noted: what was never used counts as used then.
    pub noted_since: SystemTime,
}

/// What is to become of one repository.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every tag, in ASCII order.
    pub tags: Vec<PlannedTag>,
    /// The manifests that are to go.
    pub manifests: Vec<PlannedManifest>,
}

/// What is to become of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTag {
    /// The tag, as it was seen.
    pub seen: SeenTag,
    /// When what it points at was last pulled, by the tag or by a digest.
    pub pulled: Option<SystemTime>,
    /// What is to become of it.
    pub verdict: Verdict,
}

/// A manifest that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedManifest {
    /// Which.
    pub digest: Digest,
    /// As it was seen.
    pub seen: SeenManifest,
    /// The rule for which it goes, by its place.
    pub rule: usize,
}

/// What is to become of a tag, and why. Rules are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule covers it.
    Uncovered,
    /// A rule keeps it.
    Kept {
        /// The rule.
        rule: usize,
        /// Why.
        why: Kept,
    },
    /// It would go, but cannot be moved, and the rule does not include such tags.
    Immutable {
        /// The rule.
        rule: usize,
    },
    /// It stays as long as what it signs or describes.
    Follows,
    /// It goes.
    Removed {
        /// The rule.
        rule: usize,
    },
}

/// Why a rule keeps a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// `keep` names it.
    Named,
    /// It is among the last that were pushed.
    Last,
    /// It was pushed lately.
    Pushed,
    /// It was pulled lately.
    Pulled,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kept::Named => "keep",
            Kept::Last => "keep_last",
            Kept::Pushed => "keep_within",
            Kept::Pulled => "keep_pulled_within",
        })
    }
}

/// Decides what is to become of a repository that these rules cover.
pub fn plan(
    rules: &[(usize, &RetentionRule)],
    seen: &Seen,
    is_immutable: &dyn Fn(&Tag) -> bool,
    now: SystemTime,
) -> Plan {
    let last = Last::of(rules, &seen.tags);
    let mut tags: Vec<PlannedTag> = Vec::with_capacity(seen.tags.len());
    for tag in &seen.tags {
        let pulled = pulled(tag, &seen.manifests);
        let verdict = match subject_of(&tag.tag) {
            Some(_) => Verdict::Follows,
            None => {
                let used = pulled.unwrap_or(seen.noted_since).max(tag.pushed);
                judge(rules, tag, used, &last, is_immutable, now)
            }
        };
        tags.push(PlannedTag { seen: tag.clone(), pulled, verdict });
    }
    let live = settle_followers(rules, &mut tags, &seen.manifests, now);
    let manifests = manifests(rules, &tags, seen, &live, now);
    Plan { tags, manifests }
}

/// When a tag's manifest was last pulled: by the tag, by its digest, or by one that it lists, as
/// clients pull their platform's.
fn pulled(tag: &SeenTag, manifests: &BTreeMap<Digest, SeenManifest>) -> Option<SystemTime> {
    let manifest = manifests.get(&tag.digest);
    let children = manifest.into_iter().flat_map(|manifest| &manifest.children);
    let by_digest = children.filter_map(|child| manifests.get(child)).chain(manifest);
    by_digest.map(|manifest| manifest.used).chain([tag.used]).max().flatten()
}

/// Which tags are among the last, for each rule.
struct Last<'a>(HashSet<(usize, &'a Tag)>);

impl<'a> Last<'a> {
    fn of(rules: &[(usize, &RetentionRule)], tags: &'a [SeenTag]) -> Last<'a> {
        let mut last = HashSet::new();
        for (at, rule) in rules {
            let Some(number) = rule.keep_last else { continue };
            // What stays anyway does not take a place among the last.
            let mut covered: Vec<&SeenTag> = tags
                .iter()
                .filter(|tag| subject_of(&tag.tag).is_none())
                .filter(|tag| rule.judges(&tag.tag) && !rule.always_keeps(&tag.tag))
                .collect();
            covered.sort_by(|one, other| {
                other.pushed.cmp(&one.pushed).then_with(|| other.tag.cmp(&one.tag))
            });
            last.extend(covered.into_iter().take(number).map(|tag| (*at, &tag.tag)));
        }
        Last(last)
    }
}

fn judge(
    rules: &[(usize, &RetentionRule)],
    tag: &SeenTag,
    used: SystemTime,
    last: &Last<'_>,
    is_immutable: &dyn Fn(&Tag) -> bool,
    now: SystemTime,
) -> Verdict {
    let mut removing = None;
    let mut includes_immutable = false;
    for (rule, of) in rules.iter().filter(|(_, of)| of.judges(&tag.tag)) {
        let within = |limit: Option<Duration>, at: SystemTime| {
            limit.is_some_and(|limit| is_within(at, limit, now))
        };
        let why = if of.always_keeps(&tag.tag) {
            Some(Kept::Named)
        } else if last.0.contains(&(*rule, &tag.tag)) {
            Some(Kept::Last)
        } else if within(of.keep_within, tag.pushed) {
            Some(Kept::Pushed)
        } else if within(of.keep_pulled_within, used) {
            Some(Kept::Pulled)
        } else {
            None
        };
        if let Some(why) = why {
            return Verdict::Kept { rule: *rule, why };
        }
        removing.get_or_insert(*rule);
        includes_immutable |= of.include_immutable;
    }
    match removing {
        None => Verdict::Uncovered,
        Some(rule) if !includes_immutable && is_immutable(&tag.tag) => Verdict::Immutable { rule },
        Some(rule) => Verdict::Removed { rule },
    }
}

fn is_within(at: SystemTime, limit: Duration, now: SystemTime) -> bool {
    // What lies ahead, by a clock that was set, was just now.
    now.duration_since(at).map_or(true, |age| age <= limit)
}

/// Returns what a tag of the referrers tag schema, or cosign's, is about: `sha256-<hex>[.sig]`.
fn subject_of(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    format!("{algorithm}:{hex}").parse().ok()
}

/// Decides about the tags that follow what they are about, and returns the manifests that stay for
/// a tag's sake.
fn settle_followers(
    rules: &[(usize, &RetentionRule)],
    tags: &mut [PlannedTag],
    manifests: &BTreeMap<Digest, SeenManifest>,
    now: SystemTime,
) -> BTreeSet<Digest> {
    loop {
        let roots = tags.iter().filter(|tag| !matches!(tag.verdict, Verdict::Removed { .. }));
        let is_follower = |tag: &PlannedTag| tag.verdict == Verdict::Follows;
        // A follower is no reason for what it is about to stay.
        let firm = roots.filter(|tag| !is_follower(tag)).map(|tag| &tag.seen.digest);
        let firm = firm.filter_map(|digest| manifests.get_key_value(digest));
        let live = SeenManifest::needed(manifests, firm.map(|(digest, _)| digest).collect());
        // What has no tag, and goes for no tag's sake, keeps its followers until it goes.
        let removed: HashMap<&Digest, usize> = tags
            .iter()
            .filter_map(|tag| match tag.verdict {
                Verdict::Removed { rule } => Some((&tag.seen.digest, rule)),
                _ => None,
            })
            .filter(|(digest, _)| !live.contains(digest))
            .collect();
        let verdict = |tag: &PlannedTag| {
            let subject = subject_of(&tag.seen.tag)?;
            if let Some(rule) = removed.get(&subject) {
                return Some(Verdict::Removed { rule: *rule });
            }
            let is_old = !is_within(tag.seen.pushed, ORPHAN_AFTER, now);
            let rule = rules.iter().find(|(_, rule)| rule.judges(&tag.seen.tag));
            match rule {
                Some((rule, _)) if is_old && !manifests.contains_key(&subject) => {
                    Some(Verdict::Removed { rule: *rule })
                }
                _ => None,
            }
        };
        let changes: Vec<(usize, Verdict)> = tags
            .iter()
            .enumerate()
            .filter(|(_, tag)| is_follower(tag))
            .filter_map(|(at, tag)| Some((at, verdict(tag)?)))
            .collect();
        if changes.is_empty() {
            let followers = tags.iter().filter(|tag| is_follower(tag)).map(|tag| &tag.seen.digest);
            let followers = followers.filter_map(|digest| manifests.get_key_value(digest));
            let roots = live.into_iter().chain(followers.map(|(digest, _)| digest)).collect();
            return SeenManifest::needed(manifests, roots).into_iter().cloned().collect();
        }
        for (at, verdict) in changes {
            tags[at].verdict = verdict;
        }
    }
}

/// Returns the manifests that go: those of tags that go, with what only they need, and those to
/// which no tag led for long.
fn manifests(
    rules: &[(usize, &RetentionRule)],
    tags: &[PlannedTag],
    seen: &Seen,
    live: &BTreeSet<Digest>,
    now: SystemTime,
) -> Vec<PlannedManifest> {
    let mut going: BTreeMap<&Digest, usize> = BTreeMap::new();
    for tag in tags {
        let Verdict::Removed { rule } = tag.verdict else { continue };
        if live.contains(&tag.seen.digest) {
            continue;
        }
        let Some((digest, _)) = seen.manifests.get_key_value(&tag.seen.digest) else { continue };
        for digest in SeenManifest::needed(&seen.manifests, BTreeSet::from([digest])) {
            going.entry(digest).or_insert(rule);
        }
    }
    let untagged = rules.iter().filter_map(|(at, rule)| Some((*at, rule.untagged_after?)));
    // Of several rules the one that keeps longest holds.
    if let Some((rule, limit)) = untagged.max_by_key(|(_, limit)| *limit) {
        for (digest, manifest) in &seen.manifests {
            let used = manifest.used.unwrap_or(seen.noted_since);
            if !is_within(manifest.pushed.max(used), limit, now) {
                going.entry(digest).or_insert(rule);
            }
        }
    }
    // Whatever stays keeps what it lists, and what is said about it.
    let stay = seen
        .manifests
        .keys()
        .filter(|digest| live.contains(*digest) || !going.contains_key(digest));
    let stay = SeenManifest::needed(&seen.manifests, stay.collect());
    going
        .into_iter()
        .filter(|(digest, _)| !stay.contains(digest))
        .map(|(digest, rule)| {
            let seen = seen.manifests[digest].clone();
            PlannedManifest { digest: digest.clone(), seen, rule }
        })
        .collect()
}
