//! Physical lines become statements: continuations joined, comments taken out.
//!
//! A statement's text is made of pieces of the source, and remembers which, so that every word that
//! is later found in it can be shown where it was written.

use std::ops::Range;

use super::error::{SyntaxError, SyntaxErrorKind};
use super::span::{Span, Spanned};

/// Bytes that one physical line may hold.
pub(super) const LINE_BYTES_MAX: usize = 65_535;

/// Part of a statement's text that stands in the source without interruption.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where it begins in the statement's text.
    joined: usize,
    /// Where it begins in the source.
    source: usize,
}

/// One instruction's text, joined, with the way back to the source.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) text: String,
    pieces: Vec<Piece>,
    /// Comment lines directly above, without `#`.
    pub(super) comments: Vec<String>,
    /// The first empty line inside it, if any.
    pub(super) empty_line: Option<Span>,
}

impl Statement {
    fn push(&mut self, text: &str, source: usize) {
        if !text.is_empty() {
            self.pieces.push(Piece { joined: self.text.len(), source });
            self.text.push_str(text);
        }
    }

    fn source_of(&self, joined: usize) -> usize {
        let at = self.pieces.partition_point(|piece| piece.joined <= joined);
        self.pieces.get(at.saturating_sub(1)).map_or(0, |p| p.source + (joined - p.joined))
    }

    /// Returns where a range of the text stands in the source.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_of(range.start);
        if range.is_empty() {
            return Span::new(start, start);
        }
        // The end belongs to the piece of the last byte, not to one that begins there.
        Span::new(start, self.source_of(range.end - 1) + 1)
    }

    /// Returns the whole text without surrounding blanks.
    pub(super) fn fragment(&self) -> Fragment<'_> {
        Fragment { statement: self, start: 0, end: self.text.len() }.trimmed()
    }
}

/// A part of a statement's text that knows where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment<'a> {
    statement: &'a Statement,
    start: usize,
    end: usize,
}

impl<'a> Fragment<'a> {
    pub(super) fn text(&self) -> &'a str {
        &self.statement.text[self.start..self.end]
    }

    pub(super) fn span(&self) -> Span {
        self.statement.span(self.start..self.end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns the part at a range that is relative to this fragment.
    pub(super) fn at(&self, range: Range<usize>) -> Self {
        Self {
            statement: self.statement,
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    pub(super) fn trimmed(&self) -> Self {
        let text = self.text();
        let start = text.len() - text.trim_start().len();
        let end = start + text.trim().len();
        self.at(start..end)
    }

    /// Splits before the first blank: the first word, and what follows the blanks.
    pub(super) fn split_word(&self) -> (Self, Self) {
        let text = self.text();
        let end = text.find(is_blank).unwrap_or(text.len());
        let next = text[end..].find(|c| !is_blank(c)).map_or(text.len(), |at| end + at);
        (self.at(0..end), self.at(next..text.len()))
    }

    /// Splits at blanks; quotes mean nothing.
    pub(super) fn words(&self) -> Vec<Self> {
        let mut words = Vec::new();
        let mut rest = self.trimmed();
        while !rest.is_empty() {
            let (word, next) = rest.split_word();
            words.push(word);
            rest = next;
        }
        words
    }

    pub(super) fn spanned(&self) -> Spanned<String> {
        Spanned::new(self.text().to_owned(), self.span())
    }
}

/// The blanks that separate words: not every Unicode space is one.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// A physical line: its place, without the line ending.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    start: usize,
}

/// Reads statements and heredoc bodies, one after the other.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    source: &'a str,
    at: usize,
    escape: char,
    /// Comments that begin before this offset are directives.
    directives_end: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str, escape: char, directives_end: usize) -> Self {
        let at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { source, at, escape, directives_end }
    }

    /// Returns the offset of what was not read yet.
    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    fn line(&mut self) -> Result<Option<Line<'a>>, SyntaxError> {
        let rest = &self.source[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let start = self.at;
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        self.at += length;
        let text = rest[..length].trim_end_matches(['\r', '\n']);
        if text.len() > LINE_BYTES_MAX {
            let kind = SyntaxErrorKind::LineTooLong;
            return Err(SyntaxError::new(kind, Span::new(start, start + text.len())));
        }
        Ok(Some(Line { text, start }))
    }

    /// Returns the next statement, or nothing at the end.
    pub(super) fn statement(&mut self) -> Result<Option<Statement>, SyntaxError> {
        let mut comments = Vec::new();
        while let Some(line) = self.line()? {
            let text = line.text.trim_start();
            let start = line.start + (line.text.len() - text.len());
            if let Some(comment) = text.strip_prefix('#') {
                if line.start >= self.directives_end {
                    collect_comment(comment, &mut comments);
                }
                continue;
            }
            if text.is_empty() {
                continue;
            }
            let mut statement = Statement {
                text: String::new(),
                pieces: Vec::new(),
                comments: std::mem::take(&mut comments),
                empty_line: None,
            };
            self.join(Line { text, start }, &mut statement)?;
            if !statement.text.trim().is_empty() {
                return Ok(Some(statement));
            }
        }
        Ok(None)
    }

    /// Adds a line and all that continue it. A comment between two of them does not end the
    /// statement, nor does an empty line, of which BuildKit warns.
    fn join(&mut self, first: Line<'a>, statement: &mut Statement) -> Result<(), SyntaxError> {
        let (text, mut continued) = self.split_continuation(first.text);
        statement.push(text, first.start);
        while continued {
            let Some(line) = self.line()? else { break };
            if line.text.trim_start().starts_with('#') {
                continue;
            }
            if line.text.trim_start().is_empty() {
                statement.empty_line.get_or_insert(Span::new(line.start, line.start));
                continue;
            }
            let (text, more) = self.split_continuation(line.text);
            statement.push(text, line.start);
            continued = more;
        }
        Ok(())
    }

    /// Takes the escape off the end of a line. Blanks may follow it; two of them are no
    /// continuation.
    fn split_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(text) if !text.ends_with(self.escape) => (text, true),
            _ => (line, false),
        }
    }

    /// Reads a heredoc's body up to its terminator; nothing if the text ends before.
    ///
    /// Returns the body, with its line endings, and its place.
    pub(super) fn heredoc_body(
        &mut self,
        terminator: &str,
        strip_tabs: bool,
    ) -> Result<Option<Spanned<String>>, SyntaxError> {
        let start = self.at;
        while let Some(line) = self.line()? {
            let stripped = if strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
            if stripped == terminator {
                let span = Span::new(start, line.start);
                return Ok(Some(Spanned::new(self.source[span.range()].to_owned(), span)));
            }
        }
        Ok(None)
    }
}

/// An empty comment separates: what stands above it belongs to nothing.
fn collect_comment(comment: &str, comments: &mut Vec<String>) {
    let comment = comment.trim();
    if comment.is_empty() {
        comments.clear();
    } else {
        comments.push(comment.to_owned());
    }
}
