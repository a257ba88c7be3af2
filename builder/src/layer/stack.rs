//! What lies beneath: unpacked layers, one above the other, read as overlayfs would show them.
//!
//! Unpacking a layer asks it for parents and link targets, and cleaning an upper directory compares
//! with it. It needs no mount and no privilege beyond reading.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::dir::{Dir, Form, Object, ObjectKind};

/// A lower layer cannot be read.
#[derive(Debug, Error)]
#[error("cannot open the layer in {}", path.display())]
pub struct StackError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A stack of unpacked layers.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    root: MergedDir,
    form: Form,
}

impl Stack {
    /// Opens the trees of a stack, the base first.
    ///
    /// # Errors
    /// Fails if one of them cannot be opened.
    pub fn open<P: AsRef<Path>>(trees: &[P]) -> Result<Self, StackError> {
        Self::open_in(Form::default(), trees)
    }

    /// Opens the trees of a stack in `form`, the base first.
    pub(crate) fn open_in<P: AsRef<Path>>(form: Form, trees: &[P]) -> Result<Self, StackError> {
        let open = |tree: &P| {
            Dir::open_in(form, tree.as_ref()).map(Arc::new).map_err(|errno| StackError {
                path: tree.as_ref().to_owned(),
                source: errno.into(),
            })
        };
        let layers = trees.iter().rev().map(open).collect::<Result<_, _>>()?;
        Ok(Self { root: MergedDir { layers }, form })
    }

    /// Returns the merged root.
    pub(crate) fn root(&self) -> &MergedDir {
        &self.root
    }

    /// Returns the form of the trees.
    pub(crate) fn form(&self) -> Form {
        self.form
    }
}

/// One directory as the stack shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MergedDir {
    /// The layers that have a part in it, the topmost first.
    layers: Vec<Arc<Dir>>,
}

/// What the stack shows under a name.
#[derive(Debug)]
pub(crate) enum Beneath {
    Nothing,
    Directory(MergedDir),
    /// Anything else, with the directory of the one layer that has it.
    Object(Arc<Dir>, Object),
}

impl MergedDir {
    /// Returns what is visible under a name.
    pub(crate) fn child(&self, name: &[u8]) -> rustix::io::Result<Beneath> {
        let mut merged = Self::default();
        for layer in &self.layers {
            let Some(object) = layer.stat(name)? else { continue };
            match object.kind {
                ObjectKind::Directory => {
                    let directory = layer.subdir(name)?;
                    let opaque = directory.is_opaque()?;
                    merged.layers.push(Arc::new(directory));
                    if opaque {
                        break;
                    }
                }
                ObjectKind::Whiteout => break,
                _ if merged.layers.is_empty() => {
                    return Ok(Beneath::Object(Arc::clone(layer), object));
                }
                _ => break,
            }
        }
        Ok(if merged.layers.is_empty() { Beneath::Nothing } else { Beneath::Directory(merged) })
    }

    /// Returns the directory whose attributes the merged one shows; `None` if no layer has it.
    pub(crate) fn top(&self) -> Option<&Dir> {
        self.layers.first().map(AsRef::as_ref)
    }

    /// Returns the names that are visible, sorted.
    pub(crate) fn names(&self) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for layer in &self.layers {
            names.extend(layer.names()?);
        }
        names.sort_unstable();
        names.dedup();
        let mut visible = Vec::with_capacity(names.len());
        for name in names {
            if !matches!(self.child(&name)?, Beneath::Nothing) {
                visible.push(name);
            }
        }
        Ok(visible)
    }
}
