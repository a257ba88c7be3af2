//! Path patterns: Go's `filepath.Match`, and the `**` of ignore files on top of it.

use regex::Regex;

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern `{0}`")]
pub struct PatternError(pub String);

/// A pattern for paths with `/` between their parts.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: Matcher,
}

/// The cheapest way to tell whether a path matches.
#[derive(Debug, Clone)]
enum Matcher {
    Exact(String),
    Prefix(String),
    /// Also matches without its leading `/`, if it has one.
    Suffix(String),
    Regex(Regex),
}

/// One thing that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`: one character but `/`.
    Any,
    /// `*`: characters but `/`.
    Star,
    /// `**`, and whether a `/` follows, which then belongs to it.
    DoubleStar {
        slash: bool,
    },
    /// `[a-z]`, `[^a-z]`: one character, `/` too, as in Go.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Reads a pattern of COPY or ADD: Go's `filepath.Match`, where `**` is `*` twice.
    ///
    /// # Errors
    ///
    /// On unclosed or empty classes, and an escape at the end.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::compile(text, false)
    }

    /// Reads a pattern of an ignore file, of `--exclude` or of `--parents`: `**` is any number of
    /// directories, none too.
    ///
    /// # Errors
    ///
    /// As for [`Pattern::parse`].
    pub fn parse_double_star(text: &str) -> Result<Self, PatternError> {
        Self::compile(text, true)
    }

    fn compile(text: &str, double_star: bool) -> Result<Self, PatternError> {
        let error = || PatternError(text.to_owned());
        let tokens = tokens(text, double_star).ok_or_else(error)?;
        if let Some(matcher) = simple(&tokens) {
            return Ok(Self { matcher });
        }
        let regex = Regex::new(&regex_text(&tokens)).map_err(|_| error())?;
        Ok(Self { matcher: Matcher::Regex(regex) })
    }

    /// Tells whether the whole path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(text) => path == text,
            Matcher::Prefix(text) => path.starts_with(text.as_str()),
            Matcher::Suffix(text) => {
                path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path)
            }
            Matcher::Regex(regex) => regex.is_match(path),
        }
    }
}

/// Tells whether a path of COPY or ADD is a pattern rather than the name of one file.
#[must_use]
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// Returns the shortest equivalent of a path, as Go's `path.Clean` does: no `.`, no `//`, `..`
/// only at the beginning of relative paths, `.` for nothing.
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

fn tokens(text: &str, double_star: bool) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if double_star && chars.next_if_eq(&'*').is_some() => {
                Token::DoubleStar { slash: chars.next_if_eq(&'/').is_some() }
            }
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Literal(chars.next()?),
            '[' => class(&mut chars)?,
            c => Token::Literal(c),
        });
    }
    Some(tokens)
}

/// Reads a class behind its `[`. It holds at least one range; `-` and `]` in it are escaped.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// Returns a matcher without a regular expression, if the pattern has but one `**`, at an end.
fn simple(tokens: &[Token]) -> Option<Matcher> {
    let literal = |tokens: &[Token]| {
        let chars = tokens.iter().map(|token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        });
        chars.collect::<Option<String>>()
    };
    match tokens {
        [Token::DoubleStar { .. }] => Some(Matcher::Prefix(String::new())),
        [Token::DoubleStar { slash }, rest @ ..] => {
            let slash = if *slash { "/" } else { "" };
            literal(rest).map(|rest| Matcher::Suffix(format!("{slash}{rest}")))
        }
        [rest @ .., Token::DoubleStar { .. }] => literal(rest).map(Matcher::Prefix),
        _ => literal(tokens).map(Matcher::Exact),
    }
}

fn regex_text(tokens: &[Token]) -> String {
    let mut text = String::from("(?s)^");
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Literal(c) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            Token::Any => text.push_str("[^/]"),
            Token::Star => text.push_str("[^/]*"),
            Token::DoubleStar { .. } if at + 1 == tokens.len() => text.push_str(".*"),
            Token::DoubleStar { .. } => text.push_str("(?:.*/)?"),
            Token::Class { negated, ranges } => push_class(*negated, ranges, &mut text),
        }
    }
    text.push('$');
    text
}

fn push_class(negated: bool, ranges: &[(char, char)], text: &mut String) {
    use std::fmt::Write as _;
    // A range that ends before it begins matches nothing; alone, it makes a class of nothing.
    let ranges: Vec<_> = ranges.iter().filter(|(low, high)| low <= high).collect();
    if ranges.is_empty() {
        text.push_str(if negated { "." } else { "[^\\x{0}-\\x{10FFFF}]" });
        return;
    }
    text.push_str(if negated { "[^" } else { "[" });
    for (low, high) in ranges {
        let _ = write!(text, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(*low), u32::from(*high));
    }
    text.push(']');
}

#[cfg(test)]
mod tests;
