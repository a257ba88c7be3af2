//! What each layer of an image adds, and what of it a later layer deletes or replaces.
//!
//! A stack of layers keeps every byte that was ever written: a file that a later layer deletes is
//! still fetched by everybody who pulls the image. That is told from the tables alone, bottom up: each
//! name that is visible belongs to an object of the layer that wrote it, and an object whose last name
//! goes is wasted. So a file with several hard links counts once, and for as long as one of them
//! is visible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::table::kind;
use super::{Row, Table};
use crate::layer::{EntryPath, Kind};

/// A number of files, directories not among them, and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many names.
    pub files: u64,
    /// How many bytes; those of hard links once.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What one layer does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerUse {
    /// The bytes of all files that it has.
    pub bytes: u64,
    /// What lies where nothing lay.
    pub added: Amount,
    /// What lies where something lay; the bytes are those of this layer.
    pub changed: Amount,
    /// Of that, what has the content that it had: only its attributes changed, or nothing.
    pub repeated: Amount,
    /// What lower layers had and is gone; the bytes are theirs.
    pub removed: Amount,
    /// What this layer wrote in vain: later layers delete or replace it.
    pub wasted: Amount,
}

/// How something came to be wasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waste {
    /// A later layer deletes it.
    Deleted,
    /// A later layer has something else there.
    Replaced,
    /// A later layer has the same content there.
    Repeated,
}

/// A file that is in the image in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WastedFile {
    /// Where it lay; of several names the first.
    pub path: EntryPath,
    /// Its bytes.
    pub bytes: u64,
    /// The layer that has it, counted from the bottom, from 0.
    pub layer: usize,
    /// The layer that hides it.
    pub by: usize,
    /// How.
    pub how: Waste,
}

/// What the layers of an image do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Efficiency {
    /// Each of them, the base first.
    pub layers: Vec<LayerUse>,
    /// The files that are there in vain, the largest first; empty ones are not named.
    pub wasted: Vec<WastedFile>,
}

impl Efficiency {
    /// Looks at a stack, the base first.
    pub fn of(layers: &[Arc<Table>]) -> Efficiency {
        let mut stack = Stack::default();
        for table in layers {
            stack.push(table);
        }
        let mut wasted = stack.wasted;
        wasted.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        Efficiency { layers: stack.layers, wasted }
    }

    /// Returns the bytes of all files in all layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// Returns the bytes that are there in vain.
    pub fn wasted_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.wasted.bytes).sum()
    }
}

/// What lies at a visible path: an object's number.
type Object = usize;

/// A file, or anything else that is no directory, with the names that it has.
struct Written {
    path: EntryPath,
    layer: usize,
    content: Content,
    names: u64,
}

/// What two objects are compared by.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    kind: u8,
    size: u64,
    hash: [u8; 32],
    link: Vec<u8>,
}

impl Content {
    fn of(row: Row<'_>) -> Content {
        let link = if row.kind_byte() == kind::SYMLINK { row.link().to_vec() } else { Vec::new() };
        Content { kind: row.kind_byte(), size: row.size(), hash: row.content(), link }
    }
}

/// The layers so far, seen as one tree.
#[derive(Default)]
struct Stack {
    layers: Vec<LayerUse>,
    wasted: Vec<WastedFile>,
    objects: Vec<Written>,
    visible: Visible,
}

/// What is visible, in the order of a sorted walk: all that lies below a directory is together.
type Visible = BTreeMap<EntryPath, Object>;

impl Stack {
    fn push(&mut self, table: &Table) {
        self.layers.push(LayerUse::default());
        let mut hidden = hide(table, &mut self.visible);
        let mut own = HashMap::new();
        for (path, row) in table.rows() {
            if row.is_directory() || row.kind_byte() == kind::WHITEOUT {
                continue;
            }
            let object = self.object(&path, row, &mut own);
            let before = self.visible.insert(path.clone(), object).or_else(|| hidden.remove(&path));
            self.lay(before, object);
        }
        for object in hidden.into_values() {
            let bytes = self.lose(object, Waste::Deleted);
            self.top().removed.add(bytes);
        }
    }

