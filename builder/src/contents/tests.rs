//! Tables and views, held against what unpacking makes of the same archives.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use boatyard_oci::{DiffId, Digest};
use fs_err as fs;

use super::*;
use crate::layer::dir::{Object, ObjectKind};
use crate::layer::stack::{Beneath, MergedDir};
use crate::layer::testing::{Raw, path};
use crate::layer::{ContentTimes, EntryPath, Kind, Limits, Mtime, Stack, apply};

/// Unpacks archives one above the other, as overlayfs would show them, and stacks their tables.
struct Layers {
    trees: Vec<tempfile::TempDir>,
    view: View,
}

impl Layers {
    fn of(archives: &[Vec<u8>]) -> Layers {
        let mut layers = Layers { trees: Vec::new(), view: View::default() };
        for archive in archives {
            let tree = tempfile::tempdir().unwrap();
            let below: Vec<&Path> = layers.trees.iter().map(tempfile::TempDir::path).collect();
            let stack = Stack::open(&below).unwrap();
            let limits = Limits::default();
            let applied = apply(archive.as_slice(), tree.path(), &stack, limits).unwrap();
            layers.view.push(Arc::new(applied.table.unwrap()));
            layers.trees.push(tree);
        }
        layers
    }

    /// Says that the tables show what the trees do.
    fn agree(&self) -> Vec<String> {
        let trees: Vec<&Path> = self.trees.iter().map(tempfile::TempDir::path).collect();
        let mut unpacked = Vec::new();
        list(Stack::open(&trees).unwrap().root(), &EntryPath::root(), &mut unpacked);
        let recorded = shown(&self.view);
        assert_eq!(recorded, unpacked);
        recorded
    }
}

