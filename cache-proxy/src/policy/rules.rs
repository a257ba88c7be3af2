//! What the operator says of URLs that no ecosystem knows.

use std::time::Duration;

use crate::target::Target;

const LEN_MAX: usize = 2048;
const WILDCARDS_MAX: usize = 16;

/// Rules in their order: the first that names a URL decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// What URLs that a pattern names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pattern: Box<str>,
    treatment: Treatment,
}

/// How a URL is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Its bytes never change: what is kept is never asked for again.
    Immutable,
    /// What is kept serves for so long after the upstream was asked, and is revalidated then: on
    /// each use, where that is nothing.
    Revalidate(Duration),
    /// It passes through and is never kept.
    Pass,
}

/// A text that is no pattern of URLs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{pattern}` is no pattern of URLs: it begins with http://, https:// or *, or with / below an \
     upstream, and has at most {WILDCARDS_MAX} times `*`"
)]
pub struct RuleError {
    pattern: String,
}

impl Rule {
    /// Reads a rule. `*` is any number of characters but `/`, `**` any number of all; a query
    /// counts only where the pattern has a `?`. A pattern that begins with `/` lies below `base`.
    ///
    /// # Errors
    /// Where the pattern is none.
    pub fn new(pattern: &str, base: Option<&str>, treatment: Treatment) -> Result<Rule, RuleError> {
        let refuse = || RuleError { pattern: pattern.chars().take(LEN_MAX).collect() };
        let whole = match (base, pattern.strip_prefix('/')) {
            // A base's own characters are no wildcards: no URL has `*` in its host, and where its
            // path has one it stands for itself and more, which does no harm.
            (Some(base), Some(below)) => format!("{}/{below}", base.trim_end_matches('/')),
            (None, Some(_)) => return Err(refuse()),
            (_, None) => pattern.to_owned(),
        };
        let absolute = ["http://", "https://", "*"].iter().any(|start| whole.starts_with(start));
        let fine = absolute
            && whole.len() <= LEN_MAX
            && whole.matches('*').count() <= WILDCARDS_MAX
            && whole.bytes().all(|byte| byte.is_ascii_graphic());
        if !fine {
            return Err(refuse());
        }
        Ok(Rule { pattern: whole.into(), treatment })
    }

    fn names(&self, url: &str) -> bool {
        let plain = url.split('?').next().unwrap_or_default();
        let url = if self.pattern.contains('?') { url } else { plain };
        matches(self.pattern.as_bytes(), url.as_bytes())
    }
}

impl Rules {
    /// Returns rules in their order.
    pub fn new(rules: Vec<Rule>) -> Rules {
        Rules(rules)
    }

    /// Returns how a target is treated, where a rule names it.
    pub fn of(&self, target: &Target) -> Option<Treatment> {
        self.0.iter().find(|rule| rule.names(target.as_str())).map(|rule| rule.treatment)
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compares a URL. Each part of the pattern is looked at with each part of the URL once, so the work
/// is the product of their lengths at most.
fn matches(pattern: &[u8], url: &[u8]) -> bool {
    // Which ends of the URL's beginnings the pattern so far reaches.
    let mut reached = vec![false; url.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'*' {
            let deep = tail.first() == Some(&b'*');
            rest = if deep { &tail[1..] } else { tail };
            for at in 0..url.len() {
                if reached[at] && (deep || url[at] != b'/') {
                    reached[at + 1] = true;
                }
            }
        } else {
            rest = tail;
            for at in (0..url.len()).rev() {
                reached[at + 1] = reached[at] && url[at] == *first;
            }
            reached[0] = false;
        }
    }
    reached[url.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, base: Option<&str>, treatment: Treatment) -> Rule {
        Rule::new(pattern, base, treatment).unwrap()
    }

    #[test]
    fn the_first_rule_that_names_a_url_decides() {
        let base = Some("https://dl.example/files/");
        let ttl = Treatment::Revalidate(Duration::from_secs(60));
        let rules = Rules::new(vec![
            rule("/nightly/*.zip", base, ttl),
            rule("/**", base, Treatment::Immutable),
            rule("https://**.example/api/**?token=*", None, Treatment::Pass),
            rule("*://a.example/*", None, Treatment::Immutable),
        ]);
        for (url, expected) in [
            ("https://dl.example/files/nightly/a.zip", Some(ttl)),
            ("https://dl.example/files/nightly/a.zip?x=1", Some(ttl)),
            ("https://dl.example/files/nightly/b/a.zip", Some(Treatment::Immutable)),
            ("https://dl.example/other", None),
            ("https://x.y.example/api/v1?token=1", Some(Treatment::Pass)),
            ("https://x.y.example/api/v1", None),
            ("http://a.example/b", Some(Treatment::Immutable)),
            ("http://a.example/b/c", None),
        ] {
            assert_eq!(rules.of(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        let many = format!("http://a/{}", "*".repeat(17));
        for bad in ["", "/x", "ftp://a/*", "a.example/*", "http://a b", &many] {
            assert!(Rule::new(bad, None, Treatment::Pass).is_err(), "{bad}");
        }
    }
}