    /// Returns the object that a row of the topmost layer names.
    fn object(
        &mut self,
        path: &EntryPath,
        row: Row<'_>,
        own: &mut HashMap<EntryPath, Object>,
    ) -> Object {
        if let Kind::HardLink { target } = row.kind()
            && let Some(beneath) = self.visible.get(&target)
        {
            return *beneath;
        }
        // Of several names any can come first.
        let first = row.hard_link().unwrap_or_else(|| path.clone());
        *own.entry(first).or_insert_with_key(|first| {
            self.objects.push(Written {
                path: first.clone(),
                layer: self.layers.len() - 1,
                content: Content::of(row),
                names: 0,
            });
            self.objects.len() - 1
        })
    }

    /// Counts a name of an object that the topmost layer has, in place of what was there before.
    fn lay(&mut self, before: Option<Object>, object: Object) {
        let written = &mut self.objects[object];
        let bytes = if written.names == 0 { written.content.size } else { 0 };
        written.names += 1;
        self.top().bytes += bytes;
        let Some(before) = before else { return self.top().added.add(bytes) };
        self.top().changed.add(bytes);
        if self.objects[before].content == self.objects[object].content {
            self.top().repeated.add(bytes);
            self.lose(before, Waste::Repeated);
        } else {
            self.lose(before, Waste::Replaced);
        }
    }

    /// Takes a name from an object. Returns the bytes that are wasted by that: all of them with the
    /// last name.
    fn lose(&mut self, object: Object, how: Waste) -> u64 {
        let by = self.layers.len() - 1;
        let written = &mut self.objects[object];
        written.names -= 1;
        if written.names > 0 {
            return 0;
        }
        let (layer, bytes) = (written.layer, written.content.size);
        if bytes > 0 {
            self.wasted.push(WastedFile { path: written.path.clone(), bytes, layer, by, how });
        }
        self.layers[layer].wasted.add(bytes);
        bytes
    }

    fn top(&mut self) -> &mut LayerUse {
        self.layers.last_mut().expect("a layer was pushed first")
    }
}

