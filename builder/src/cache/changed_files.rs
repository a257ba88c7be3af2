//! What differs between two selections of files: what a COPY selected before, and what it selects.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

use crate::contents::{Row, Table};
use crate::layer::{EntryPath, Kind};

/// How many files are named; the others are counted.
pub const FILES_MAX: usize = 10;

/// The files that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangedFiles {
    /// The first of them, sorted by path.
    pub files: Vec<ChangedFile>,
    /// How many there are in all.
    pub total: u64,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    /// Its path below what was selected; bytes that are no ASCII are escaped.
    pub path: String,
    /// What differs.
    #[serde(flatten)]
    pub change: FileChange,
}

/// What differs of a file; of several things the first one here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum FileChange {
    /// It was not selected, or not there.
    Added,
    /// It is not selected any more, or gone.
    Removed,
    /// It is another kind of file.
    Kind {
        /// As it was.
        from: &'static str,
        /// As it is.
        to: &'static str,
    },
    /// Its bytes, or where a link points to.
    Content,
    /// Its permissions, in octal.
    Mode {
        /// As they were.
        from: String,
        /// As they are.
        to: String,
    },
    /// Its owner and group.
    Owner {
        /// As they were.
        from: String,
        /// As they are.
        to: String,
    },
    /// Its extended attributes.
    Attributes,
    /// With which files it is hard-linked.
    Links,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::Removed => f.write_str("removed"),
            Self::Kind { from, to } => write!(f, "{from} -> {to}"),
            Self::Content => f.write_str("content"),
            Self::Mode { from, to } => write!(f, "mode {from} -> {to}"),
            Self::Owner { from, to } => write!(f, "owner {from} -> {to}"),
            Self::Attributes => f.write_str("extended attributes"),
            Self::Links => f.write_str("hard links"),
        }
    }
}

impl fmt::Display for ChangedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.change)
    }
}

impl ChangedFiles {
    /// Compares two selections.
    pub fn between(earlier: &Table, now: &Table) -> ChangedFiles {
        let mut found = ChangedFiles::default();
        let (mut earlier, mut now) = (earlier.rows().peekable(), now.rows().peekable());
        loop {
            let order = match (earlier.peek(), now.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            // Both walks are sorted alike.
            match order {
                Ordering::Less => found.extend(earlier.next(), |_| Some(FileChange::Removed)),
                Ordering::Greater => found.extend(now.next(), |_| Some(FileChange::Added)),
                Ordering::Equal => {
                    let before = earlier.next();
                    found.extend(now.next(), |row| change(before?.1, row));
                }
            }
        }
    }

    fn extend<'a>(
        &mut self,
        entry: Option<(EntryPath, Row<'a>)>,
        change: impl FnOnce(Row<'a>) -> Option<FileChange>,
    ) {
        let Some((path, row)) = entry else { return };
        let Some(change) = change(row) else { return };
        self.total += 1;
        if self.files.len() < FILES_MAX {
            self.files
                .push(ChangedFile { path: path.as_bytes().escape_ascii().to_string(), change });
        }
    }
}

/// Returns what differs between what lies at one path before and now. Times do not count.
fn change(earlier: Row<'_>, now: Row<'_>) -> Option<FileChange> {
    let (before, after) = (earlier.kind(), now.kind());
    if std::mem::discriminant(&before) != std::mem::discriminant(&after) {
        return Some(FileChange::Kind { from: name(&before), to: name(&after) });
    }
    if before != after || earlier.content() != now.content() || earlier.size() != now.size() {
        return Some(FileChange::Content);
    }
    if earlier.mode() != now.mode() {
        let octal = |row: Row<'_>| format!("{:04o}", row.mode());
        return Some(FileChange::Mode { from: octal(earlier), to: octal(now) });
    }
    if (earlier.uid(), earlier.gid()) != (now.uid(), now.gid()) {
        let owner = |row: Row<'_>| format!("{}:{}", row.uid(), row.gid());
        return Some(FileChange::Owner { from: owner(earlier), to: owner(now) });
    }
    if earlier.xattrs() != now.xattrs() {
        return Some(FileChange::Attributes);
    }
    (earlier.hard_link() != now.hard_link()).then_some(FileChange::Links)
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink { .. } => "symbolic link",
        Kind::HardLink { .. } => "hard link",
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "device",
        Kind::Fifo => "pipe",
        Kind::Whiteout | Kind::OpaqueWhiteout => "whiteout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{directory, file, table};
    use crate::layer::Entry;
    use crate::layer::testing::path;

    fn between(earlier: &[(Entry, &str)], now: &[(Entry, &str)]) -> Vec<String> {
        let changed = ChangedFiles::between(&table(earlier), &table(now));
        changed.files.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_what_differs_of_each_file() {
        let with = |mut entry: Entry, change: fn(&mut Entry)| {
            change(&mut entry);
            entry
        };
        let link = Entry::new(path("g"), Kind::Symlink { target: b"a".to_vec() }, 0o777);
        let earlier = [
            (file("a"), "1"),
            (file("b"), "1"),
            (file("c"), "1"),
            (directory("d"), ""),
            (file("d/x"), "1"),
            (file("e"), "1"),
            (file("f"), "1"),
            (file("g"), "1"),
        ];
        let now = [
            (file("a"), "2"),
            (with(file("b"), |entry| entry.mode = 0o755), "1"),
            (with(file("c"), |entry| entry.uid = 7), "1"),
            (directory("d"), ""),
            (file("d/y"), "1"),
            (with(file("e"), |entry| entry.mtime.seconds += 9), "1"),
            (
                with(file("f"), |entry| drop(entry.xattrs.insert(b"user.a".into(), b"1".into()))),
                "1",
            ),
            (link, ""),
        ];
        assert_eq!(
            between(&earlier, &now),
            [
                "a: content",
                "b: mode 0644 -> 0755",
                "c: owner 0:0 -> 7:0",
                "d/x: removed",
                "d/y: added",
                "f: extended attributes",
                "g: file -> symbolic link",
            ]
        );
        assert_eq!(between(&now, &now), [""; 0]);
    }

    #[test]
    fn names_the_first_and_counts_all() {
        let names: Vec<String> = (0..25).map(|number| format!("f{number:02}")).collect();
        let files: Vec<_> = names.iter().map(|name| (file(name), "1")).collect();
        let changed = ChangedFiles::between(&table(&[]), &table(&files));
        assert_eq!((changed.total, changed.files.len()), (25, FILES_MAX));
        assert_eq!(changed.files[0].path, "f00");
    }
}
