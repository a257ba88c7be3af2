//! The `--name=value` words between an instruction's name and its arguments.

use super::error::{SyntaxError, SyntaxErrorKind};
use super::lexer::Fragment;
use super::span::{Span, Spanned};
use super::suggest;

/// What a flag may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// A value, once.
    Text,
    /// A value, as often as one likes.
    List,
    /// `--x`, `--x=true` or `--x=false`, once.
    Switch,
}

/// The flags that an instruction knows.
pub(super) type Known = &'static [(&'static str, FlagKind)];

/// A flag as it was written, quotes and escapes resolved.
#[derive(Debug, Clone)]
struct Flag {
    name: String,
    value: Option<Spanned<String>>,
    span: Span,
}

/// The flags of one instruction, checked against those that it knows.
#[derive(Debug, Default)]
pub(super) struct Flags {
    flags: Vec<Flag>,
}

impl Flags {
    /// Takes the flags off the front of the arguments; a bare `--` ends them.
    pub(super) fn take<'a>(
        arguments: Fragment<'a>,
        escape: char,
        known: Known,
        instruction: &str,
    ) -> Result<(Self, Fragment<'a>), SyntaxError> {
        let mut flags = Self::default();
        let mut rest = arguments.trimmed();
        while rest.text().starts_with("--") {
            let (word, length) = unquoted_word(rest, escape)?;
            let raw = rest.at(0..length);
            rest = rest.at(length..rest.text().len()).trimmed();
            if word == "--" {
                break;
            }
            flags.add(&word, raw, known, instruction)?;
        }
        Ok((flags, rest))
    }

    fn add(
        &mut self,
        word: &str,
        raw: Fragment<'_>,
        known: Known,
        instruction: &str,
    ) -> Result<(), SyntaxError> {
        let (flag, value) = word.split_once('=').map_or((word, None), |(f, v)| (f, Some(v)));
        let equals = raw.text().find('=').unwrap_or(raw.text().len());
        let name_span = raw.at(0..equals).span();
        let fail = |kind| Err(SyntaxError::new(kind, name_span));
        let name = flag.trim_start_matches("--");
        let flag = flag.to_owned();
        let Some((_, kind)) = known.iter().find(|(other, _)| *other == name) else {
            let near = suggest::nearest(name, known.iter().map(|(name, _)| *name), true);
            let instruction = instruction.to_owned();
            let error = fail(SyntaxErrorKind::UnknownFlag { flag, instruction });
            return error.map_err(|error| match near {
                Some(near) => error.hint(format!("did you mean `--{near}`?")),
                None if known.is_empty() => error,
                None => error.hint(format!("it knows {}", listed(known))),
            });
        };
        if *kind != FlagKind::List && self.flags.iter().any(|other| other.name == name) {
            return fail(SyntaxErrorKind::DuplicateFlag(flag));
        }
        let missing = match kind {
            FlagKind::Switch => value == Some(""),
            FlagKind::Text | FlagKind::List => value.is_none(),
        };
        if missing {
            return fail(SyntaxErrorKind::FlagWithoutValue(flag));
        }
        let start = (equals + 1).min(raw.text().len());
        let value_span = raw.at(start..raw.text().len()).span();
        if *kind == FlagKind::Switch
            && let Some(value) = value
            && !value.eq_ignore_ascii_case("true")
            && !value.eq_ignore_ascii_case("false")
        {
            let value = value.to_owned();
            let kind = SyntaxErrorKind::FlagNotBoolean { flag, value };
            return Err(SyntaxError::new(kind, value_span));
        }
        let value = value.map(|value| Spanned::new(value.to_owned(), value_span));
        self.flags.push(Flag { name: name.to_owned(), value, span: raw.span() });
        Ok(())
    }

    /// Returns the value of a flag that takes one.
    pub(super) fn text(&self, name: &str) -> Option<Spanned<String>> {
        self.list(name).into_iter().next()
    }

    /// Returns all values of a flag, in order.
    pub(super) fn list(&self, name: &str) -> Vec<Spanned<String>> {
        let of_name = self.flags.iter().filter(|flag| flag.name == name);
        of_name.filter_map(|flag| flag.value.clone()).collect()
    }

    /// Returns what a switch was set to, if it was.
    pub(super) fn switch(&self, name: &str) -> Option<Spanned<bool>> {
        let flag = self.flags.iter().find(|flag| flag.name == name)?;
        let value = flag.value.as_ref();
        let on = value.is_none_or(|value| value.value.eq_ignore_ascii_case("true"));
        Some(Spanned::new(on, flag.span))
    }
}

fn listed(known: Known) -> String {
    let names: Vec<String> = known.iter().map(|(name, _)| format!("`--{name}`")).collect();
    names.join(", ")
}

/// Reads one word with its quotes and escapes resolved; returns it and its length as written.
fn unquoted_word(from: Fragment<'_>, escape: char) -> Result<(String, usize), SyntaxError> {
    let mut word = String::new();
    let mut quote: Option<(char, usize)> = None;
    let mut chars = from.text().char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return Ok((word, at)),
            (None, '\'' | '"') => quote = Some((c, at)),
            (Some((open, _)), c) if c == open => quote = None,
            // An escape at the end disappears.
            (_, c) if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => word.push(c),
        }
    }
    match quote {
        Some((open, at)) => {
            let kind = SyntaxErrorKind::UnbalancedQuote(open);
            Err(SyntaxError::new(kind, from.at(at..at + 1).span()))
        }
        None => Ok((word, from.text().len())),
    }
}
