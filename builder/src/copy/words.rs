//! The words of a COPY: paths and wildcards inside a tree.

use super::origin::{ContextTree, Origin};
use super::{CopyError, Source};
use crate::contents::resolve::{Led, Lies, resolve};
use crate::context::glob::{Pattern, has_wildcards};
use crate::layer::EntryPath;

/// One thing to copy, links at its end followed.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is, without links.
    pub(super) path: EntryPath,
    /// The name it was found under: where it goes in a directory.
    pub(super) name: Vec<u8>,
}

/// Finds what one word of an instruction means.
///
/// `..` stops at the root and a leading `/` is the root. A wildcard that matches nothing is fine,
/// a path that is not there is an error.
pub(super) fn find(
    tree: &dyn Origin,
    source: &Source<'_>,
    word: &str,
) -> Result<Vec<Found>, CopyError> {
    let parts = clean(word);
    if !word.contains(['*', '?', '[', '\\']) {
        let path = parts.join("/");
        let name = parts.last().map_or(&b""[..], |name| name.as_bytes());
        return match seen(tree, path.as_bytes(), &path)? {
            Some((path, _)) => Ok(vec![Found { path, name: name.to_vec() }]),
            None => Err(missing(source, word, &path)),
        };
    }
    let mut matching = Matching { tree, word, found: Vec::new() };
    matching.below(&EntryPath::root(), &EntryPath::root(), &parts, false)?;
    Ok(matching.found)
}

/// Splits a path into its names; `.` means nothing, and `..` goes up but not out.
fn clean(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// Follows a path; `None` where there is nothing, or nothing to be seen.
fn seen(
    tree: &dyn Origin,
    path: &[u8],
    asked: &str,
) -> Result<Option<(EntryPath, bool)>, CopyError> {
    match resolve(tree, path)? {
        Led::To(path, lies) => {
            let is_directory = lies == Lies::Directory;
            Ok(tree.is_visible(&path, is_directory)?.then_some((path, is_directory)))
        }
        Led::Nowhere | Led::Blocked => Ok(None),
        Led::Astray => Err(CopyError::Io {
            doing: "follow the links of",
            path: asked.to_owned(),
            source: rustix::io::Errno::LOOP.into(),
        }),
    }
}

fn missing(source: &Source<'_>, word: &str, path: &str) -> CopyError {
    let ignored = match source {
        Source::Context { directory, .. } => {
            let all = ContextTree { directory, sees_all: true };
            matches!(seen(&all, path.as_bytes(), path), Ok(Some(_)))
        }
        _ => false,
    };
    CopyError::Missing { path: word.to_owned(), tree: source.name().to_owned(), ignored }
}

/// Finds what a pattern matches, name by name.
struct Matching<'a> {
    tree: &'a dyn Origin,
    word: &'a str,
    found: Vec<Found>,
}

impl Matching<'_> {
    /// Looks below a directory, which was reached by a path and really lies at another. Behind a
    /// wildcard (`is_behind`) no link to a directory is entered.
    fn below(
        &mut self,
        path: &EntryPath,
        real: &EntryPath,
        parts: &[&str],
        is_behind: bool,
    ) -> Result<(), CopyError> {
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        let pattern = Pattern::parse(first)
            .map_err(|_| CopyError::Pattern { pattern: self.word.to_owned() })?;
        let is_behind = is_behind || has_wildcards(first);
        for name in self.tree.names(real)? {
            if !pattern.matches(&String::from_utf8_lossy(&name)) {
                continue;
            }
            let below = path.join(&name);
            let there = seen(self.tree, below.as_bytes(), &below.to_string())?;
            let Some((led_to, is_directory)) = there else { continue };
            let is_link = led_to != real.join(&name);
            if rest.is_empty() {
                self.found.push(Found { path: led_to, name });
            } else if is_directory && !(is_behind && is_link) {
                self.below(&below, &led_to, rest, is_behind)?;
            }
        }
        Ok(())
    }
}
