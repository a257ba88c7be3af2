//! The text of a Dockerfile, and the translation of byte offsets into lines and columns.

use super::span::Span;

/// A place as editors count it: both numbers begin at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// The text of a Dockerfile with an index of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    text: String,
    /// Offsets of the first byte of each line; never empty, the first is 0.
    line_starts: Vec<usize>,
}

impl Source {
    /// Keeps a text and indexes its lines.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self { text, line_starts }
    }

    /// Returns the whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text of a span, or nothing for one that does not fit this text.
    #[must_use]
    pub fn slice(&self, span: Span) -> Option<&str> {
        self.text.get(span.range())
    }

    /// Returns the number of the line (from 1) that holds a byte offset.
    ///
    /// An offset past the end belongs to the last line.
    #[must_use]
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Returns line and column of a byte offset; offsets past the end are brought back to it.
    #[must_use]
    pub fn location(&self, offset: usize) -> Location {
        let offset = floor_char_boundary(&self.text, offset);
        let line = self.line_of(offset);
        let start = self.line_starts[line - 1];
        Location { line, column: self.text[start..offset].chars().count() + 1 }
    }

    /// Returns the span of a line (from 1) without its line ending; lines that do not exist
    /// are empty spans at the end.
    #[must_use]
    pub fn line_span(&self, line: usize) -> Span {
        let end_of_text = self.text.len();
        let start = line.checked_sub(1).and_then(|at| self.line_starts.get(at));
        let start = start.copied().unwrap_or(end_of_text);
        let end = self.line_starts.get(line).copied().unwrap_or(end_of_text);
        let content = self.text[start..end].trim_end_matches(['\n', '\r']);
        Span::new(start, start + content.len())
    }

    /// Returns the text of a line (from 1) without its line ending.
    #[must_use]
    pub fn line(&self, line: usize) -> &str {
        &self.text[self.line_span(line).range()]
    }
}

/// Returns the nearest character boundary that is not behind an offset.
pub(super) fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_columns_count_characters() {
        let source = Source::new("FROM a\r\nRUN höhe x\n");
        assert_eq!(source.location(0), Location { line: 1, column: 1 });
        let x = source.text().find('x').unwrap();
        assert_eq!(source.location(x), Location { line: 2, column: 10 });
        assert_eq!(source.line(1), "FROM a");
        assert_eq!(source.line(2), "RUN höhe x");
        assert_eq!(source.line(3), "");
        assert_eq!(source.line(99), "");
        assert_eq!(source.location(9999).line, 3);
    }
}
