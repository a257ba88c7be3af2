//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, no classes.

use regex::{NoExpand, Regex};

use super::ExpansionError;

/// One thing that a pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`: any characters but line feeds, also none.
    Star,
    /// `?`: one character but a line feed.
    Any,
    /// The character itself.
    Literal(char),
}

/// A pattern that was read.
#[derive(Debug)]
pub(super) struct Pattern<'a> {
    text: &'a str,
    tokens: Vec<Token>,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern. `\` makes `*`, `?` and itself literal; before `/` and `}` it was needed for
    /// the substitution and is no part of the pattern.
    pub(super) fn parse(text: &'a str) -> Result<Self, ExpansionError> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Token::Literal(escaped),
                    _ => return Err(invalid(text, "`\\` may precede `*`, `?`, `\\`, `/` or `}`")),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Self { text, tokens })
    }

    /// Returns the value without the prefix that matches, if one does.
    pub(super) fn strip_prefix(
        &self,
        value: &str,
        longest: bool,
    ) -> Result<String, ExpansionError> {
        let regex = self.regex(self.tokens.iter(), "^", longest)?;
        Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
    }

    /// Returns the value without the suffix that matches, if one does.
    ///
    /// A search finds the leftmost match, so the shortest suffix is found as a prefix, with both
    /// value and pattern reversed.
    pub(super) fn strip_suffix(
        &self,
        value: &str,
        longest: bool,
    ) -> Result<String, ExpansionError> {
        let regex = self.regex(self.tokens.iter().rev(), "^", longest)?;
        let reversed: String = value.chars().rev().collect();
        let suffix = regex.find(&reversed).map_or(0, |found| found.len());
        Ok(value[..value.len() - suffix].to_owned())
    }

    /// Returns the value with the first match, or every match, replaced by a literal text.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
    ) -> Result<String, ExpansionError> {
        let regex = self.regex(self.tokens.iter(), "", true)?;
        let limit = usize::from(!all);
        Ok(regex.replacen(value, limit, NoExpand(replacement)).into_owned())
    }

    fn regex<'t>(
        &self,
        tokens: impl Iterator<Item = &'t Token>,
        anchor: &str,
        longest: bool,
    ) -> Result<Regex, ExpansionError> {
        let mut regex = String::with_capacity(self.text.len() + anchor.len());
        regex.push_str(anchor);
        for token in tokens {
            match token {
                Token::Star if longest => regex.push_str(".*"),
                Token::Star => regex.push_str(".*?"),
                Token::Any => regex.push('.'),
                Token::Literal(c) => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        Regex::new(&regex).map_err(|_| invalid(self.text, "it is too long"))
    }
}

fn invalid(pattern: &str, reason: &'static str) -> ExpansionError {
    // A message is for reading: a pattern of thousands of characters is cut.
    let pattern = pattern.chars().take(80).collect();
    ExpansionError::InvalidPattern { pattern, reason }
}
