//! A stack of tables, read as the one tree that a step sees.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use thiserror::Error;

use super::resolve::{Led, Lies, Names, resolve};
use super::table::kind;
use super::{Recorder, Row, Table};
use crate::execute::User;
use crate::execute::user::{self, FILE_BYTES_MAX, UserError};
use crate::layer::{EntryPath, Kind, Mtime, Xattrs};

/// Opens a file of a layer's unpacked tree: the layer's number in the view, from the bottom, and the
/// path in it. Called only where bytes are needed, so it may unpack the layer first.
pub type OpenFile<'a> = dyn Fn(usize, &EntryPath) -> io::Result<File> + Sync + 'a;

/// A stack of layers as one tree.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The base first.
    layers: Vec<Arc<Table>>,
}

/// Why a view cannot answer.
#[derive(Debug, Error)]
pub enum ViewError {
    /// Links lead in a circle, or through more than a kernel would follow.
    #[error("the path {0} leads through too many symbolic links")]
    TooManyLinks(String),
    /// `/etc/passwd` or `/etc/group` cannot be read.
    #[error("cannot read {path}")]
    Accounts {
        /// Which.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What lies at a path of a view.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Where it really is, without links.
    pub path: EntryPath,
    /// The layer that has it, from the bottom; for a directory, that whose attributes it shows.
    pub layer: usize,
    /// What it is; `None` for a root that no layer says anything about.
    pub row: Option<Row<'a>>,
}

impl Seen<'_> {
    /// Reports whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.row.is_none_or(|row| row.is_directory())
    }
}

/// What an object has beside its kind and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    pub(crate) fn of(row: Option<Row<'_>>) -> Self {
        match row {
            Some(row) => Self {
                mode: row.mode(),
                uid: row.uid(),
                gid: row.gid(),
                mtime: row.mtime(),
                xattrs: row.xattrs(),
            },
            None => {
                Self { mode: 0o755, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Xattrs::new() }
            }
        }
    }
}

/// A directory of a view: its part in each layer that has one, the topmost first.
#[derive(Clone, Debug)]
pub(crate) struct ViewDir<'a> {
    parts: Vec<(usize, Row<'a>)>,
}

/// What a directory of a view shows under a name.
#[derive(Clone, Debug)]
pub(crate) enum Shown<'a> {
    Nothing,
    Directory(ViewDir<'a>),
    /// Anything else, with the layer that has it.
    Object(usize, Row<'a>),
}

impl<'a> ViewDir<'a> {
    /// Returns what is visible under a name.
    pub(crate) fn child(&self, name: &[u8]) -> Shown<'a> {
        let mut parts = Vec::new();
        for (layer, directory) in &self.parts {
            let Some(row) = directory.child(name) else { continue };
            if row.is_directory() {
                parts.push((*layer, row));
                if row.is_opaque() {
                    break;
                }
            } else if row.kind_byte() == kind::WHITEOUT || !parts.is_empty() {
                break;
            } else {
                return Shown::Object(*layer, row);
            }
        }
        if parts.is_empty() { Shown::Nothing } else { Shown::Directory(ViewDir { parts }) }
    }

    /// Returns all that is visible, sorted by name.
    pub(crate) fn children(&self) -> Vec<(&'a [u8], Shown<'a>)> {
        let rows = self.parts.iter().flat_map(|(_, directory)| directory.children());
        let mut names: Vec<&[u8]> = rows.map(|row| row.name()).collect();
        names.sort_unstable();
        names.dedup();
        let shown = names.into_iter().map(|name| (name, self.child(name)));
        shown.filter(|(_, shown)| !matches!(shown, Shown::Nothing)).collect()
    }

    /// Returns the layer whose attributes the directory shows, and what that says.
    pub(crate) fn top(&self) -> Option<(usize, Row<'a>)> {
        self.parts.first().copied()
    }
}

impl View {
    /// Puts a layer on top.
    pub fn push(&mut self, layer: Arc<Table>) {
        let layer = if layer.is_loose() { self.settle(layer) } else { layer };
        self.layers.push(layer);
    }

    /// Returns a layer's table as it is above these: a directory without an entry has the attributes
    /// that it has beneath, and a hard link downward is a file.
    fn settle(&self, layer: Arc<Table>) -> Arc<Table> {
        let mut recorder = Recorder::above(self);
        // A layer that cannot be unpacked here cannot be read here either; unpacking says why.
        let settled = recorder.add_table(&layer).and_then(|()| recorder.finish());
        settled.map_or(layer, Arc::new)
    }

    /// Returns the root, as a directory and with its attributes.
    pub(crate) fn root(&self) -> (ViewDir<'_>, Option<Row<'_>>) {
        let mut parts = Vec::new();
        for (number, layer) in self.layers.iter().enumerate().rev() {
            parts.push((number, layer.root()));
            if layer.root().is_opaque() {
                break;
            }
        }
        let stating = self.layers.iter().rev().find(|layer| layer.states_root());
        (ViewDir { parts }, stating.map(|layer| layer.root()))
    }

