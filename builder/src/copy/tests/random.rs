//! Layers of random trees, above random trees.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use rustix::fs::{AtFlags, CWD};

use super::world::{CopyOptions, Made, make, table_of};
use crate::contents::{Table, View};
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::{CopyError, SelectOptions, Source, select};
use crate::layer::dir::Dir;
use crate::layer::{ContentId, ContentTimes, EntryPath, Restamp, WriteOptions};

const NAMES: [&str; 6] = ["a", "b", "c", "a.b", "d", "t.tar"];

/// A generator of numbers; the same seed gives the same story.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        let names: Vec<_> = (0..depth).map(|_| self.pick(&NAMES)).collect();
        names.join("/")
    }

    fn word(&mut self) -> String {
        match self.roll(8) {
            0 => self.pick(&[".", "*", "/", "a*", "?", "*/*", "[ab]", "../a", "a/"]).to_owned(),
            1 | 2 => self.pick(&NAMES).to_owned(),
            3 => format!("{}/*", self.pick(&NAMES)),
            _ => self.path(),
        }
    }

    fn destination(&mut self) -> String {
        let slash = if self.roll(2) == 0 { "/" } else { "" };
        match self.roll(6) {
            0 => "/".to_owned(),
            1 => format!("/new/deep{slash}"),
            2 => format!("/a/../b/.{slash}"),
            _ => format!("/{}{slash}", self.path()),
        }
    }
}

/// Does one thing to a tree. Some fail for want of the right objects, which is fine.
fn act(root: &Path, dice: &mut Dice) {
    let (path, other) = (root.join(dice.path()), root.join(dice.path()));
    let parent = path.parent().unwrap();
    match dice.roll(12) {
        0..=2 => drop(fs::create_dir_all(&path)),
        3..=6 => {
            drop(fs::create_dir_all(parent));
            let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
            drop(file.and_then(|mut file| write!(file, "{}", dice.roll(3))));
        }
        7 => drop(fs::hard_link(&other, &path)),
        8 => {
            let target = dice.pick(&["a", "/a/b", "../c", "b", "/d", "gone", "/new/there", "."]);
            drop(symlink(target, &path));
        }
        9 => {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o2750);
            if !path.is_symlink() {
                drop(fs::set_permissions(&path, mode));
            }
        }
        10 if fs::symlink_metadata(&path).is_ok() => {
            drop(std::os::unix::fs::lchown(&path, Some(7), Some(8)));
        }
        _ => drop(rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, 0o640.into(), 0)),
    }
}

fn grow(root: &Path, dice: &mut Dice, actions: u64) {
    for _ in 0..actions {
        act(root, dice);
    }
    age(root);
}

/// Gives everything old times, so that "now" can be told.
fn age(path: &Path) {
    let time =
        rustix::fs::Timespec { tv_sec: 1_000_000_000 + path.as_os_str().len() as i64, tv_nsec: 0 };
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| age(&entry.unwrap().path()));
    }
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn put_archive(path: &Path, of: &Path, dice: &mut Dice) {
    let mut tar = Vec::new();
    let options = WriteOptions { times: ContentTimes::None, restamp: Restamp::AS_MADE };
    crate::snapshot::archive_tree(&Dir::open(of).unwrap(), &mut tar, options).unwrap();
    if dice.roll(2) == 0 {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        tar = gzip.finish().unwrap();
    }
    if !path.is_dir() {
        drop(fs::remove_file(path));
        fs::write(path, tar).unwrap();
    }
}

struct Story {
    from: tempfile::TempDir,
    into: tempfile::TempDir,
    words: Vec<String>,
    destination: String,
    options: CopyOptions<'static>,
    keeps_owners: bool,
}

fn change(own: u32, is_directory: bool) -> u32 {
    if is_directory { own | 0o111 } else { own & !0o022 }
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut dice = Dice::new(seed);
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (actions, below) = (10 + dice.roll(30), dice.roll(25));
        grow(from.path(), &mut dice, actions);
        grow(into.path(), &mut dice, below);
        let unpack = dice.roll(3) == 0;
        if unpack {
            let packed = tempfile::tempdir().unwrap();
            let actions = dice.roll(15);
            grow(packed.path(), &mut dice, actions);
            put_archive(&from.path().join("t.tar"), packed.path(), &mut dice);
        }
        let keeps_owners = dice.roll(2) == 0;
        if !keeps_owners && dice.roll(3) == 0 {
            let lines = ["a\n", "**/b\n!a/b\n", "*\n!a/b\n!d\n", "a/*\n", "*/a.b\n"];
            fs::write(from.path().join(".dockerignore"), dice.pick(&lines)).unwrap();
            age(&from.path().join(".dockerignore"));
        }
        age(from.path());
        let mut words: Vec<String> = (0..1 + dice.roll(2)).map(|_| dice.word()).collect();
        if unpack && dice.roll(2) == 0 {
            words[0] = "t.tar".to_owned();
        }
        let options = CopyOptions {
            owner: (dice.roll(3) == 0).then_some((1000, 1001)),
            mode: (dice.roll(3) == 0).then_some(&change),
            unpack,
        };
        Story { from, into, words, destination: dice.destination(), options, keeps_owners }
    }

    /// Makes a layer; its archive, tree and table are held against each other on the way.
    fn layer(&self) -> Result<(ContentId, Made), CopyError> {
        let view = View::from_iter([Arc::new(table_of(self.into.path()))]);
        let context = Directory::open(self.from.path(), None).unwrap();
        let known = StatCache::default();
        let stack = View::from_iter([Arc::new(table_of(self.from.path()))]);
        let from = self.from.path();
        let open = |layer: usize, path: &EntryPath| {
            assert_eq!(layer, 0);
            let path = from.join(OsStr::from_bytes(path.as_bytes()));
            Ok(fs::File::open(path)?.into_file())
        };
        let source = match self.keeps_owners {
            true => Source::Stack { view: &stack, name: "stage build", open: &open },
            false => Source::Context { directory: &context, known: &known },
        };
        let options =
            SelectOptions { unpack: self.options.unpack, threads: 2, ..SelectOptions::default() };
        let selection = select(source, &self.words, options)?;
        let id = selection.content_id();
        let made = make(&[selection], &view, &self.destination, self.options)?;
        Ok((id, made))
    }
}

#[test]
fn random_layers_are_sound_and_the_same_twice() {
    let mut succeeded = 0;
    for seed in 1..=250 {
        let (one, two) = (Story::new(seed), Story::new(seed));
        match (one.layer(), two.layer()) {
            (Ok((id, made)), Ok((again, made_again))) => {
                assert_eq!(id, again, "seed {seed}");
                let ids =
                    [&made, &made_again].map(|made| made.table.content_id(&ContentTimes::None));
                assert_eq!(ids[0], ids[1], "seed {seed}");
                succeeded += 1;
            }
            (Err(one), Err(two)) => assert_eq!(one.to_string(), two.to_string(), "seed {seed}"),
            (one, two) => panic!("seed {seed}: {} {}", one.is_ok(), two.is_ok()),
        }
    }
    assert!(succeeded > 60, "{succeeded} stories ended well");
}

#[test]
fn tables_read_back() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 1..=100 {
        let story = Story::new(seed);
        let (table, path) = (table_of(story.from.path()), directory.path().join("a/table"));
        table.write(&path).unwrap();
        assert_eq!(Table::read(&path).unwrap().unwrap(), table);
        for (path, row) in table.rows() {
            assert_eq!(table.get(&path).unwrap().entry(path.clone()), row.entry(path));
        }
    }
}
