//! Following a path inside a tree that is known by its names alone.
//!
//! As openat2(2) does with `RESOLVE_IN_ROOT`: links are followed wherever they stand, absolute ones
//! and `..` stay inside the root.

use std::collections::VecDeque;

use crate::layer::EntryPath;
use crate::layer::entry::{DEPTH_MAX, PATH_BYTES_MAX};

/// As many links as Linux follows.
const LINKS_MAX: usize = 40;

/// A tree of names.
pub(crate) trait Names {
    /// Why the tree cannot be read.
    type Error;

    /// Says what lies at a path that leads through directories only; the path itself may be a link.
    fn look(&self, path: &EntryPath) -> Result<Lies, Self::Error>;
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lies {
    Nothing,
    Directory,
    Link(Vec<u8>),
    /// Anything else.
    Other,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Led {
    /// To something that is no link, and where that really is.
    To(EntryPath, Lies),
    Nowhere,
    /// Below something that is no directory.
    Blocked,
    /// Through more links than a kernel would follow, or deeper than any path.
    Astray,
}

/// Follows a path from the root.
pub(crate) fn resolve<N: Names + ?Sized>(names: &N, path: &[u8]) -> Result<Led, N::Error> {
    let mut pending: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    let (mut here, mut lies, mut links) = (EntryPath::root(), Lies::Directory, 0);
    while let Some(name) = pending.pop_front() {
        if lies != Lies::Directory {
            return Ok(Led::Blocked);
        }
        if name == b".." {
            here = here.parent().unwrap_or_default();
            continue;
        }
        let next = here.join(&name);
        if next.as_bytes().len() > PATH_BYTES_MAX || next.components().count() > DEPTH_MAX + 1 {
            return Ok(Led::Astray);
        }
        match names.look(&next)? {
            Lies::Nothing => return Ok(Led::Nowhere),
            Lies::Link(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Ok(Led::Astray);
                }
                if target.starts_with(b"/") {
                    here = EntryPath::root();
                }
                for component in components(&target).rev() {
                    pending.push_front(component.to_vec());
                }
            }
            found => (here, lies) = (next, found),
        }
    }
    Ok(Led::To(here, lies))
}

/// Follows the links at the end of a path, which is first made plain: where what is returned is not
/// a link, or is not there, though its parents may be reached through links. `None` if that never
/// ends.
pub(crate) fn follow<N: Names + ?Sized>(
    names: &N,
    path: &[u8],
) -> Result<Option<EntryPath>, N::Error> {
    let mut path = plain(&EntryPath::root(), path);
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(Some(path));
        };
        let directory = match resolve(names, parent.as_bytes())? {
            Led::To(directory, Lies::Directory) => directory,
            Led::To(..) | Led::Nowhere | Led::Blocked => return Ok(Some(path)),
            Led::Astray => return Ok(None),
        };
        match names.look(&directory.join(name))? {
            Lies::Link(target) => path = plain(&parent, &target),
            _ => return Ok(Some(path)),
        }
    }
    Ok(None)
}

/// Returns a path seen from a directory without `.` and `..`; the latter stops at the root.
pub(crate) fn plain(directory: &EntryPath, path: &[u8]) -> EntryPath {
    let from = if path.starts_with(b"/") { EntryPath::root() } else { directory.clone() };
    components(path).fold(from, |here, name| match name {
        b".." => here.parent().unwrap_or_default(),
        name => here.join(name),
    })
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    struct Map(BTreeMap<EntryPath, Lies>);

    impl Names for Map {
        type Error = Infallible;

        fn look(&self, path: &EntryPath) -> Result<Lies, Infallible> {
            Ok(self.0.get(path).cloned().unwrap_or(Lies::Nothing))
        }
    }

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes()).unwrap()
    }

    fn map() -> Map {
        let mut map = BTreeMap::new();
        for directory in ["usr", "usr/bin", "d", "d/e"] {
            map.insert(path(directory), Lies::Directory);
        }
        for (link, target) in [
            ("bin", "usr/bin"),
            ("d/up", "../../../usr"),
            ("d/absolute", "/d/e"),
            ("loop", "loop"),
            ("ping", "d/pong"),
            ("d/pong", "/ping"),
            ("dangling", "gone/../away"),
            ("chain", "dangling"),
        ] {
            map.insert(path(link), Lies::Link(target.as_bytes().to_vec()));
        }
        map.insert(path("usr/bin/sh"), Lies::Other);
        Map(map)
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        for (asked, found) in [
            ("/bin/sh", Some("usr/bin/sh")),
            ("bin/../bin", Some("usr/bin")),
            ("d/up/bin/sh", Some("usr/bin/sh")),
            ("d/absolute/../e/.", Some("d/e")),
            ("../..", Some("")),
            ("bin/sh/..", None),
            ("gone", None),
            ("dangling", None),
        ] {
            let led = match resolve(&map(), asked.as_bytes()).unwrap() {
                Led::To(path, _) => Some(path),
                _ => None,
            };
            assert_eq!(led, found.map(path), "{asked}");
        }
        for asked in ["loop", "ping", "d/pong/x"] {
            assert_eq!(resolve(&map(), asked.as_bytes()).unwrap(), Led::Astray, "{asked}");
        }
    }

    #[test]
    fn the_end_of_a_path_is_followed_where_it_leads_to_nothing() {
        for (asked, found) in [
            ("/chain", Some("away")),
            ("/bin", Some("usr/bin")),
            ("/bin/new", Some("bin/new")),
            ("/gone/x", Some("gone/x")),
            ("/loop", None),
        ] {
            assert_eq!(follow(&map(), asked.as_bytes()).unwrap(), found.map(path), "{asked}");
        }
    }
}
