//! `.dockerignore`: which files of a context a build does not see.
//!
//! The last line that matches a path, or one of its parents, decides; a line that begins with `!`
//! lets in again. So a file can be let in though its directory is ignored, and a walker must enter
//! an ignored directory if, and only if, a `!` line may match below it: [`Patterns::may_descend`].
//!
//! A walker that visits many files carries a [`Matched`] per directory: then each line is compared
//! with a path's own name only, never again with those of its parents.

use super::glob::{Pattern, clean};

/// An ignore file, compiled.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    pattern: Pattern,
    /// The cleaned pattern.
    text: String,
    /// `!`: what matches is let in again.
    exception: bool,
    /// The parts before the first `**`, and whether there is one.
    reach: Reach,
}

/// What is needed to tell whether a line can match below a directory.
#[derive(Debug, Clone)]
struct Reach {
    parts: Vec<Pattern>,
    unbounded: bool,
}

/// Why an ignore file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct IgnoreError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub kind: IgnoreErrorKind,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreErrorKind {
    /// A `!` with nothing behind it.
    #[error("`!` excludes nothing")]
    Empty,
    /// A class or an escape that does not end.
    #[error("invalid pattern `{0}`")]
    Pattern(String),
}

/// Which lines match a directory: what its entries inherit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matched {
    lines: Vec<bool>,
    ignored: bool,
}

impl Matched {
    /// Tells whether the directory itself is ignored.
    #[must_use]
    pub const fn is_ignored(&self) -> bool {
        self.ignored
    }
}

impl Patterns {
    /// Reads an ignore file.
    ///
    /// # Errors
    ///
    /// On a lone `!` and on malformed patterns, with the line.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut lines = Vec::new();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            // Only a `#` in the first column begins a comment.
            if line.starts_with('#') {
                continue;
            }
            let line = Line::parse(line).map_err(|kind| IgnoreError { line: at + 1, kind })?;
            lines.extend(line);
        }
        Ok(Self { lines })
    }

    /// Compiles the values of `--exclude`, which are lines without comments.
    ///
    /// # Errors
    ///
    /// As for [`Patterns::parse`]; the line is the position in the list, from 1.
    pub fn from_list<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut lines = Vec::new();
        for (at, text) in list.into_iter().enumerate() {
            let line = Line::parse(text).map_err(|kind| IgnoreError { line: at + 1, kind })?;
            lines.extend(line);
        }
        Ok(Self { lines })
    }

    /// Tells whether nothing is ignored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Tells whether any line begins with `!`.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.lines.iter().any(|line| line.exception)
    }

    /// Tells whether one line alone ignores all that the context holds.
    #[must_use]
    pub fn hides_all(&self) -> bool {
        let all = |line: &Line| matches!(line.text.as_str(), "*" | "**" | "**/*");
        self.lines.iter().any(|line| !line.exception && all(line))
    }

    /// Tells whether a path is ignored.
    ///
    /// The path is relative to the context, with `/` between its parts; the context itself (empty
    /// or `.`) never is. Directories and files are matched alike.
    #[must_use]
    pub fn matches(&self, path: &str, is_dir: bool) -> bool {
        // The format does not tell them apart; the argument keeps callers from guessing.
        let _ = is_dir;
        let mut state = self.root();
        for (at, _) in path.match_indices('/') {
            state = self.enter(&path[..at], &state);
        }
        self.matches_in(path, &state)
    }

    /// Returns the state of the context itself.
    #[must_use]
    pub fn root(&self) -> Matched {
        Matched { lines: vec![false; self.lines.len()], ignored: false }
    }

    /// Returns the state of a directory, from that of its parent.
    #[must_use]
    pub fn enter(&self, dir: &str, parent: &Matched) -> Matched {
        let mut state = Matched { lines: Vec::with_capacity(self.lines.len()), ignored: false };
        for (at, line) in self.lines.iter().enumerate() {
            let matched = line.decides(dir, parent.lines.get(at), state.ignored);
            if matched {
                state.ignored = !line.exception;
            }
            state.lines.push(matched);
        }
        state
    }

    /// Tells whether a path is ignored, from the state of its directory; allocates nothing.
    #[must_use]
    pub fn matches_in(&self, path: &str, parent: &Matched) -> bool {
        if path.is_empty() || path == "." {
            return false;
        }
        let mut ignored = false;
        for (at, line) in self.lines.iter().enumerate() {
            if line.decides(path, parent.lines.get(at), ignored) {
                ignored = !line.exception;
            }
        }
        ignored
    }

    /// Tells whether a walker must enter a directory: it is not ignored, or a `!` line may match
    /// below it.
    #[must_use]
    pub fn may_descend(&self, dir: &str) -> bool {
        let mut state = self.root();
        for (at, _) in dir.match_indices('/') {
            state = self.enter(&dir[..at], &state);
        }
        self.may_descend_in(dir, &self.enter(dir, &state))
    }

    /// The same, from the directory's own state.
    #[must_use]
    pub fn may_descend_in(&self, dir: &str, state: &Matched) -> bool {
        if !state.ignored || dir.is_empty() || dir == "." {
            return true;
        }
        // Exceptions above the last line that ignores the directory cannot win against it.
        let ignores = |(line, matched): (&Line, &bool)| *matched && !line.exception;
        let last = self.lines.iter().zip(&state.lines).rposition(ignores).unwrap_or(0);
        self.lines[last..].iter().any(|line| line.exception && line.reach.below(dir))
    }
}

impl Line {
    /// Reads a line; nothing if it is empty.
    fn parse(line: &str) -> Result<Option<Self>, IgnoreErrorKind> {
        let text = line.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let (exception, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return Err(IgnoreErrorKind::Empty);
        }
        let text = clean(text);
        let text = if text.len() > 1 { text.trim_start_matches('/') } else { &text };
        let error = || IgnoreErrorKind::Pattern(text.to_owned());
        let pattern = Pattern::parse_double_star(text).map_err(|_| error())?;
        Ok(Some(Self { pattern, text: text.to_owned(), exception, reach: Reach::of(text) }))
    }

    /// Tells whether this line matches, of which only lines that could change the outcome are asked.
    fn decides(&self, path: &str, parent: Option<&bool>, ignored: bool) -> bool {
        parent.copied().unwrap_or(false)
            || (self.exception == ignored && self.pattern.matches(path))
    }
}

impl Reach {
    fn of(text: &str) -> Self {
        // A class may match `/` and hold one, so its parts cannot be told apart.
        let unknown = Self { parts: Vec::new(), unbounded: true };
        if text.contains('[') {
            return unknown;
        }
        let bounded = text.split('/').take_while(|part| !part.contains("**"));
        let parts = bounded.map(Pattern::parse).collect::<Result<Vec<_>, _>>();
        parts.map_or(unknown, |parts| Self { parts, unbounded: text.contains("**") })
    }

    /// Tells whether something strictly below a directory can match.
    fn below(&self, dir: &str) -> bool {
        let mut dirs = dir.split('/');
        for part in &self.parts {
            match dirs.next() {
                Some(name) if part.matches(name) => {}
                Some(_) => return false,
                None => return true,
            }
        }
        self.unbounded
    }
}

#[cfg(test)]
mod tests;
