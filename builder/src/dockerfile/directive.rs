//! The comments at the top that are no comments: `# syntax=`, `# escape=`, `# check=`.

use super::error::{SyntaxError, SyntaxErrorKind};
use super::lint::Checks;
use super::span::{Span, Spanned};

/// What the directives of a Dockerfile say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The image of a frontend that shall read this file, up to the first blank.
    pub syntax: Option<Spanned<String>>,
    /// The escape character: `\` (the default) or `` ` ``.
    pub escape: char,
    /// The text of `# check=`.
    pub check: Option<Spanned<String>>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// The directives, what they say about checks, and where they end.
#[derive(Debug, Default)]
pub(super) struct DirectiveZone {
    pub(super) directives: Directives,
    pub(super) checks: Checks,
    pub(super) end: usize,
}

/// Reads the directives. The first line that is none ends them, whatever it is; a `#!` line at
/// the very top is passed over.
pub(super) fn read(text: &str, errors: &mut Vec<SyntaxError>) -> DirectiveZone {
    let mut zone = DirectiveZone::default();
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut at = text.len() - body.len();
    let mut seen: Vec<String> = Vec::new();
    for line in body.split_inclusive('\n') {
        let start = at;
        at += line.len();
        if start + line.len() == text.len() - body.len() + line.len() && line.starts_with("#!") {
            continue;
        }
        let Some((name, value, offset)) = parse_line(line) else { break };
        let span = Span::new(start + offset, start + offset + value.len());
        if seen.contains(&name) {
            errors.push(SyntaxError::new(SyntaxErrorKind::DuplicateDirective(name), span));
            continue;
        }
        zone.apply(&name, value, span, errors);
        zone.end = at;
        seen.push(name);
    }
    zone
}

impl DirectiveZone {
    fn apply(&mut self, name: &str, value: &str, span: Span, errors: &mut Vec<SyntaxError>) {
        let word = value.split(' ').next().unwrap_or_default().to_owned();
        match name {
            "syntax" => self.directives.syntax = Some(Spanned::new(word, span)),
            "check" => {
                match Checks::parse(&word) {
                    Ok(checks) => self.checks = checks,
                    Err(error) => errors.push(SyntaxError::new(error.into(), span)),
                }
                self.directives.check = Some(Spanned::new(word, span));
            }
            _ => match value {
                "\\" | "`" => self.directives.escape = value.chars().next().unwrap_or('\\'),
                other => {
                    let kind = SyntaxErrorKind::InvalidEscape(other.to_owned());
                    let error = SyntaxError::new(kind, span);
                    errors.push(error.hint("use `\\` or the backtick"));
                }
            },
        }
    }
}

/// Returns name (in lower case), value and the value's offset, if the line is a known directive.
fn parse_line(line: &str) -> Option<(String, &str, usize)> {
    let (name, value) = parse_pair(line.trim().strip_prefix('#')?)?;
    let name = name.to_ascii_lowercase();
    let offset = line.rfind(value)?;
    matches!(name.as_str(), "syntax" | "escape" | "check").then_some((name, value, offset))
}

/// Splits `name = value`: the name is letters and digits and begins with a letter.
pub(super) fn parse_pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.trim().split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && !value.is_empty();
    valid.then_some((name, value))
}

/// Returns the frontend that a file asks for, whatever its language: `# syntax=`, `// syntax=`
/// or a JSON object with a `syntax` member.
#[must_use]
pub fn detect_syntax(text: &str) -> Option<String> {
    let in_comments = |comment: &str| {
        let body = text.trim_start_matches('\u{feff}');
        let lines = body.lines().skip(usize::from(body.starts_with("#!")));
        let mut pairs = lines.map_while(|line| parse_pair(line.trim().strip_prefix(comment)?));
        let found = pairs.find(|(name, _)| name.eq_ignore_ascii_case("syntax"))?;
        found.1.split(' ').next().map(str::to_owned)
    };
    in_comments("#").or_else(|| in_comments("//")).or_else(|| {
        let object: serde_json::Value = serde_json::from_str(text).ok()?;
        object.get("syntax")?.as_str().map(str::to_owned)
    })
}