fn shown(view: &View) -> Vec<String> {
    fn walk(view: &View, directory: &EntryPath, lines: &mut Vec<String>) {
        for name in view.names(directory) {
            let seen = view.get(&directory.join(&name)).unwrap();
            let row = seen.row.unwrap();
            let kind = match row.kind() {
                Kind::Symlink { target } => format!("-> {}", target.escape_ascii()),
                Kind::File => blake3::Hash::from_bytes(row.content()).to_hex()[..8].to_owned(),
                _ => "directory".to_owned(),
            };
            lines.push(line(&seen.path, row.mode(), (row.uid(), row.gid()), row.mtime(), &kind));
            if seen.is_directory() {
                walk(view, &seen.path, lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(view, &EntryPath::root(), &mut lines);
    lines
}

fn line(path: &EntryPath, mode: u32, owner: (u32, u32), time: Mtime, kind: &str) -> String {
    format!("{path} {mode:o} {owner:?} {} {kind}", time.seconds)
}

/// Lists what unpacked layers show.
fn list(directory: &MergedDir, path: &EntryPath, lines: &mut Vec<String>) {
    for name in directory.names().unwrap() {
        let path = path.join(&name);
        let mut push = |object: &Object, kind: &str| {
            let owner = (object.uid, object.gid);
            lines.push(line(&path, object.mode, owner, object.mtime, kind));
        };
        match directory.child(&name).unwrap() {
            Beneath::Nothing => unreachable!("names lists what is visible"),
            Beneath::Directory(below) => {
                push(&below.top().unwrap().own().unwrap(), "directory");
                list(&below, &path, lines);
            }
            Beneath::Object(layer, object) if object.kind == ObjectKind::Symlink => {
                let target = layer.read_link(&name).unwrap();
                push(&object, &format!("-> {}", target.escape_ascii()));
            }
            Beneath::Object(layer, object) => {
                let mut bytes = Vec::new();
                layer.open_file(&name).unwrap().read_to_end(&mut bytes).unwrap();
                push(&object, &blake3::hash(&bytes).to_hex()[..8]);
            }
        }
    }
}

fn names(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(' ').next().unwrap()).collect()
}

fn base() -> Vec<u8> {
    let archive = Raw::default()
        .dir("usr")
        .dir("usr/bin")
        .file("usr/bin/sh", b"#!")
        .symlink("bin", "usr/bin");
    archive
        .dir("etc")
        .file("etc/passwd", b"ada:x:7:8::/home/ada:\n")
        .file("etc/group", b"g:x:9:ada\n")
        .end()
}

#[test]
fn whiteouts_hide_what_lies_beneath() {
    let change = Raw::default()
        .dir("etc")
        .file("etc/.wh.passwd", b"")
        .file("usr/.wh..wh..opq", b"")
        .file("usr/new", b"1")
        .file(".wh.gone", b"")
        .end();
    let layers = Layers::of(&[base(), change]);
    assert_eq!(names(&layers.agree()), ["/bin", "/etc", "/etc/group", "/usr", "/usr/new"]);
}

#[test]
fn what_an_archive_leaves_out_is_taken_from_beneath() {
    let attributes = Raw::default().pax(&[("uid", b"7")]).dir("d").file("d/a", b"1").end();
    let implicit = Raw::default().file("d/b", b"2").file("new/c", b"3").end();
    let through_a_link = Raw::default().file("bin/tool", b"4").end();
    let downward = Raw::default().hard_link("d/again", "d/a").end();
    let layers = Layers::of(&[base(), attributes, implicit, through_a_link, downward]);
    let lines = layers.agree();
    assert!(names(&lines).contains(&"/usr/bin/tool"), "{lines:?}");
    let again = layers.view.get(&path("d/again")).unwrap().row.unwrap();
    assert_eq!((again.kind(), again.size()), (Kind::File, 1));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let archive = Raw::default()
        .dir("a")
        .file("a/x", b"1")
        .file("a", b"now a file")
        .file("b", b"1")
        .dir("b")
        .file("b/y", b"2")
        .symlink("l", "b")
        .file("l/z", b"3")
        .hard_link("h", "b/y")
        .end();
    let layers = Layers::of(&[base(), archive]);
    let lines = layers.agree();
    assert!(names(&lines).contains(&"/b/z") && !names(&lines).contains(&"/a/x"), "{lines:?}");
}

#[test]
fn users_are_known_without_a_tree() {
    let layers = Layers::of(&[base()]);
    let nobody_opens = |_: usize, _: &EntryPath| Err(std::io::ErrorKind::Unsupported.into());
    let accounts = layers.view.accounts(&nobody_opens).unwrap();
    assert_eq!(accounts.owner("ada").unwrap(), (7, 8));
    assert_eq!(accounts.owner("ada:g").unwrap(), (7, 9));
    assert_eq!(accounts.owner("5").unwrap(), (5, 5));
    assert!(accounts.owner("eve").is_err());
    assert_eq!(accounts.user("5").unwrap().gid, 0);
    let replaced = Raw::default().file("etc/passwd", b"eve:x:1:2::/:\n").end();
    let layers = Layers::of(&[base(), replaced]);
    assert_eq!(layers.view.accounts(&nobody_opens).unwrap().owner("eve").unwrap(), (1, 2));
    let moved = Raw::default()
        .file("usr/passwd", b"eve:x:3:4::/:\n")
        .symlink("etc/passwd", "../usr/passwd")
        .end();
    let layers = Layers::of(&[base(), moved]);
    let open = |layer: usize, path: &EntryPath| {
        let path = String::from_utf8(path.as_bytes().to_vec()).unwrap();
        Ok(fs::File::open(layers.trees[layer].path().join(path))?.into_file())
    };
    assert_eq!(layers.view.accounts(&open).unwrap().owner("eve").unwrap(), (3, 4));
    let broken = Raw::default().dir("etc/passwd").end();
    let layers = Layers::of(&[base(), broken]);
    assert!(layers.view.accounts(&nobody_opens).is_err());
}

#[test]
fn a_blob_is_scanned_without_unpacking() {
    let root = tempfile::tempdir().unwrap();
    let tables = Tables::open(root.path());
    let archive = base();
    let diff_id = DiffId::new(Digest::sha256(&archive));
    assert!(tables.find(&diff_id).unwrap().is_none());
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(archive.as_slice(), flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    let scanned = tables.scan(&diff_id, packed.as_slice(), 1).unwrap();
    let tree = tempfile::tempdir().unwrap();
    let applied =
        apply(archive.as_slice(), tree.path(), &Stack::default(), Limits::default()).unwrap();
    assert_eq!(*scanned, applied.table.unwrap());
    assert_eq!(scanned.passwd().unwrap(), b"ada:x:7:8::/home/ada:\n");
    assert_eq!(*Tables::open(root.path()).find(&diff_id).unwrap().unwrap(), *scanned);
    let other = DiffId::new(Digest::sha256(b"other"));
    let refused = tables.scan(&other, packed.as_slice(), 1).unwrap_err();
    assert!(matches!(refused, TablesError::WrongDiffId { .. }));
    assert!(tables.find(&other).unwrap().is_none());
}

#[test]
fn a_damaged_table_is_as_good_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("table");
    let tree = tempfile::tempdir().unwrap();
    let archive = base();
    let applied =
        apply(archive.as_slice(), tree.path(), &Stack::default(), Limits::default()).unwrap();
    applied.table.unwrap().write(&file).unwrap();
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(Table::read(&file).unwrap().is_none(), "byte {at}");
        fs::write(&file, &good[..at]).unwrap();
        assert!(Table::read(&file).unwrap().is_none(), "{at} bytes");
    }
}

/// Somebody who can write the root can also make the checksum agree.
#[test]
fn a_table_of_lies_is_no_panic() {
    let tree = tempfile::tempdir().unwrap();
    let archive = base();
    let applied =
        apply(archive.as_slice(), tree.path(), &Stack::default(), Limits::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("table");
    applied.table.unwrap().write(&file).unwrap();
    let good = fs::read(&file).unwrap();
    for at in 0..good.len() - 32 {
        for byte in [0, 0xff, b'h'] {
            let mut bad = good[..good.len() - 32].to_vec();
            bad[at] = byte;
            let checksum = blake3::hash(&bad);
            bad.extend_from_slice(checksum.as_bytes());
            fs::write(&file, &bad).unwrap();
            let Some(table) = Table::read(&file).unwrap() else { continue };
            let _ = (table.content_id(&ContentTimes::All), table.passwd(), table.group());
            let view = View::from_iter([Arc::new(table)]);
            let _ = (shown(&view).len(), view.resolve("/bin/sh"));
        }
    }
}
