//! Tags that point at one manifest for good.

use boatyard_access::RepositoryPattern;
use boatyard_oci::{RepositoryName, Tag};

use crate::pattern::TagPattern;

/// Which tags cannot be moved: those of some repositories that a pattern names.
#[derive(Clone, Debug, PartialEq)]
pub struct ImmutableRule {
    /// The repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags.
    pub tags: Vec<TagPattern>,
    /// The tags among them that can be moved all the same.
    pub except: Vec<TagPattern>,
}

/// All rules about tags that cannot be moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Immutable {
    rules: Vec<ImmutableRule>,
}

impl Immutable {
    /// Returns what some rules say together.
    pub fn new(rules: Vec<ImmutableRule>) -> Immutable {
        Immutable { rules }
    }

    /// Says whether a tag cannot be moved once it points at something.
    pub fn holds(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let named = |patterns: &[TagPattern]| patterns.iter().any(|pattern| pattern.matches(tag));
        self.rules.iter().any(|rule| {
            rule.repositories.iter().any(|pattern| pattern.matches(repository))
                && named(&rule.tags)
                && !named(&rule.except)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_tags_and_spares_some() {
        let immutable = Immutable::new(vec![ImmutableRule {
            repositories: vec!["team/**".parse().unwrap()],
            tags: vec!["*".parse().unwrap()],
            except: vec!["latest".parse().unwrap(), "dev-*".parse().unwrap()],
        }]);
        let holds = |repository: &str, tag: &str| {
            immutable.holds(&repository.parse().unwrap(), &tag.parse().unwrap())
        };
        assert!(holds("team/app", "1.0"));
        assert!(!holds("team/app", "latest") && !holds("team/app", "dev-7"));
        assert!(!holds("other/app", "1.0"));
        assert!(!Immutable::default().holds(&"a".parse().unwrap(), &"b".parse().unwrap()));
    }
}
