//! One entry of a layer: a path, what lies there, and its attributes.
//!
//! Paths are bytes: an archive may hold names that are not UTF-8, and they are kept as they are.
//! [`EntryPath`] is the only form in which a name from an archive travels on; it cannot leave the
//! root, because [`EntryPath::parse`] resolves every `.` and `..` and refuses what climbs.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

/// The longest path that is accepted, in bytes: Linux's `PATH_MAX` without its NUL.
pub const PATH_BYTES_MAX: usize = 4095;

/// The deepest directory that is unpacked or made into a layer. Walks hold a descriptor per level.
pub const DEPTH_MAX: usize = 256;

/// A path inside a layer, relative to its root.
///
/// - No leading or trailing slash, no empty component, no `.`, no `..`, no NUL.
/// - At most [`PATH_BYTES_MAX`] bytes. The root itself is the empty path.
/// - Ordered as a sorted walk meets paths: component by component, so `a/b` comes before `a.b`.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct EntryPath(Vec<u8>);

/// Why bytes are not a path inside a layer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// A NUL byte would end the name early for the kernel.
    #[error("the name holds a NUL byte")]
    Nul,
    /// `..` leads above the root.
    #[error("the name leads out of the root")]
    Climbs,
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("the name is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

impl EntryPath {
    /// Returns the root's path.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a name from an archive: `./x`, `/x`, `x/` and `y/../x` all mean `x`.
    ///
    /// # Errors
    /// Refuses NUL bytes, names that climb above the root and names that are too long.
    pub fn parse(name: &[u8]) -> Result<Self, PathError> {
        if name.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut path = Self::default();
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." if path.is_root() => return Err(PathError::Climbs),
                b".." => path.pop(),
                _ => path.push(component),
            }
        }
        if path.0.len() > PATH_BYTES_MAX { Err(PathError::TooLong) } else { Ok(path) }
    }

    /// Returns the bytes, without a slash at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reports whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// Returns the last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Returns the path of the directory that holds this one; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let mut parent = self.clone();
        parent.pop();
        (!self.is_root()).then_some(parent)
    }

    /// Returns the path of `name` in this directory. The name is one component that was already
    /// validated or listed from a directory.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        let mut path = self.clone();
        path.push(name);
        path
    }

    /// Reports whether this path lies below `ancestor`, or is it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(ancestor.0.as_slice())
                .is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
    }

    fn push(&mut self, component: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(component);
    }

    fn pop(&mut self) {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.0.truncate(end);
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.components().cmp(other.components())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; [`Entry::size`] bytes of content follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target as written.
    Symlink {
        /// Never resolved here.
        target: Vec<u8>,
    },
    /// Another name of an object that lies at `target`.
    HardLink {
        /// Relative to the layer's root.
        target: EntryPath,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Removes what lower layers have at this path (the path itself, not the `.wh.` name).
    Whiteout,
    /// Hides all that lower layers have in this directory.
    OpaqueWhiteout,
}

/// A time of modification.
///
/// Layers that we write hold whole seconds; others' may be finer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10⁹.
    pub nanoseconds: u32,
}

impl Mtime {
    /// Returns a time in whole seconds.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// Extended attributes by full name (`security.capability`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: EntryPath,
    /// What.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification.
    pub mtime: Mtime,
    /// Bytes of content; 0 for all but [`Kind::File`].
    pub size: u64,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Entry {
    /// Returns an entry of root's with time 0 and no extended attributes.
    pub fn new(path: EntryPath, kind: Kind, mode: u32) -> Self {
        let (mtime, xattrs) = (Mtime::default(), Xattrs::new());
        Self { path, kind, mode, uid: 0, gid: 0, mtime, size: 0, xattrs }
    }
}

/// Returns whether a layer that we write holds this extended attribute.
///
/// `security.capability` and `user.*` belong to the image; everything else (`trusted.*`, labels,
/// an overlay's) belongs to the machine. A name with `=` cannot be said in a PAX record.
pub fn is_written_xattr(name: &[u8]) -> bool {
    name == b"security.capability" || (is_user_xattr(name) && !name.contains(&b'='))
}

/// Returns whether an extended attribute is a user's, and not one that overlays keep there.
pub(crate) fn is_user_xattr(name: &[u8]) -> bool {
    let overlays: [&[u8]; 2] = [b"user.overlay.", b"user.fuseoverlayfs."];
    name.starts_with(b"user.") && !overlays.iter().any(|overlay| name.starts_with(overlay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> EntryPath {
        EntryPath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_cleaned() {
        for (name, expected) in [
            ("a", "a"),
            ("./a", "a"),
            ("/a", "a"),
            ("//a//b/", "a/b"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            (".", ""),
            ("./", ""),
            ("/.", ""),
            ("", ""),
        ] {
            assert_eq!(path(name).as_bytes(), expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn names_that_climb_are_refused() {
        for name in ["..", "../x", "a/../../x", "/../x"] {
            assert_eq!(EntryPath::parse(name.as_bytes()), Err(PathError::Climbs), "{name}");
        }
        assert_eq!(EntryPath::parse(b"a\0b"), Err(PathError::Nul));
        assert_eq!(EntryPath::parse(&[b'a'; 5000]), Err(PathError::TooLong));
    }

    #[test]
    fn paths_sort_as_a_walk_meets_them() {
        let mut paths = ["a.b", "a/b", "a", "b", "a-b", "a/b/c"].map(path);
        paths.sort();
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a-b", "a.b", "b"].map(path));
    }

    #[test]
    fn ancestors_are_whole_components() {
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert!(path("a").starts_with(&EntryPath::root()));
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(EntryPath::root()));
        assert_eq!(EntryPath::root().parent(), None);
    }

    #[test]
    fn the_xattrs_of_the_machine_are_not_written() {
        for (name, written) in [
            ("security.capability", true),
            ("user.mime", true),
            ("user.overlay.opaque", false),
            ("user.a=b", false),
            ("trusted.overlay.opaque", false),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
        ] {
            assert_eq!(is_written_xattr(name.as_bytes()), written, "{name}");
        }
    }
}
