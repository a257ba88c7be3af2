//! What the operator wants of an upstream, whatever its ecosystem: which names are private, how old
//! a public version must be, what becomes of what was withdrawn, and what unknown URLs are.

mod names;
mod rules;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use names::{NameError, NamePatterns};
pub use rules::{Rule, RuleError, Rules, Treatment};

/// The policy of an upstream.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The names that are private here: never looked up at the upstream, and the only ones that may
    /// be published, where there is an upstream.
    pub private: NamePatterns,
    /// How old a public version must be before it is shown.
    pub minimum_age: Option<Duration>,
    /// The packages of which every version is shown at once.
    pub minimum_age_exclude: NamePatterns,
    /// What becomes of versions that their authors withdrew (yanked, deprecated).
    pub withdrawn: Withdrawn,
    /// What unknown URLs are.
    pub rules: Rules,
}

/// What becomes of what its author withdrew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Withdrawn {
    /// It is served as the upstream serves it, with the upstream's mark.
    #[default]
    Serve,
    /// It is served, and each time the log has a line.
    Warn,
    /// It is left out of indexes, and its files are refused (403).
    Refuse,
}

impl Policy {
    /// Says whether a public version is too young to be shown: left out of indexes, its files
    /// refused (403). One whose age nobody knows (`None`) is shown: an index without times would
    /// otherwise be empty.
    pub fn holds_back(&self, package: &str, published: Option<Timestamp>, now: Timestamp) -> bool {
        let (Some(minimum), Some(published)) = (self.minimum_age, published) else { return false };
        let age = now.duration_since(published);
        let minimum = SignedDuration::try_from(minimum).unwrap_or(SignedDuration::MAX);
        age < minimum && !self.minimum_age_exclude.matches(package)
    }

    /// Says whether anything is left out of what an upstream's index has: then what clients get has
    /// to be rendered.
    pub fn changes_indexes(&self) -> bool {
        self.minimum_age.is_some() || self.withdrawn == Withdrawn::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_young_are_held_back() {
        let policy = Policy {
            minimum_age: Some(Duration::from_secs(3 * 86_400)),
            minimum_age_exclude: NamePatterns::new(&["acme-*"]).unwrap(),
            ..Policy::default()
        };
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        for (package, published, held) in [
            ("left-pad", at("2026-01-09T00:00:00Z"), true),
            ("left-pad", at("2026-01-07T00:00:00Z"), false),
            ("left-pad", at("2027-01-07T00:00:00Z"), true),
            ("left-pad", None, false),
            ("Acme_tools", at("2026-01-09T00:00:00Z"), false),
        ] {
            assert_eq!(policy.holds_back(package, published, now), held, "{package} {published:?}");
        }
        assert!(!Policy::default().holds_back("x", at("2026-01-09T00:00:00Z"), now));
    }
}
