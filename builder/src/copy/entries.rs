//! Where the entries of a layer go.

use std::io::{self, Read, Write};

use crate::contents::Table;
use crate::layer::tree::{TreeFile, TreeWriter};
use crate::layer::{Content, Entry, LayerWriter, WriteError, Written};

/// How much of a file is copied at once.
const COPY_BYTES: usize = 64 << 10;

/// Takes the entries of a layer in order, as [`LayerWriter`] wants them.
pub trait Entries {
    /// Takes the next entry; `content` is a file's, and is read to its end.
    ///
    /// # Errors
    /// Fails if the entry cannot be written, or its content not read.
    fn append(&mut self, entry: Entry, content: &mut dyn Content) -> Result<(), WriteError>;
}

/// Writes a layer's archive, its table, and where it is wanted its tree, in one pass.
#[derive(Debug)]
pub struct LayerOut<W> {
    archive: LayerWriter<W>,
    tree: Option<TreeWriter>,
}

impl<W: Write> LayerOut<W> {
    /// Starts a layer.
    pub fn new(archive: LayerWriter<W>, tree: Option<TreeWriter>) -> LayerOut<W> {
        LayerOut { archive, tree }
    }

    /// Ends it. The table is `None` where it would be too large.
    ///
    /// # Errors
    /// Fails if what remains cannot be written.
    pub fn finish(self) -> Result<(W, Written, Option<Table>), WriteError> {
        if let Some(tree) = self.tree {
            tree.finish()?;
        }
        self.archive.finish_with_table()
    }
}

impl<W: Write> Entries for LayerOut<W> {
    fn append(&mut self, entry: Entry, content: &mut dyn Content) -> Result<(), WriteError> {
        let begun = match &mut self.tree {
            Some(tree) => {
                tree.begin(&Entry { mtime: self.archive.stamp(&entry), ..entry.clone() })?
            }
            None => None,
        };
        let Some(file) = begun else {
            return self.archive.append_content(entry, content).map(drop);
        };
        let mut both = Both { content, file };
        self.archive.append_content(entry, &mut both)?;
        both.file.finish()
    }
}

/// Writes a tree, and no archive of it.
#[derive(Debug)]
pub struct TreeOut(TreeWriter);

impl TreeOut {
    /// Starts with a tree.
    pub fn new(tree: TreeWriter) -> TreeOut {
        TreeOut(tree)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Fails if what remains cannot be written.
    pub fn finish(self) -> Result<(), WriteError> {
        self.0.finish()
    }
}

impl Entries for TreeOut {
    fn append(&mut self, entry: Entry, content: &mut dyn Content) -> Result<(), WriteError> {
        let Some(mut file) = self.0.begin(&entry)? else { return Ok(()) };
        let mut buffer = vec![0; COPY_BYTES];
        let copied = loop {
            match content.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    if let Err(error) = file.write(&buffer[..length]) {
                        break Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        copied.map_err(|source| WriteError::Entry { path: entry.path.clone(), source })?;
        file.finish()
    }
}

/// Writes into the tree what is read for the archive.
struct Both<'a> {
    content: &'a mut dyn Content,
    file: TreeFile,
}

impl Read for Both<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.file.write(&buffer[..read])?;
        Ok(read)
    }
}

impl Content for Both<'_> {
    fn digest(&self) -> [u8; 32] {
        self.content.digest()
    }
}
