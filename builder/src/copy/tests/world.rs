//! A context, an image of one layer per COPY, and what the image shows.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use crate::contents::{Table, View};
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::{CopyError, Landing, LayerOut, SelectOptions, Selection, Source, select, write};
use crate::layer::dir::Dir;
use crate::layer::{
    ContentTimes, LayerWriter, Limits, Mtime, Restamp, Stack, TreeWriter, WriteOptions, Written,
    apply,
};

pub(super) const NOW: Mtime = Mtime::from_seconds(1_700_000_000);

/// The flags of an instruction.
#[derive(Clone, Copy, Default)]
pub(super) struct CopyOptions<'a> {
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<&'a dyn Fn(u32, bool) -> u32>,
    pub(super) unpack: bool,
}

/// A layer that was made: its tree, table and archive.
pub(super) struct Made {
    pub(super) tree: tempfile::TempDir,
    pub(super) table: Table,
    pub(super) archive: Vec<u8>,
    pub(super) written: Written,
}

pub(super) struct World {
    pub(super) from: tempfile::TempDir,
    /// The image before the first COPY.
    pub(super) into: tempfile::TempDir,
    /// The whole image after every COPY, unpacked one over the other.
    layers: RefCell<Vec<Made>>,
}

pub(super) fn world(files: &[(&str, &str)]) -> World {
    let world = World {
        from: tempfile::tempdir().unwrap(),
        into: tempfile::tempdir().unwrap(),
        layers: RefCell::default(),
    };
    for (path, content) in files {
        let path = world.from.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    world
}

/// Records the table of a tree.
pub(super) fn table_of(tree: &Path) -> Table {
    let options = WriteOptions { times: ContentTimes::None, restamp: Restamp::AS_MADE };
    let tree = Dir::open(tree).unwrap();
    crate::snapshot::archive_tree(&tree, std::io::sink(), options).unwrap().1.unwrap()
}

/// Writes a layer of selections above a view, and holds its three forms against each other.
pub(super) fn make(
    selections: &[Selection<'_>],
    below: &View,
    destination: &str,
    options: CopyOptions<'_>,
) -> Result<Made, CopyError> {
    let scratch = tempfile::tempdir().unwrap();
    let tree = tempfile::tempdir().unwrap();
    let landing = Landing {
        below,
        destination,
        owner: options.owner,
        mode: options.mode,
        unpack: options.unpack,
        now: NOW,
        threads: 2,
        scratch: scratch.path(),
    };
    let times = ContentTimes::All;
    let writer = LayerWriter::new(Vec::new(), WriteOptions { times, restamp: Restamp::AS_MADE });
    let mut out = LayerOut::new(writer, Some(TreeWriter::new(tree.path()).unwrap()));
    write(selections, &landing, &mut out)?;
    let (archive, written, table) = out.finish().unwrap();
    let made = Made { tree, table: table.unwrap(), archive, written };
    made.check();
    Ok(made)
}

impl Made {
    /// What is unpacked from the archive is the tree, and the table says what both hold.
    fn check(&self) {
        let unpacked = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let applied =
            apply(self.archive.as_slice(), unpacked.path(), &Stack::default(), limits).unwrap();
        assert!(applied.reliance.is_none(), "a layer of COPY needs nothing of what lies beneath");
        assert_eq!(applied.diff_id, self.written.diff_id);
        assert_eq!(applied.table.unwrap(), self.table);
        assert_eq!(self.table.content_id(&ContentTimes::All), self.written.content_id);
        for tree in [unpacked.path(), self.tree.path()] {
            assert_eq!(table_of(tree), self.table);
        }
    }
}

impl World {
    pub(super) fn copy(&self, sources: &[&str], destination: &str) -> Result<(), CopyError> {
        self.copy_with(sources, destination, CopyOptions::default())
    }

    pub(super) fn copy_with(
        &self,
        sources: &[&str],
        destination: &str,
        options: CopyOptions<'_>,
    ) -> Result<(), CopyError> {
        let directory = Directory::open(self.from.path(), None).unwrap();
        let known = StatCache::default();
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let source = Source::Context { directory: &directory, known: &known };
        let select_options =
            SelectOptions { unpack: options.unpack, threads: 2, ..SelectOptions::default() };
        let selection = select(source, &sources, select_options)?;
        let made = make(&[selection], &self.view(), destination, options)?;
        self.layers.borrow_mut().push(made);
        Ok(())
    }

    /// Returns the image as it is now.
    pub(super) fn view(&self) -> View {
        let mut view = View::default();
        view.push(Arc::new(table_of(self.into.path())));
        for layer in self.layers.borrow().iter() {
            view.push(Arc::new(layer.table.clone()));
        }
        view
    }

    pub(super) fn ignore(&self, lines: &str) {
        fs::write(self.from.path().join(".dockerignore"), lines).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.place(path).unwrap()).unwrap()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.place(path).is_some()
    }

    /// Returns the topmost object of a path.
    pub(super) fn place(&self, path: &str) -> Option<PathBuf> {
        let layers = self.layers.borrow();
        let trees = layers.iter().rev().map(|made| made.tree.path()).chain([self.into.path()]);
        let mut places = trees.map(|tree| tree.join(path));
        places.find(|place| fs::symlink_metadata(place).is_ok())
    }

    /// Returns the table of the last layer.
    pub(super) fn last(&self) -> Table {
        self.layers.borrow().last().unwrap().table.clone()
    }
}
