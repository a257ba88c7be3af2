//! One pass over one word: the state machine behind [`Expander`](super::Expander).

use std::collections::BTreeSet;

use super::pattern::Pattern;
use super::{ExpansionError, Options, Variables};

/// Levels of `${a:-${b:-...}}` that are followed.
pub(super) const DEPTH_MAX: usize = 100;
/// Bytes by which an expansion may exceed the text that it expands. One environment string of a
/// process may hold 128 KiB, so no honest word comes near.
pub(super) const GROWTH_MAX: usize = 4 << 20;

/// The words of a result that is split at blanks.
#[derive(Debug, Default)]
pub(super) struct Words {
    list: Vec<String>,
    current: String,
}

impl Words {
    /// Adds text in which blanks separate words.
    fn push_splitting(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.end_word();
            } else {
                self.current.push(c);
            }
        }
    }

    /// Adds text that was quoted or escaped.
    fn push_whole(&mut self, text: &str) {
        self.current.push_str(text);
    }

    fn end_word(&mut self) {
        if !self.current.is_empty() {
            self.list.push(std::mem::take(&mut self.current));
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        self.end_word();
        self.list
    }
}

/// A walk in progress.
pub(super) struct Walk<'a> {
    rest: &'a str,
    vars: &'a dyn Variables,
    options: Options,
    depth: usize,
    /// Bytes that may still be produced, at all levels together.
    budget: usize,
    pub(super) used: BTreeSet<String>,
    pub(super) unset: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str, vars: &'a dyn Variables, options: Options) -> Self {
        Self {
            rest: text,
            vars,
            options,
            depth: 0,
            // Nested words are produced once per level.
            budget: text.len() * 2 + GROWTH_MAX,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }

    /// Walks to the end of the text.
    pub(super) fn whole(&mut self, words: Option<&mut Words>) -> Result<String, ExpansionError> {
        self.until(None, self.options.keep_escapes, words)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// Walks to `stop`, which is consumed, or to the end of the text if there is none.
    fn until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
        words: Option<&mut Words>,
    ) -> Result<String, ExpansionError> {
        let outer = std::mem::replace(&mut self.options.keep_escapes, keep_escapes);
        let result = self.until_inner(stop, words);
        self.options.keep_escapes = outer;
        result
    }

    fn until_inner(
        &mut self,
        stop: Option<char>,
        mut words: Option<&mut Words>,
    ) -> Result<String, ExpansionError> {
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok(out);
            }
            let before = out.len();
            let splits = self.step(c, &mut out)?;
            let added = &out[before..];
            self.budget = self.budget.checked_sub(added.len()).ok_or(ExpansionError::TooLarge)?;
            if let Some(words) = words.as_deref_mut() {
                if splits { words.push_splitting(added) } else { words.push_whole(added) }
            }
        }
        // The caller knows which substitution it was that did not end.
        if stop.is_some() { Err(ExpansionError::MissingBrace) } else { Ok(out) }
    }

    /// Handles what begins with `c`; tells whether blanks in what it added separate words.
    fn step(&mut self, c: char, out: &mut String) -> Result<bool, ExpansionError> {
        match c {
            '$' => {
                out.push_str(&self.dollar()?);
                Ok(true)
            }
            '\'' if !self.options.ignore_quotes => {
                self.single_quoted(out)?;
                Ok(false)
            }
            '"' if !self.options.ignore_quotes => {
                self.double_quoted(out)?;
                Ok(false)
            }
            '<' => {
                self.less_than(out);
                Ok(false)
            }
            c if c == self.options.escape => {
                self.next();
                if self.options.keep_escapes {
                    out.push(c);
                }
                // An escape at the very end means nothing and disappears.
                out.extend(self.next());
                Ok(false)
            }
            c => {
                self.next();
                out.push(c);
                Ok(true)
            }
        }
    }

    /// `<<` keeps the blanks behind it, so that a heredoc's word is found as one.
    fn less_than(&mut self, out: &mut String) {
        self.next();
        out.push('<');
        if self.next_if('<') {
            out.push('<');
            while let Some(blank @ (' ' | '\t' | '\r')) = self.peek() {
                self.next();
                out.push(blank);
            }
        }
    }

    /// "Enclosing characters in single-quotes shall preserve the literal value of each character"
    /// (POSIX, 2.2.2).
    fn single_quoted(&mut self, out: &mut String) -> Result<(), ExpansionError> {
        self.next();
        let end = self.rest.find('\'').ok_or(ExpansionError::UnbalancedQuote('\''))?;
        let (inner, rest) = self.rest.split_at(end);
        self.push_quote('\'', out);
        out.push_str(inner);
        self.push_quote('\'', out);
        self.rest = &rest[1..];
        Ok(())
    }

    /// In double quotes an escape counts only before `"`, `$` and itself.
    fn double_quoted(&mut self, out: &mut String) -> Result<(), ExpansionError> {
        self.next();
        self.push_quote('"', out);
        loop {
            match self.peek() {
                None => return Err(ExpansionError::UnbalancedQuote('"')),
                Some('"') => {
                    self.next();
                    self.push_quote('"', out);
                    return Ok(());
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.options.escape => self.escape_in_quotes(out),
                Some(c) => {
                    self.next();
                    out.push(c);
                }
            }
        }
    }

    fn escape_in_quotes(&mut self, out: &mut String) {
        let escape = self.options.escape;
        self.next();
        match self.peek() {
            Some(c) if c == '"' || c == '$' || c == escape => {
                if self.options.keep_escapes {
                    out.push(escape);
                }
                self.next();
                out.push(c);
            }
            Some(_) => out.push(escape),
            None => {}
        }
    }

    fn push_quote(&self, quote: char, out: &mut String) {
        if self.options.keep_quotes {
            out.push(quote);
        }
    }

    /// Expands what begins with `$`.
    fn dollar(&mut self) -> Result<String, ExpansionError> {
        self.next();
        if self.next_if('{') {
            if self.depth >= DEPTH_MAX {
                return Err(ExpansionError::TooDeep);
            }
            self.depth += 1;
            let result = self.braced();
            self.depth -= 1;
            return result;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.look_up(name) {
            None if self.options.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// Reads a name: letters, digits and `_`; digits alone (`$1`), or one special parameter.
    fn name(&mut self) -> &'a str {
        let end = match self.peek() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            Some(c) if c.is_ascii_digit() => self.run_of(|c| c.is_ascii_digit()),
            _ => self.run_of(|c| c.is_alphanumeric() || c == '_'),
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    fn run_of(&self, belongs: impl Fn(char) -> bool) -> usize {
        self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len())
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.vars.get(name);
        let names = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    /// Expands what follows `${`.
    fn braced(&mut self) -> Result<String, ExpansionError> {
        match self.peek() {
            None => return Err(ExpansionError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpansionError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpansionError::MissingBrace),
            Some('}') => match self.look_up(name) {
                None if self.options.keep_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => match self.next() {
                None => Err(ExpansionError::MissingBrace),
                Some(operator @ ('-' | '+' | '?')) => self.conditional(name, operator, true),
                Some(other) => Err(unsupported(name, format!(":{other}"))),
            },
            Some(operator @ ('-' | '+' | '?')) => self.conditional(name, operator, false),
            Some(side @ ('#' | '%')) => self.stripped(name, side),
            Some('/') => self.replaced(name),
            Some(other) => Err(unsupported(name, other.to_string())),
        }
    }

    /// `-`, `+` and `?`; `colon` makes an empty value count as unset.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        colon: bool,
    ) -> Result<String, ExpansionError> {
        let word = self.until(Some('}'), false, None)?;
        let value = self.look_up(name);
        if value.is_none() && self.options.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let unset = value.is_none();
        let value = value.filter(|value| !(colon && value.is_empty()));
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let default = if unset { "unset" } else { "empty" };
                let default = format!("is not allowed to be {default}");
                let message = if word.is_empty() { default } else { word };
                Err(ExpansionError::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `#`, `##`, `%` and `%%`.
    fn stripped(&mut self, name: &str, side: char) -> Result<String, ExpansionError> {
        let word = self.until(Some('}'), true, None)?;
        let Some(value) = self.look_up(name) else {
            let kept = format!("${{{name}{side}{word}}}");
            return Ok(if self.options.keep_unset { kept } else { String::new() });
        };
        let longest = word.strip_prefix(side);
        let pattern = Pattern::parse(longest.unwrap_or(&word))?;
        if side == '#' {
            pattern.strip_prefix(&value, longest.is_some())
        } else {
            pattern.strip_suffix(&value, longest.is_some())
        }
    }

    /// `/p/r` and `//p/r`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpansionError> {
        let all = self.next_if('/');
        let pattern = self.until(Some('/'), true, None).map_err(|error| match error {
            ExpansionError::MissingBrace => ExpansionError::MissingSlash(name.to_owned()),
            other => other,
        })?;
        let replacement = self.until(Some('}'), true, None)?;
        let Some(value) = self.look_up(name) else {
            let kept = format!("${{{name}/{pattern}/{replacement}}}");
            return Ok(if self.options.keep_unset { kept } else { String::new() });
        };
        Pattern::parse(&pattern)?.replace(&value, &replacement, all)
    }
}

fn unsupported(name: &str, modifier: String) -> ExpansionError {
    ExpansionError::UnsupportedModifier { name: name.to_owned(), modifier }
}
