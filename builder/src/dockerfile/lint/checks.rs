//! Which rules count: `# check=skip=A,B;error=true;experimental=C`.

use std::collections::BTreeSet;

use super::rule::Rule;
use crate::dockerfile::directive::parse_pair;
use crate::dockerfile::mount::parse_bool;

/// A set of rules by name; names that do not exist are kept, for they may tomorrow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rules {
    All,
    Named(BTreeSet<String>),
}

impl Default for Rules {
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl Rules {
    fn parse(text: &str) -> Self {
        if text.trim() == "all" {
            return Self::All;
        }
        Self::Named(text.split(',').map(|name| name.trim().to_owned()).collect())
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(rule.name()),
        }
    }

    fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Named(these), Self::Named(those)) => {
                Self::Named(these.union(those).cloned().collect())
            }
            _ => Self::All,
        }
    }
}

/// Which rules count, and whether a finding fails the build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checks {
    skip: Rules,
    experimental: Rules,
    /// A finding fails the build, once all were reported.
    pub error: bool,
}

/// Why the text of `# check=` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum ChecksError {
    #[error("unknown option `{0}`")]
    Option(String),
    #[error("`error` is either true or false, not `{0}`")]
    NotBoolean(String),
}

impl Checks {
    /// Reads options separated by `;`.
    ///
    /// # Errors
    ///
    /// On options other than `skip`, `error` and `experimental`.
    pub fn parse(text: &str) -> Result<Self, ChecksError> {
        let mut checks = Self::default();
        if text.trim().is_empty() {
            return Ok(checks);
        }
        for option in text.split(';') {
            let (key, value) =
                option.split_once('=').ok_or_else(|| ChecksError::Option(option.to_owned()))?;
            let value = value.trim();
            match key.trim() {
                "skip" => checks.skip = Rules::parse(value),
                "experimental" => checks.experimental = Rules::parse(value),
                "error" => {
                    let parsed = parse_bool(value);
                    checks.error =
                        parsed.ok_or_else(|| ChecksError::NotBoolean(value.to_owned()))?;
                }
                other => return Err(ChecksError::Option(other.to_owned())),
            }
        }
        Ok(checks)
    }

    /// Adds what a comment above an instruction says; whether findings fail the build stays.
    #[must_use]
    pub fn merged(&self, comment: Option<&Self>) -> Self {
        let Some(comment) = comment else { return self.clone() };
        Self {
            skip: self.skip.union(&comment.skip),
            experimental: self.experimental.union(&comment.experimental),
            error: self.error,
        }
    }

    /// Tells whether a rule's findings are reported.
    #[must_use]
    pub fn allows(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.has(rule) } else { !self.skip.has(rule) }
    }
}

/// Returns what the comments above an instruction say: the first `check=` counts.
pub(in crate::dockerfile) fn comment_checks(comments: &[String]) -> Option<Checks> {
    comments.iter().find_map(|comment| {
        let (name, value) = parse_pair(comment)?;
        let value = value.split(' ').next().unwrap_or_default();
        name.eq_ignore_ascii_case("check").then(|| Checks::parse(value).ok()).flatten()
    })
}
