//! Here-documents: `<<EOF` in RUN, COPY and ADD, and the lines that belong to it.

use std::borrow::Cow;

use super::error::SyntaxErrorKind;
use super::expansion::{Expander, Options};
use super::span::Span;

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; for COPY and ADD also the file's name.
    pub name: String,
    /// The lines as they stand in the Dockerfile, each with its line ending.
    pub content: String,
    /// No part of the delimiter was quoted: variables in the body are expanded (COPY, ADD).
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines go.
    pub strip_tabs: bool,
    /// The number before `<<`.
    pub descriptor: Option<u32>,
    /// Where the lines stand, without the terminator.
    pub content_span: Span,
}

impl Heredoc {
    /// Returns the body: the content, without leading tabs if `<<-` asked for that.
    #[must_use]
    pub fn body(&self) -> Cow<'_, str> {
        if !self.strip_tabs {
            return Cow::Borrowed(&self.content);
        }
        let lines = self.content.split_inclusive('\n');
        Cow::Owned(lines.map(|line| line.trim_start_matches('\t')).collect())
    }
}

const LINE_OPTIONS: Options = Options {
    escape: '\\',
    keep_quotes: true,
    keep_escapes: true,
    ignore_quotes: false,
    keep_unset: true,
};

/// Finds the heredocs that a statement announces, in order, their bodies still empty.
///
/// A line whose quotes do not balance announces none: it is the shell's business.
pub(super) fn announced(line: &str) -> Result<Vec<Heredoc>, SyntaxErrorKind> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let Ok(words) = Expander::with_options(LINE_OPTIONS).expand_words(line, &()) else {
        return Ok(Vec::new());
    };
    words.words.iter().filter_map(|word| parse_word(word).transpose()).collect()
}

/// Reads a word as a heredoc's announcement: `[n]<<[-]DELIMITER`; nothing if it is none.
pub(super) fn parse_word(word: &str) -> Result<Option<Heredoc>, SyntaxErrorKind> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let delimiter = rest.trim_start();
    if delimiter.is_empty() || delimiter.contains('<') {
        return Ok(None);
    }
    let unquoted = delimiter_word(delimiter, false)?;
    let raw = delimiter_word(delimiter, true)?;
    let (Some(name), Some(raw)) = (unquoted, raw) else { return Ok(None) };
    Ok(Some(Heredoc {
        expand: quotes(&name) == quotes(&raw),
        name,
        content: String::new(),
        strip_tabs,
        descriptor: word[..digits].parse().ok(),
        content_span: Span::default(),
    }))
}

/// Returns the delimiter if it is one word.
fn delimiter_word(text: &str, keep_quotes: bool) -> Result<Option<String>, SyntaxErrorKind> {
    let options = Options { keep_quotes, keep_escapes: false, ..LINE_OPTIONS };
    let words = Expander::with_options(options)
        .expand_words(text, &())
        .map_err(SyntaxErrorKind::HeredocDelimiter)?
        .words;
    let single = words.len() == 1;
    Ok(words.into_iter().next().filter(|_| single))
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}
