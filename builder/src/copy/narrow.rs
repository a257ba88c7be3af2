//! What `--parents` and `--exclude` make of a tree.
//!
//! > "The `--parents` flag preserves parent directories for `src` entries."
//!
//! A source with `--parents` is the directory before its first `/./` (the root, without one), and a
//! pattern for what is below that: as in an ignore file, `**` is any number of directories and what
//! matches a directory matches all in it. Links on the way are not followed. `--exclude` has the
//! patterns of an ignore file, for paths below the source: below the directory before `/./`, below a
//! directory that is copied, or the name of a file.

use std::collections::BTreeMap;

use super::origin::{Load, Note, Origin};
use super::{CopyError, Source};
use crate::contents::growing::Node;
use crate::contents::resolve::Lies;
use crate::context::glob::{clean, has_wildcards};
use crate::context::ignore::{Matched, Patterns};
use crate::layer::EntryPath;

/// A source of `--parents`, in its two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pivoted {
    /// What stays behind; the root if there is no `/./`.
    pub(super) base: String,
    /// What is looked for below that; empty for all of it.
    pub(super) pattern: String,
    /// Neither has wildcards: something must be there.
    pub(super) is_required: bool,
}

impl Pivoted {
    /// Splits a source.
    pub(super) fn parse(word: &str) -> Pivoted {
        let (base, pattern) = word.split_once("/./").unwrap_or(("/", word));
        let is_required = !has_wildcards(base) && !has_wildcards(pattern);
        let pattern = clean(&format!("/{pattern}"));
        let pattern = pattern.trim_start_matches('/').to_owned();
        Pivoted { base: base.to_owned(), pattern, is_required }
    }

    /// Reads what is below a base; `None` where nothing matches.
    pub(super) fn load(
        &self,
        tree: &dyn Origin,
        base: &EntryPath,
        load: &mut Load,
    ) -> Result<Option<Node<Note>>, CopyError> {
        if self.pattern.is_empty() {
            return tree.load(base, load);
        }
        let wrong = || CopyError::Pattern { pattern: self.pattern.clone() };
        let patterns = Patterns::from_list([self.pattern.as_str()]).map_err(|_| wrong())?;
        // Only what is below the part without wildcards has to be read.
        let fixed = self.pattern.split('/').take_while(|part| !is_pattern(part));
        let names: Vec<&str> = fixed.collect();
        let mut ways = Vec::with_capacity(names.len());
        let mut path = base.clone();
        for name in &names {
            if tree.look(&path)? != Lies::Directory {
                return Ok(None);
            }
            ways.push(path.clone());
            path = path.join(name.as_bytes());
        }
        let found = match path.is_root() {
            true => tree.load(&path, load)?,
            false if tree.look(&path)? == Lies::Nothing => None,
            false => tree.load(&path, load)?,
        };
        let Some(mut node) = found else { return Ok(None) };
        let is_whole = names.join("/") == self.pattern;
        if !is_whole && !include(&mut node, &names.join("/"), &patterns) {
            return Ok(None);
        }
        for (way, name) in ways.iter().zip(&names).rev() {
            let Some(mut above) = tree.directory(way, load)? else { return Ok(None) };
            above.children = BTreeMap::from([(name.as_bytes().into(), node)]);
            node = above;
        }
        Ok(Some(node))
    }
}

fn is_pattern(part: &str) -> bool {
    part.contains(['*', '?', '[', '\\', '!'])
}

/// Returns the error where something had to be there.
pub(super) fn missing(source: &Source<'_>, word: &str) -> CopyError {
    CopyError::Missing { path: word.to_owned(), tree: source.name().to_owned(), ignored: false }
}

/// Keeps what matches, and the directories above it; says whether anything is left.
fn include(node: &mut Node<Note>, path: &str, patterns: &Patterns) -> bool {
    if !path.is_empty() && patterns.matches(path, node.is_directory()) {
        return true;
    }
    node.children.retain(|name, child| {
        include(child, &below(path, &String::from_utf8_lossy(name)), patterns)
    });
    !node.children.is_empty()
}

/// Drops what matches from a directory that is copied. A directory that matches stays if something in
/// it does, by a pattern with `!`.
pub(super) fn exclude(root: &mut Node<Note>, patterns: &Patterns) {
    if !patterns.is_empty() {
        exclude_below(root, "", &patterns.root(), patterns);
    }
}

fn exclude_below(node: &mut Node<Note>, path: &str, state: &Matched, patterns: &Patterns) {
    node.children.retain(|name, child| {
        let path = below(path, &String::from_utf8_lossy(name));
        let is_excluded = patterns.matches_in(&path, state);
        if !child.is_directory() {
            return !is_excluded;
        }
        let inside = patterns.enter(&path, state);
        if is_excluded && !patterns.may_descend_in(&path, &inside) {
            return false;
        }
        exclude_below(child, &path, &inside, patterns);
        !is_excluded || !child.children.is_empty()
    });
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pivot_counts() {
        let table = [
            ("/test/a/b/./c/d", "/test/a/b", "c/d", true),
            ("/test/a/b/c/d/.", "/", "test/a/b/c/d", true),
            ("./test/a/b/c/d", "/", "test/a/b/c/d", true),
            ("/test/a/./b/./c", "/test/a", "b/c", true),
            ("/test/a/./*/c", "/test/a", "*/c", false),
            ("/test/a/b*/./c/**/e", "/test/a/b*", "c/**/e", false),
            ("a/./../../b", "a", "b", true),
            ("a/./", "a", "", true),
            ("**/*.txt", "/", "**/*.txt", false),
        ];
        for (word, base, pattern, is_required) in table {
            let (base, pattern) = (base.to_owned(), pattern.to_owned());
            assert_eq!(Pivoted::parse(word), Pivoted { base, pattern, is_required }, "{word}");
        }
    }
}
