//! The file of a crate in an index: a JSON object on each line, one for each version. Pure.

use std::collections::HashMap;

use boatyard_oci::Digest;
use jiff::Timestamp;
use serde::Deserialize;

/// The versions of a crate.
#[derive(Debug, Default)]
pub(super) struct Listing {
    versions: HashMap<Box<str>, Listed>,
}

/// What is said of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The digest of its crate.
    pub(super) sum: Digest,
    /// Its author withdrew it.
    pub(super) is_yanked: bool,
    /// When it was published, where the registry says so.
    pub(super) published: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    vers: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    cksum: std::borrow::Cow<'a, str>,
    #[serde(default)]
    yanked: Option<bool>,
    #[serde(borrow, default)]
    pubtime: Option<std::borrow::Cow<'a, str>>,
}

impl Line<'_> {
    fn is_yanked(&self) -> bool {
        self.yanked == Some(true)
    }

    fn published(&self) -> Option<Timestamp> {
        self.pubtime.as_ref()?.parse().ok()
    }
}

impl Listing {
    /// Reads the file; lines that make no sense are none.
    pub(super) fn parse(bytes: &[u8]) -> Listing {
        let lines = bytes.split(|byte| *byte == b'\n');
        let read = |line: &[u8]| {
            let line: Line<'_> = serde_json::from_slice(line).ok()?;
            let sum = format!("sha256:{}", line.cksum).parse().ok()?;
            let (is_yanked, published) = (line.is_yanked(), line.published());
            Some((line.vers.into(), Listed { sum, is_yanked, published }))
        };
        Listing { versions: lines.filter_map(read).collect() }
    }

    /// Returns what is said of a version.
    pub(super) fn version(&self, version: &str) -> Option<&Listed> {
        self.versions.get(version)
    }

    /// Returns what it takes in memory.
    pub(super) fn weight(&self) -> usize {
        256 + self.versions.keys().map(|version| version.len() + 192).sum::<usize>()
    }
}

/// What is left out of the file of a crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// What its author withdrew.
    pub(super) yanked: bool,
    /// What was published after that, in seconds since 1970.
    pub(super) after: Option<i64>,
}

impl Filter {
    /// Returns the recipe of it; `None` where nothing is left out.
    pub(super) fn recipe(self) -> Option<String> {
        let after = self.after.map(|after| after.to_string()).unwrap_or_default();
        (self != Filter::default()).then(|| format!("{MARK}{} {after}", self.yanked))
    }

    /// Understands a recipe.
    pub(super) fn of_recipe(recipe: &str) -> Option<Filter> {
        let (yanked, after) = recipe.strip_prefix(MARK)?.split_once(' ')?;
        Some(Filter { yanked: yanked == "true", after: after.parse().ok() })
    }

    /// Leaves out what is to be left out; a line that makes no sense stays.
    pub(super) fn apply(self, bytes: &[u8]) -> Vec<u8> {
        let stays = |line: &&[u8]| {
            let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return true };
            let is_young =
                line.published().zip(self.after).is_some_and(|(at, after)| at.as_second() > after);
            !(self.yanked && line.is_yanked() || is_young)
        };
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.filter(stays).flatten().copied().collect()
    }
}

/// What the recipe of a filter begins with.
const MARK: &str = "without ";
