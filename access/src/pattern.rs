//! Patterns of repositories: `team/**`, `*/public`, `docker.io/library/*`.

use std::fmt;
use std::str::FromStr;

use boatyard_oci::RepositoryName;
use serde::{Deserialize, Serialize};

/// A pattern that names repositories.
///
/// Between slashes, `*` is any number of characters. `**` alone between slashes is any number of
/// parts; at the end it is one or more, so that `team/**` is everything below `team` and not a
/// repository of that name. `**` alone is every repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPattern(Box<str>);

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is too long, or has too many wildcards to be compared quickly.
    #[error("the pattern is too long: it has at most 255 bytes and 8 times `*`")]
    Long,
    /// It has a part that no repository's name has.
    #[error("`{pattern}` matches no repository: names are lower case, in parts between slashes")]
    Nothing {
        /// The pattern.
        pattern: String,
    },
    /// `**` stands beside other characters.
    #[error("in `{pattern}`, `**` stands for whole parts: it must be alone between slashes")]
    Deep {
        /// The pattern.
        pattern: String,
    },
}

impl RepositoryPattern {
    /// Says whether it names a repository.
    pub fn matches(&self, repository: &RepositoryName) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let name: Vec<&str> = repository.as_str().split('/').collect();
        matches_parts(&pattern, &name)
    }
}

fn matches_parts(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((&"**", [])), name) => name.is_some(),
        (Some((&"**", rest)), _) => (0..=name.len()).any(|at| matches_parts(rest, &name[at..])),
        (Some((part, rest)), Some((first, others))) => {
            matches_part(part.as_bytes(), first.as_bytes()) && matches_parts(rest, others)
        }
        _ => false,
    }
}

/// Compares one part; `*` is any number of bytes.
fn matches_part(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| matches_part(rest, &text[at..])),
        Some((byte, rest)) => text
            .split_first()
            .is_some_and(|(first, others)| first == byte && matches_part(rest, others)),
    }
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<RepositoryPattern, PatternError> {
        let pattern = || text.to_owned();
        // Each wildcard can multiply the ways to compare.
        if text.len() > 255 || text.matches('*').count() > 8 {
            return Err(PatternError::Long);
        }
        for part in text.split('/') {
            let known =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-*".contains(&b);
            if part.is_empty() || !part.bytes().all(known) {
                return Err(PatternError::Nothing { pattern: pattern() });
            }
            if part != "**" && part.contains("**") {
                return Err(PatternError::Deep { pattern: pattern() });
            }
        }
        Ok(RepositoryPattern(text.into()))
    }
}

impl TryFrom<String> for RepositoryPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<RepositoryPattern, PatternError> {
        text.parse()
    }
}

impl From<RepositoryPattern> for String {
    fn from(pattern: RepositoryPattern) -> String {
        pattern.0.into()
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_what_they_seem_to() {
        let table = [
            ("app", "app", true),
            ("app", "app/x", false),
            ("*", "app", true),
            ("*", "team/app", false),
            ("**", "app", true),
            ("**", "a/b/c", true),
            ("team/**", "team/a", true),
            ("team/**", "team/a/b", true),
            ("team/**", "team", false),
            ("team/**", "teams/a", false),
            ("team/*", "team/a/b", false),
            ("team-*/app", "team-x/app", true),
            ("team-*/app", "team-x/y/app", false),
            ("**/public", "public", true),
            ("**/public", "a/b/public", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b", false),
            ("docker.io/library/*", "docker.io/library/alpine", true),
            ("dockerxio/*", "docker.io/x", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ];
        for (pattern, name, expected) in table {
            let matches =
                pattern.parse::<RepositoryPattern>().unwrap().matches(&name.parse().unwrap());
            assert_eq!(matches, expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_could_match_nothing_is_refused() {
        for bad in ["", "/", "a//b", "Team/*", "a/", "/a", "a:b", "a b", "a**", "**b/c", "***", "é"]
        {
            assert!(bad.parse::<RepositoryPattern>().is_err(), "{bad}");
        }
        assert!("*a*a*a*a*a*a*a*a*".parse::<RepositoryPattern>().is_err());
    }
}
