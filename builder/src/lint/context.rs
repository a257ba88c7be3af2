//! How large the build context is, or a directory of it.

use std::fmt;
use std::path::Path;

use crate::context::ignore::{Matched, Patterns};

/// How many entries are looked at: what is larger is larger than this.
const ENTRIES_MAX: u64 = 50_000;
/// How deep directories are followed.
const DEPTH_MAX: usize = 128;

/// A number of files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There are more: counting was ended.
    pub is_more: bool,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.is_more { "more than " } else { "" };
        let plural = if self.files == 1 { "" } else { "s" };
        write!(f, "{more}{} file{plural}", self.files)
    }
}

/// Measures what a COPY of `directory` (empty for all of the context) would take. What cannot be read
/// is not counted: the build will say so.
pub(super) fn measure(root: &Path, directory: &str, ignored: &Patterns) -> Amount {
    let mut state = ignored.root();
    if !directory.is_empty() {
        state = ignored.enter(directory, &state);
    }
    let mut count = Count { root, ignored, seen: 0, amount: Amount::default() };
    count.directory(directory, &state, 0);
    count.amount
}

struct Count<'a> {
    root: &'a Path,
    ignored: &'a Patterns,
    seen: u64,
    amount: Amount,
}

impl Count<'_> {
    fn directory(&mut self, below: &str, state: &Matched, depth: usize) {
        let Ok(entries) = fs_err::read_dir(self.root.join(below)) else { return };
        for entry in entries.flatten() {
            self.seen += 1;
            if self.seen > ENTRIES_MAX {
                self.amount.is_more = true;
                return;
            }
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                let inner = self.ignored.enter(&path, state);
                if depth < DEPTH_MAX && self.ignored.may_descend_in(&path, &inner) {
                    self.directory(&path, &inner, depth + 1);
                }
            } else if !self.ignored.matches_in(&path, state) {
                self.amount.files += 1;
                self.amount.bytes += metadata.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (path, bytes) in [("a", 5), (".git/objects/x", 100), (".git/HEAD", 1), ("b/c", 7)] {
            fs_err::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs_err::write(root.join(path), vec![0; bytes]).unwrap();
        }
        let of = |directory: &str, patterns: &str| {
            let amount = measure(root, directory, &Patterns::parse(patterns).unwrap());
            (amount.files, amount.bytes)
        };
        assert_eq!(of("", ""), (4, 113));
        assert_eq!(of("", ".git"), (2, 12));
        assert_eq!(of(".git", ""), (2, 101));
        assert_eq!(of("", ".git\n!.git/HEAD"), (3, 13));
        assert_eq!(of("missing", ""), (0, 0));
    }
}
