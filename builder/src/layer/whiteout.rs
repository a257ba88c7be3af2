//! Whiteouts: how a layer says that something of the layers below is gone.
//!
//! The only place that knows the names. OCI image-spec, layer.md: "A whiteout file is an empty file
//! with a special filename that signifies a path should be deleted. A whiteout filename consists of
//! the prefix `.wh.` plus the basename of the path to be deleted." and "the opaque whiteout,
//! `.wh..wh..opq`, indicates that all siblings are hidden in the lower layer".

use thiserror::Error;

use super::entry::{Entry, EntryPath, Kind, Mtime, Xattrs};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS kept its own records under such names (`.wh..wh.plnk`, `.wh..wh.aufs`); old images hold them.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// What an entry's name makes of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The entry, with its kind turned into a whiteout where the name says so.
    Entry(Entry),
    /// A record of AUFS: of no concern to anybody.
    Ignored,
}

/// Why a name with the prefix is not a whiteout.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WhiteoutError {
    /// Nothing, or `.` or `..`, after the prefix.
    #[error("it is a whiteout of no name")]
    NoName,
    /// A directory cannot be named like a whiteout.
    #[error("it lies inside a whiteout")]
    Inside,
}

/// Reports whether a component is reserved: no file of an image can be called so.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// Tells whiteouts from plain entries.
///
/// # Errors
/// Refuses names that have the prefix and mean nothing.
pub fn interpret(entry: Entry) -> Result<Meaning, WhiteoutError> {
    let Some(reserved) = entry.path.components().position(is_reserved) else {
        return Ok(Meaning::Entry(entry));
    };
    let components: Vec<_> = entry.path.components().collect();
    let (name, last) = (components[reserved], reserved + 1 == components.len());
    if name.starts_with(AUFS_PREFIX) && name != OPAQUE {
        return Ok(Meaning::Ignored);
    }
    if !last || entry.kind == Kind::Directory {
        return Err(WhiteoutError::Inside);
    }
    let parent = entry.path.parent().unwrap_or_default();
    if name == OPAQUE {
        return Ok(Meaning::Entry(bare(parent, Kind::OpaqueWhiteout)));
    }
    match &name[PREFIX.len()..] {
        b"" | b"." | b".." => Err(WhiteoutError::NoName),
        hidden => Ok(Meaning::Entry(bare(parent.join(hidden), Kind::Whiteout))),
    }
}

/// Returns the name under which an archive holds a whiteout of `path`, which is not the root.
pub(crate) fn archive_path(path: &EntryPath) -> EntryPath {
    let name = [PREFIX, path.name().unwrap_or_default()].concat();
    path.parent().unwrap_or_default().join(&name)
}

/// Returns the name under which an archive holds the opaque whiteout of `directory`.
pub(crate) fn opaque_archive_path(directory: &EntryPath) -> EntryPath {
    directory.join(OPAQUE)
}

fn bare(path: EntryPath, kind: Kind) -> Entry {
    let (mtime, xattrs) = (Mtime::default(), Xattrs::new());
    Entry { path, kind, mode: 0, uid: 0, gid: 0, mtime, size: 0, xattrs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(name: &str, kind: Kind) -> Result<Meaning, WhiteoutError> {
        interpret(Entry::new(EntryPath::parse(name.as_bytes()).unwrap(), kind, 0o644))
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        for (name, hidden, kind) in [
            (".wh.a", "a", Kind::Whiteout),
            ("d/.wh.a", "d/a", Kind::Whiteout),
            ("d/.wh..a", "d/.a", Kind::Whiteout),
            ("d/.wh....", "d/...", Kind::Whiteout),
            ("d/.wh..wh..opq", "d", Kind::OpaqueWhiteout),
            (".wh..wh..opq", "", Kind::OpaqueWhiteout),
        ] {
            let path = EntryPath::parse(hidden.as_bytes()).unwrap();
            assert_eq!(meaning(name, Kind::File), Ok(Meaning::Entry(bare(path, kind))), "{name}");
        }
    }

    #[test]
    fn names_that_hide_nothing_are_refused() {
        for name in [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh..."] {
            assert_eq!(meaning(name, Kind::File), Err(WhiteoutError::NoName), "{name}");
        }
        assert_eq!(meaning(".wh.d/x", Kind::File), Err(WhiteoutError::Inside));
        assert_eq!(meaning(".wh.d", Kind::Directory), Err(WhiteoutError::Inside));
        assert_eq!(meaning(".wh..wh..opq/x", Kind::File), Err(WhiteoutError::Inside));
    }

    #[test]
    fn records_of_aufs_are_ignored() {
        assert_eq!(meaning(".wh..wh.plnk/12.34", Kind::File), Ok(Meaning::Ignored));
        assert_eq!(meaning(".wh..wh.aufs", Kind::File), Ok(Meaning::Ignored));
    }

    #[test]
    fn names_for_the_archive_read_back() {
        let path = EntryPath::parse(b"d/a").unwrap();
        assert_eq!(archive_path(&path).as_bytes(), b"d/.wh.a");
        assert_eq!(opaque_archive_path(&path).as_bytes(), b"d/a/.wh..wh..opq");
    }
}
