//! The layers that COPY and ADD write show what they would if files were copied into a tree.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use rustix::fs::{AtFlags, CWD};

use super::world::{NOW, make, table_of};
use crate::contents::{Table, View};
use crate::context::directory::Directory;
use crate::context::stat_cache::StatCache;
use crate::copy::{
    CopyError, CopyOptions, Everything, SelectOptions, Source, Tree, copy as copy_files, select,
};
use crate::layer::dir::Dir;
use crate::layer::{ContentTimes, EntryPath, Kind, WriteOptions};

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
    let options = WriteOptions { times: ContentTimes::None, epoch: None };
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

/// Lists what a table or view shows, one line an object; directories' times only if they are old.
fn listing<'a>(rows: impl Iterator<Item = (EntryPath, crate::contents::Row<'a>)>) -> Vec<String> {
    let line = |(path, row): (EntryPath, crate::contents::Row<'a>)| {
        let entry = row.entry(path.clone());
        let mode = if matches!(row.kind(), Kind::Symlink { .. }) { 0 } else { entry.mode };
        let time = entry.mtime.seconds;
        let time = if row.is_directory() && time >= NOW.seconds { 0 } else { time };
        let (size, content) = (row.size(), blake3::Hash::from_bytes(row.content()));
        let owner = (entry.uid, entry.gid);
        format!(
            "{path} {:?} {mode:o} {owner:?} {time} {size} {}",
            row.kind(),
            &content.to_hex()[..6]
        )
    };
    rows.map(line).collect()
}

fn shown(view: &View) -> Vec<String> {
    fn walk<'a>(
        view: &'a View,
        directory: &EntryPath,
        rows: &mut Vec<(EntryPath, crate::contents::Row<'a>)>,
    ) {
        for name in view.names(directory) {
            let seen = view.get(&directory.join(&name)).unwrap();
            rows.push((seen.path.clone(), seen.row.unwrap()));
            if seen.is_directory() {
                walk(view, &seen.path, rows);
            }
        }
    }
    let mut rows = Vec::new();
    walk(view, &EntryPath::root(), &mut rows);
    listing(rows.into_iter())
}

/// Times of directories that were there and are written into: the old ones here, "now" there.
fn without_directory_times(lines: Vec<String>) -> Vec<String> {
    let strip = |line: String| match line.contains(" Directory ") {
        true => line
            .split(' ')
            .enumerate()
            .filter(|(at, _)| *at != 5)
            .map(|(_, f)| f)
            .collect::<Vec<_>>()
            .join(" "),
        false => line,
    };
    lines.into_iter().map(strip).collect()
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

    /// Copies into a copy of the tree, object by object.
    fn by_files(&self) -> Result<Vec<String>, CopyError> {
        let into = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .args(["-a", "-T"])
            .args([self.into.path(), into.path()])
            .status()
            .unwrap();
        assert!(status.success());
        let (from, target) =
            (fs::File::open(self.from.path()).unwrap(), fs::File::open(into.path()).unwrap());
        let context = Directory::open(self.from.path(), None).unwrap();
        let tree = Tree {
            root: from.as_fd(),
            filter: if self.keeps_owners { &Everything } else { context.patterns() },
            keeps_owners: self.keeps_owners,
            name: "it",
        };
        copy_files(tree, &self.words, target.as_fd(), &self.destination, self.options)?;
        Ok(listing(table_of(into.path()).rows()))
    }

    /// Makes a layer, and shows it above the tree.
    fn by_layer(&self) -> Result<Vec<String>, CopyError> {
        let below = Arc::new(table_of(self.into.path()));
        let mut view = View::from_iter([below]);
        let context = Directory::open(self.from.path(), None).unwrap();
        let known = StatCache::default();
        let stack = View::from_iter([Arc::new(table_of(self.from.path()))]);
        let from = self.from.path().to_owned();
        let open = move |layer: usize, path: &EntryPath| {
            assert_eq!(layer, 0);
            let path = std::os::unix::ffi::OsStrExt::from_bytes(path.as_bytes());
            let path: &std::ffi::OsStr = path;
            Ok(fs::File::open(from.join(path))?.into_file())
        };
        let source = match self.keeps_owners {
            true => Source::Stack { view: &stack, name: "it", open: &open },
            false => Source::Context { directory: &context, known: &known },
        };
        let options = SelectOptions { unpack: self.options.unpack, threads: 2 };
        let selection = select(source, &self.words, options)?;
        let again = select(source, &self.words, SelectOptions { threads: 1, ..options })?;
        assert_eq!(selection.content_id(), again.content_id());
        let made = make(&[selection], &view, &self.destination, self.options)?;
        view.push(Arc::new(made.table));
        Ok(shown(&view))
    }
}

fn kind(error: &CopyError) -> String {
    match error {
        // Of several obstacles, which one is met first depends on the way.
        CopyError::Io { .. } | CopyError::Archive { .. } | CopyError::Conflict { .. } => {
            "it cannot be done".to_owned()
        }
        CopyError::Missing { tree, .. } => error.to_string().replace(tree.as_str(), "it"),
        other => other.to_string(),
    }
}

#[test]
fn layers_show_what_copied_files_would() {
    let mut succeeded = 0;
    for seed in 1..=250 {
        let story = Story::new(seed);
        let told = || {
            let archive = if story.options.unpack { " as an archive" } else { "" };
            format!("seed {seed}: {:?} to {}{archive}", story.words, story.destination)
        };
        match (story.by_files(), story.by_layer()) {
            (Ok(files), Ok(layer)) => {
                let (files, layer) =
                    (without_directory_times(files), without_directory_times(layer));
                assert_eq!(files, layer, "{}", told());
                succeeded += 1;
            }
            (Err(files), Err(layer)) => assert_eq!(kind(&files), kind(&layer), "{}", told()),
            (files, layer) => panic!("{}: {files:#?}\n{layer:#?}", told()),
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
