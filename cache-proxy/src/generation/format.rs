//! What differs between kinds of index sets.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use super::catalogue::{CatalogueError, Records};
use super::listing::{Child, Listing};
use super::unpack::Unpacked;

/// A file of a root.
#[derive(Clone, Copy, Debug)]
pub struct RootFile<'a> {
    /// Its name, below the set's address.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The knowledge of one kind of index sets. Pure: it reads what it is given.
///
/// A set has a root, in one of several forms, and children below the root's directory. The root lists
/// the children; some of these list further ones.
pub trait Format: fmt::Debug + Send + Sync {
    /// Returns its name, which keeps sets of several formats at one address apart.
    fn kind(&self) -> &'static str;

    /// Returns the forms of a root, the best first. Each is the files that it consists of; all but
    /// the first may be absent.
    fn forms(&self) -> &'static [&'static [&'static str]];

    /// Reads a root of any form.
    ///
    /// # Errors
    /// Where it is none, or its files do not belong together.
    fn read(&self, files: &[RootFile<'_>]) -> Result<Listing, Box<dyn Error + Send + Sync>>;

    /// Says whether a file of another form tells the same as a root, so that clients of both forms
    /// see one set.
    fn agrees(&self, root: &[RootFile<'_>], other: RootFile<'_>) -> bool;

    /// Returns the child that lists the file at a path, where a child does.
    fn index_of(&self, path: &str) -> Option<String>;

    /// Reads a child that lists further ones; the paths are below the set's address.
    fn read_index(&self, path: &str, bytes: &[u8]) -> BTreeMap<Box<str>, Child>;

    /// Returns where a child can be had, best first, below the set's address.
    fn places(&self, path: &str, child: &Child, by_digest: bool) -> Vec<String>;

    /// Returns what a child is, whatever its file is called in this generation: what a client wanted
    /// of one generation, it will want of the next.
    fn role(&self, path: &str) -> String {
        path.to_owned()
    }

    /// Says whether a child, or a file of the root, lists package files.
    fn lists_packages(&self, path: &str) -> bool;

    /// Reads the package files that such a file lists. Blocking.
    ///
    /// # Errors
    /// Where it is none.
    fn packages(
        &self,
        path: &str,
        index: Unpacked,
        records: &mut Records,
    ) -> Result<(), CatalogueError>;

    /// Says whether clients with this `User-Agent` fetch a whole set over one connection.
    fn keeps_connection(&self, agent: &str) -> bool;
}
