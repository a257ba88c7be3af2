//! The sources of a COPY: paths and wildcards inside a tree.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::{At as _, CopyError, Found, Tree, kind_of, look, names, open_directory, stat_of};
use crate::context::glob::Pattern;

/// How many symbolic links a path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;

/// Finds what one source of an instruction means.
///
/// `..` stops at the root and a leading `/` is the root. A wildcard that matches nothing is fine,
/// a path that is not there is an error.
///
/// # Errors
/// Where the source is missing, or the tree cannot be read.
pub fn select(tree: Tree<'_>, source: &str) -> Result<Vec<Found>, CopyError> {
    let parts = clean(source);
    if !source.contains(['*', '?', '[', '\\']) {
        return match resolve(tree, &parts.join("/"))? {
            Some(found) => Ok(vec![found]),
            None => Err(missing(tree, source, &parts)),
        };
    }
    let mut walk = Matching { tree, found: Vec::new() };
    let root = open_directory(tree.root, OsStr::new(".")).at("open", OsStr::new("/"))?;
    walk.below(&root, &mut PathBuf::new(), &parts, source)?;
    Ok(walk.found)
}

/// Splits a path into its names; `.` means nothing, and `..` goes up but not out.
pub(crate) fn clean(path: &str) -> Vec<&str> {
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

fn missing(tree: Tree<'_>, source: &str, parts: &[&str]) -> CopyError {
    let unfiltered = Tree { filter: &super::Everything, ..tree };
    let ignored = matches!(resolve(unfiltered, &parts.join("/")), Ok(Some(_)));
    CopyError::Missing { path: source.to_owned(), tree: tree.name.to_owned(), ignored }
}

/// Follows a path inside the tree, links included; `None` where there is nothing, or where it is
/// hidden.
fn resolve(tree: Tree<'_>, path: &str) -> Result<Option<Found>, CopyError> {
    let asked = OsString::from(path.rsplit('/').next().unwrap_or_default());
    let mut pending: Vec<OsString> = reversed(OsStr::new(path));
    let mut here: Vec<(OsString, OwnedFd)> = Vec::new();
    let root = open_directory(tree.root, OsStr::new(".")).at("open", OsStr::new("/"))?;
    let mut links = 0;
    let mut stat = stat_of(&root).at("look at", OsStr::new("/"))?;
    while let Some(name) = pending.pop() {
        if name == ".." {
            here.pop();
            let directory = here.last().map_or(&root, |(_, directory)| directory);
            stat = stat_of(directory).at("look at", &name)?;
            continue;
        }
        let directory = here.last().map_or(&root, |(_, directory)| directory);
        let Some(found) = look(directory, &name).at("look at", OsStr::new(path))? else {
            return Ok(None);
        };
        if kind_of(&found) == FileType::Symlink {
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP).at("follow the links of", OsStr::new(path));
            }
            use std::os::unix::ffi::OsStringExt as _;
            let target = readlinkat(directory, &name, Vec::new()).at("read the link", &name)?;
            let target = OsString::from_vec(target.into_bytes());
            if Path::new(&target).is_absolute() {
                here.clear();
            }
            pending.extend(reversed(&target));
            stat = stat_of(here.last().map_or(&root, |(_, d)| d)).at("look at", &name)?;
            continue;
        }
        if kind_of(&found) != FileType::Directory && !pending.is_empty() {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = openat(directory, &name, flags, Mode::empty()).at("open", OsStr::new(path))?;
        here.push((name, entry));
        stat = found;
    }
    let path: PathBuf = here.iter().map(|(name, _)| name).collect();
    let found = Found { path, name: asked, stat };
    Ok(is_visible(tree, &found)?.then_some(found))
}

/// Returns the names of a path, the last first.
fn reversed(path: &OsStr) -> Vec<OsString> {
    use std::os::unix::ffi::OsStrExt as _;
    let names = path.as_bytes().split(|&byte| byte == b'/').rev();
    names
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// Says whether the filter lets something be seen: itself, or something below it.
pub(super) fn is_visible(tree: Tree<'_>, found: &Found) -> Result<bool, CopyError> {
    let path = found.path.to_string_lossy();
    if path.is_empty() || !tree.filter.hides(&path, found.is_directory()) {
        return Ok(true);
    }
    if !found.is_directory() || !tree.filter.may_descend(&path) {
        return Ok(false);
    }
    let directory = super::inside::open_directory(tree.root, found.path.as_os_str())
        .at("open", found.path.as_os_str())?;
    has_visible(tree, &directory, &found.path)
}

/// Says whether anything below a hidden directory can be seen.
pub(super) fn has_visible(
    tree: Tree<'_>,
    directory: &OwnedFd,
    path: &Path,
) -> Result<bool, CopyError> {
    for name in names(directory).at("list", path.as_os_str())? {
        let below = path.join(&name);
        let text = below.to_string_lossy();
        let Some(stat) = look(directory, &name).at("look at", below.as_os_str())? else { continue };
        let is_directory = kind_of(&stat) == FileType::Directory;
        if !tree.filter.hides(&text, is_directory) {
            return Ok(true);
        }
        if is_directory && tree.filter.may_descend(&text) {
            let child = open_directory(directory, &name).at("open", below.as_os_str())?;
            if has_visible(tree, &child, &below)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Finds what a pattern matches, name by name.
struct Matching<'a> {
    tree: Tree<'a>,
    found: Vec<Found>,
}

impl Matching<'_> {
    fn below(
        &mut self,
        directory: &OwnedFd,
        path: &mut PathBuf,
        parts: &[&str],
        source: &str,
    ) -> Result<(), CopyError> {
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        let pattern =
            Pattern::parse(first).map_err(|_| CopyError::Pattern { pattern: source.to_owned() })?;
        for name in names(directory).at("list", path.as_os_str())? {
            if !pattern.matches(&name.to_string_lossy()) {
                continue;
            }
            path.push(&name);
            if rest.is_empty() {
                let text = path.to_string_lossy();
                if let Some(mut found) = resolve(self.tree, &text)? {
                    found.name = name;
                    self.found.push(found);
                }
            } else if let Some(found) = resolve(self.tree, &path.to_string_lossy())?
                && found.is_directory()
            {
                let child = super::inside::open_directory(self.tree.root, found.path.as_os_str())
                    .at("open", path.as_os_str())?;
                self.below(&child, path, rest, source)?;
            }
            path.pop();
        }
        Ok(())
    }
}