    /// Returns what is shown at a path; links are not followed, not even on the way.
    pub(crate) fn shown(&self, path: &EntryPath) -> Shown<'_> {
        let root = Shown::Directory(self.root().0);
        path.components().fold(root, |shown, name| match shown {
            Shown::Directory(directory) => directory.child(name),
            _ => Shown::Nothing,
        })
    }

    /// Returns what lies at a path; links are not followed, not even on the way.
    pub fn get(&self, path: &EntryPath) -> Option<Seen<'_>> {
        let path = path.clone();
        match self.shown(&path) {
            Shown::Nothing => None,
            Shown::Directory(_) if path.is_root() => {
                Some(Seen { path, layer: 0, row: self.root().1 })
            }
            Shown::Directory(directory) => {
                directory.top().map(|(layer, row)| Seen { path, layer, row: Some(row) })
            }
            Shown::Object(layer, row) => Some(Seen { path, layer, row: Some(row) }),
        }
    }

    /// Returns what a path leads to, links followed inside the root.
    ///
    /// # Errors
    /// If links lead in a circle.
    pub fn resolve(&self, path: &str) -> Result<Option<Seen<'_>>, ViewError> {
        let Ok(led) = resolve(self, path.as_bytes());
        match led {
            Led::To(path, _) => Ok(self.get(&path)),
            Led::Nowhere | Led::Blocked => Ok(None),
            Led::Astray => Err(ViewError::TooManyLinks(path.to_owned())),
        }
    }

    /// Returns the names in a directory, sorted.
    pub fn names(&self, directory: &EntryPath) -> Vec<Vec<u8>> {
        match self.shown(directory) {
            Shown::Directory(directory) => {
                directory.children().into_iter().map(|(name, _)| name.to_vec()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns who is known in the tree. `open` is asked only where the files are not where every
    /// image has them.
    ///
    /// # Errors
    /// If a file is too large, is none, or cannot be read.
    pub fn accounts(&self, open: &OpenFile<'_>) -> Result<Accounts, ViewError> {
        let passwd = self.account_file("/etc/passwd", Table::passwd, open)?;
        let group = self.account_file("/etc/group", Table::group, open)?;
        Ok(Accounts { passwd, group })
    }

    fn account_file(
        &self,
        path: &'static str,
        kept: fn(&Table) -> Option<&[u8]>,
        open: &OpenFile<'_>,
    ) -> Result<Option<Vec<u8>>, ViewError> {
        let failed = |source| ViewError::Accounts { path, source };
        let Some(seen) = self.resolve(path)? else { return Ok(None) };
        let row = seen.row.filter(|row| row.kind() == Kind::File);
        let Some(row) = row else {
            return Err(failed(io::Error::other("it is not a regular file")));
        };
        if row.size() > FILE_BYTES_MAX {
            let limit = FILE_BYTES_MAX >> 20;
            return Err(failed(io::Error::other(format!("it is larger than {limit} MiB"))));
        }
        let usual = seen.path.as_bytes() == &path.as_bytes()[1..];
        if let Some(bytes) = kept(&self.layers[seen.layer]).filter(|_| usual) {
            return Ok(Some(bytes.to_vec()));
        }
        let mut bytes = Vec::new();
        let file = open(seen.layer, &seen.path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }
}

impl Names for View {
    type Error = Infallible;

    fn look(&self, path: &EntryPath) -> Result<Lies, Infallible> {
        Ok(match self.shown(path) {
            Shown::Nothing => Lies::Nothing,
            Shown::Directory(_) => Lies::Directory,
            Shown::Object(_, row) if row.kind_byte() == kind::SYMLINK => {
                Lies::Link(row.link().to_vec())
            }
            Shown::Object(..) => Lies::Other,
        })
    }
}

impl FromIterator<Arc<Table>> for View {
    /// The base comes first.
    fn from_iter<I: IntoIterator<Item = Arc<Table>>>(layers: I) -> View {
        let mut view = View::default();
        layers.into_iter().for_each(|layer| view.push(layer));
        view
    }
}

/// `/etc/passwd` and `/etc/group` of a tree.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// The bytes of `/etc/passwd`.
    pub passwd: Option<Vec<u8>>,
    /// The bytes of `/etc/group`.
    pub group: Option<Vec<u8>>,
}

impl Accounts {
    /// Resolves the words of USER.
    ///
    /// # Errors
    /// If they name nobody.
    pub fn user(&self, words: &str) -> Result<User, UserError> {
        user::resolve(words, self.passwd.as_deref(), self.group.as_deref())
    }

    /// Resolves the words of `--chown`, where a number alone is user and group.
    ///
    /// # Errors
    /// If they name nobody.
    pub fn owner(&self, words: &str) -> Result<(u32, u32), UserError> {
        if let Ok(number) = words.parse() {
            return Ok((number, number));
        }
        self.user(words).map(|user| (user.uid, user.gid))
    }
}
