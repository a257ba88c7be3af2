//! Patterns of tags: `v*`, `1.?`, or a regular expression between slashes, `/v\d+/`.

use std::fmt;
use std::str::FromStr;

use boatyard_oci::Tag;
use regex::Regex;
use serde::{Deserialize, Serialize};

/// How long a pattern can be.
const LEN_MAX: usize = 255;
/// How much memory a compiled one may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A pattern that names tags: the whole tag has to fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagPattern {
    text: Box<str>,
    compiled: Regex,
}

/// A text that is no pattern of tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagPatternError {
    /// It is empty, or too long.
    #[error("a pattern of tags has 1 to {LEN_MAX} characters")]
    Length,
    /// It has a character that no tag has.
    #[error(
        "`{pattern}` matches no tag: they have letters, digits, `_`, `.` and `-`. A regular \
         expression stands between slashes"
    )]
    Nothing {
        /// The pattern.
        pattern: String,
    },
    /// The regular expression is none.
    #[error("`{pattern}` is no regular expression: {problem}")]
    Regex {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl TagPattern {
    /// Says whether it names a tag.
    pub fn matches(&self, tag: &Tag) -> bool {
        self.compiled.is_match(tag.as_str())
    }
}

impl FromStr for TagPattern {
    type Err = TagPatternError;

    fn from_str(text: &str) -> Result<TagPattern, TagPatternError> {
        if text.is_empty() || text.len() > LEN_MAX {
            return Err(TagPatternError::Length);
        }
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let expression = match inner {
            Some(expression) => expression.to_owned(),
            None => expression_of(text)?,
        };
        let compiled = regex::RegexBuilder::new(&format!("^(?:{expression})$"))
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| TagPatternError::Regex {
                pattern: text.to_owned(),
                // The parser draws the expression and points into it; the last line says why.
                problem: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
            })?;
        Ok(TagPattern { text: text.into(), compiled })
    }
}

/// Returns the regular expression of `*` (any characters) and `?` (one).
fn expression_of(pattern: &str) -> Result<String, TagPatternError> {
    let mut expression = String::new();
    for character in pattern.chars() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '.' => expression.push_str("\\."),
            '_' | '-' => expression.push(character),
            _ if character.is_ascii_alphanumeric() => expression.push(character),
            _ => return Err(TagPatternError::Nothing { pattern: pattern.to_owned() }),
        }
    }
    Ok(expression)
}

impl TryFrom<String> for TagPattern {
    type Error = TagPatternError;

    fn try_from(text: String) -> Result<TagPattern, TagPatternError> {
        text.parse()
    }
}

impl From<TagPattern> for String {
    fn from(pattern: TagPattern) -> String {
        pattern.text.into()
    }
}

impl PartialEq for TagPattern {
    fn eq(&self, other: &TagPattern) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_what_they_seem_to() {
        let table = [
            ("*", "anything", true),
            ("v*", "v1.2", true),
            ("v*", "xv1", false),
            ("1.?", "1.2", true),
            ("1.?", "1.22", false),
            ("1.2", "1x2", false),
            ("latest", "latest", true),
            (r"/v\d+/", "v12", true),
            (r"/v\d+/", "v12-rc", false),
            ("/a|b/", "b", true),
            ("/a|b/", "ab", false),
        ];
        for (pattern, tag, expected) in table {
            let matches = pattern.parse::<TagPattern>().unwrap().matches(&tag.parse().unwrap());
            assert_eq!(matches, expected, "{pattern} on {tag}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for bad in ["", "a/b", "a b", "/(/", "/x{1,99999999}/"] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad}");
        }
        assert!("a".repeat(300).parse::<TagPattern>().is_err());
    }
}
