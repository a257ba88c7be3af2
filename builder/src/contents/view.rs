//! A stack of tables, read as the one tree that a step sees.

use std::fs::File;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::contents::{Row, Table};
use crate::execute::User;
use crate::execute::user::UserError;
use crate::layer::EntryPath;

/// Opens a file of a layer's unpacked tree: the layer's number in the view, from the bottom, and the
/// path in it. Called only where bytes are needed, so it may unpack the layer first.
pub type OpenFile<'a> = dyn Fn(usize, &EntryPath) -> io::Result<File> + Sync + 'a;

/// A stack of layers as one tree.
#[derive(Clone, Debug, Default)]
pub struct View {}

/// Why a view cannot answer.
#[derive(Debug, Error)]
pub enum ViewError {
    /// Links lead in a circle, or through more than a kernel would follow.
    #[error("the path {0} leads through too many symbolic links")]
    TooManyLinks(EntryPath),
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
    /// What it is; `None` for a directory that no layer says anything about.
    pub row: Option<Row<'a>>,
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
    pub fn user(&self, _words: &str) -> Result<User, UserError> {
        unimplemented!()
    }

    /// Resolves the words of `--chown`, where a number alone is user and group.
    ///
    /// # Errors
    /// If they name nobody.
    pub fn owner(&self, _words: &str) -> Result<(u32, u32), UserError> {
        unimplemented!()
    }
}

impl View {
    /// Puts a layer on top.
    pub fn push(&mut self, _layer: Arc<Table>) {
        unimplemented!()
    }

    /// Returns what lies at a path; links are not followed, not even on the way.
    pub fn get(&self, _path: &EntryPath) -> Option<Seen<'_>> {
        unimplemented!()
    }

    /// Returns what a path leads to, links followed inside the root.
    ///
    /// # Errors
    /// If links lead in a circle.
    pub fn resolve(&self, _path: &str) -> Result<Option<Seen<'_>>, ViewError> {
        unimplemented!()
    }

    /// Returns the names in a directory, sorted.
    pub fn names(&self, _directory: &EntryPath) -> Vec<Vec<u8>> {
        unimplemented!()
    }

    /// Returns who is known in the tree. `open` is asked only where the files are not where every
    /// image has them.
    ///
    /// # Errors
    /// If a file is too large, is none, or cannot be read.
    pub fn accounts(&self, _open: &OpenFile<'_>) -> Result<Accounts, ViewError> {
        unimplemented!()
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