/// Takes from what is visible what a layer hides, by whiteouts, by opaque directories, and by things
/// of another kind. What it has anew at the same path is in the result, too, if it hid all around it.
fn hide(table: &Table, visible: &mut Visible) -> Visible {
    let mut hidden = Visible::new();
    let mut hide = |path: &EntryPath, below: bool, itself: bool| {
        let from = visible.range(path.clone()..).map(|(path, _)| path);
        let is_doomed = |other: &&EntryPath| if *other == path { itself } else { below };
        let inside = from.take_while(|other| other.starts_with(path));
        let doomed: Vec<EntryPath> = inside.filter(is_doomed).cloned().collect();
        for path in doomed {
            if let Some(object) = visible.remove(&path) {
                hidden.insert(path, object);
            }
        }
    };
    if table.root().is_opaque() {
        hide(&EntryPath::root(), true, true);
    }
    for (path, row) in table.rows() {
        if row.kind_byte() == kind::WHITEOUT || row.is_opaque() {
            hide(&path, true, true);
        } else if row.is_directory() {
            // In its place there can have been a file.
            hide(&path, false, true);
        } else {
            hide(&path, true, false);
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{directory, file, table};
    use crate::layer::Entry;
    use crate::layer::testing::path;

    fn of(layers: &[&[(Entry, &str)]]) -> Efficiency {
        let tables: Vec<_> = layers.iter().map(|entries| Arc::new(table(entries))).collect();
        Efficiency::of(&tables)
    }

    fn gone(name: &str) -> (Entry, &'static str) {
        (Entry::new(path(name), Kind::Whiteout, 0), "")
    }

    fn link(name: &str, target: &str) -> (Entry, &'static str) {
        (Entry::new(path(name), Kind::HardLink { target: path(target) }, 0o644), "")
    }

    fn amount(files: u64, bytes: u64) -> Amount {
        Amount { files, bytes }
    }

    /// Each wasted file: path, bytes, the layer that has it and the one that hides it.
    fn wasted(efficiency: &Efficiency) -> Vec<(String, u64, usize, usize, Waste)> {
        let tell =
            |file: &WastedFile| (file.path.to_string(), file.bytes, file.layer, file.by, file.how);
        efficiency.wasted.iter().map(tell).collect()
    }

    #[test]
    fn a_file_that_a_later_layer_deletes_is_wasted() {
        let found = of(&[
            &[(file("keep"), "123"), (directory("d"), ""), (file("d/big"), "1234567890")],
            &[(file("other"), "12")],
            &[gone("d/big")],
        ]);
        assert_eq!(wasted(&found), [("/d/big".to_owned(), 10, 0, 2, Waste::Deleted)]);
        assert_eq!((found.bytes(), found.wasted_bytes()), (15, 10));
        let [first, second, third] = &found.layers[..] else { panic!("three layers") };
        assert_eq!((first.added, first.wasted), (amount(2, 13), amount(1, 10)));
        assert_eq!((second.added, second.removed), (amount(1, 2), amount(0, 0)));
        assert_eq!((third.bytes, third.removed), (0, amount(1, 10)));
    }

    #[test]
    fn what_is_replaced_and_what_is_written_again_are_told_apart() {
        let mut executable = file("same");
        executable.mode = 0o755;
        let found = of(&[
            &[(file("same"), "12345"), (file("new"), "1234")],
            &[(executable, "12345"), (file("new"), "4321")],
        ]);
        assert_eq!(
            wasted(&found),
            [
                ("/same".to_owned(), 5, 0, 1, Waste::Repeated),
                ("/new".to_owned(), 4, 0, 1, Waste::Replaced)
            ]
        );
        let top = &found.layers[1];
        assert_eq!(
            (top.changed, top.repeated, top.added),
            (amount(2, 9), amount(1, 5), amount(0, 0))
        );
    }

    #[test]
    fn a_file_with_several_names_counts_once_and_until_the_last_is_gone() {
        let linked = [(file("a"), "12345"), link("b", "a"), link("c", "a")];
        let found = of(&[&linked, &[gone("a")], &[gone("b"), gone("c")]]);
        assert_eq!((found.bytes(), found.wasted_bytes()), (5, 5));
        assert_eq!(found.layers[0].added, amount(3, 5));
        assert_eq!(found.layers[1].removed, amount(1, 0));
        assert_eq!(found.layers[2].removed, amount(2, 5));
        assert_eq!(wasted(&found), [("/a".to_owned(), 5, 0, 2, Waste::Deleted)]);
        // Another name of a file beneath keeps it, though its first name goes.
        let found = of(&[&[(file("a"), "12345")], &[link("b", "a")], &[gone("a")]]);
        assert_eq!((found.bytes(), found.wasted_bytes()), (5, 0));
    }

    #[test]
    fn an_opaque_directory_hides_what_it_does_not_have_again() {
        let opaque = Entry::new(path("d"), Kind::OpaqueWhiteout, 0);
        let found = of(&[
            &[(directory("d"), ""), (file("d/a"), "123"), (file("d/b"), "1234"), (file("e"), "1")],
            &[(directory("d"), ""), (opaque, ""), (file("d/a"), "123")],
        ]);
        let top = &found.layers[1];
        assert_eq!((top.repeated, top.removed), (amount(1, 3), amount(1, 4)));
        assert_eq!(found.wasted_bytes(), 7);
    }

    #[test]
    fn what_becomes_another_kind_is_hidden_with_all_below() {
        let found = of(&[
            &[(directory("d"), ""), (file("d/a"), "123"), (file("f"), "12")],
            &[(file("d"), "1"), (directory("f"), ""), (file("f/x"), "1")],
        ]);
        let top = &found.layers[1];
        assert_eq!((top.added, top.removed), (amount(2, 2), amount(2, 5)));
        assert_eq!(found.wasted_bytes(), 5);
        // `d.x` sorts between `d` and `d/a` by bytes; it is not below.
        let found =
            of(&[&[(directory("d"), ""), (file("d/a"), "123"), (file("d.x"), "12")], &[gone("d")]]);
        assert_eq!(found.wasted_bytes(), 3);
    }
}
