//! The first half of a COPY: what is copied, and its identity.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rustix::fs::{Stat, fstat};

use super::hash::hash_exactly;
use super::narrow::{self, Pivoted};
use super::origin::{
    ContextTree, Load, Note, Origin, StackTree, ToHash, open_file_in_context, text,
};
use super::read::Bytes;
use super::words::{self, Found};
use super::{At as _, CopyError};
use crate::contents::growing::{Beside, Node, What, freeze};
use crate::contents::view::{OpenFile, View};
use crate::contents::{Recorder, Row, Table};
use crate::context::directory::Directory;
use crate::context::ignore::Patterns;
use crate::context::stat_cache::StatCache;
use crate::layer::{ContentId, ContentTimes, EntryPath};
use crate::source::FetchedFile;

const FORMAT: &[u8] = b"boatyard selection 1\n";
const HEREDOC_MODE: u32 = 0o644;
const FETCHED_MODE: u32 = 0o600;

/// What is copied from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// The build context.
    Context {
        /// Its files.
        directory: &'a Directory,
        /// What they hashed to before.
        known: &'a StatCache,
    },
    /// A stage or an image.
    Stack {
        /// Its tree.
        view: &'a View,
        /// What it is called in messages: `stage build`.
        name: &'a str,
        /// Opens its files. Only [`write`](super::write()) does, so it may unpack a layer first.
        open: &'a OpenFile<'a>,
    },
    /// A file that was fetched, of mode 0600.
    Fetched {
        /// Its name.
        name: &'a str,
        /// Its bytes, their number and hash, and its time.
        file: &'a FetchedFile,
    },
    /// A file in the Dockerfile, of mode 0644.
    Heredoc {
        /// Its delimiter; the part after the last slash is the file's name.
        name: &'a str,
        /// Its content, expanded.
        body: &'a [u8],
    },
}

impl Source<'_> {
    /// Returns what it is called in messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Source::Context { .. } => "the build context",
            Source::Stack { name, .. } => name,
            Source::Fetched { name, .. } => name,
            Source::Heredoc { .. } => "the Dockerfile",
        }
    }
}

/// How to select.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectOptions<'a> {
    /// Archives will be unpacked: ADD.
    pub unpack: bool,
    /// Threads that read and hash.
    pub threads: usize,
    /// The directories above a source are copied, too: `--parents`.
    pub parents: bool,
    /// What is left out: `--exclude`.
    pub exclude: Option<&'a Patterns>,
}

/// What the sources of an instruction mean: their entries with the content of each file.
pub struct Selection<'a> {
    pub(super) source: Source<'a>,
    pub(super) parts: Vec<Part>,
    /// Where the sources are that the rows of parts name.
    pub(super) sources: Vec<Lands>,
    /// The destination must be a directory.
    pub(super) several: bool,
    /// Its archives may be unpacked.
    pub(super) unpack: bool,
    merged: Option<Table>,
}

/// What lands together: names relative to the destination.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) table: Table,
    /// By the number of the row.
    pub(super) notes: Vec<Note>,
    /// It is one file, which may be unpacked or get another name.
    pub(super) is_file: bool,
    /// A file would take the place of a directory, or the other way round.
    pub(super) conflict: Option<Conflict>,
}

#[derive(Clone, Debug)]
pub(super) struct Conflict {
    pub(super) what: &'static str,
    pub(super) path: EntryPath,
    pub(super) there: &'static str,
}

/// A source, and where it goes: a directory's contents to the root, anything else to its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Lands {
    pub(super) from: EntryPath,
    pub(super) at: EntryPath,
}

impl Lands {
    /// Returns where something that landed came from.
    pub(super) fn origin(&self, landed: &EntryPath) -> EntryPath {
        landed
            .components()
            .skip(self.at.components().count())
            .fold(self.from.clone(), |path, name| path.join(name))
    }
}

impl Part {
    /// Returns whether the attributes of a copied directory are those of the destination, if that
    /// is made.
    pub(super) fn states_root(&self) -> bool {
        self.table.states_root()
    }

    pub(super) fn note(&self, row: Row<'_>) -> Note {
        self.notes.get(row.index() as usize).copied().unwrap_or_default()
    }
}

impl Selection<'_> {
    /// Returns what is copied, by names relative to the destination.
    pub fn table(&self) -> &Table {
        // There is no merged one only if there is one part.
        self.merged.as_ref().unwrap_or_else(|| &self.parts[0].table)
    }

    /// Returns the identity of what is copied: names, types, modes, owners where they are kept, link
    /// targets and content; never times.
    pub fn content_id(&self) -> ContentId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT).update(&[u8::from(self.several)]);
        for part in &self.parts {
            hasher.update(&[u8::from(part.is_file), u8::from(part.conflict.is_some())]);
            hasher.update(&[u8::from(part.states_root())]);
            if part.states_root() {
                let root = part.table.root();
                for number in [root.mode(), root.uid(), root.gid()] {
                    hasher.update(&number.to_le_bytes());
                }
            }
            hasher.update(part.table.content_id(&ContentTimes::None).as_bytes());
        }
        ContentId::from_hasher(&hasher)
    }
}

impl<'a> Selection<'a> {
    /// Returns where something came from that landed at a path.
    pub(super) fn origin(&self, part: &Part, row: Row<'_>, landed: &EntryPath) -> EntryPath {
        let source = self.sources.get(part.note(row).source as usize);
        source.map_or_else(|| landed.clone(), |source| source.origin(landed))
    }

    /// Returns how to get at the bytes of a file that came from a path.
    pub(super) fn bytes(&self, part: &Part, row: Row<'_>, origin: EntryPath) -> Bytes<'a> {
        match self.source {
            Source::Context { directory, .. } => Bytes::Context(directory, origin),
            Source::Stack { open, .. } => {
                Bytes::Stack { open, layer: part.note(row).layer as usize, path: origin }
            }
            Source::Fetched { file, .. } => Bytes::Fetched(&file.file),
            Source::Heredoc { body, .. } => Bytes::Memory(body),
        }
    }
}

impl std::fmt::Debug for Selection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Selection");
        shown.field("from", &self.source.name()).field("parts", &self.parts).finish()
    }
}

/// Finds what the words of an instruction mean (none for a heredoc), and hashes it.
///
/// # Errors
/// Where a source is missing, or the tree cannot be read.
pub fn select<'a>(
    source: Source<'a>,
    words: &[String],
    options: SelectOptions<'_>,
) -> Result<Selection<'a>, CopyError> {
    let mut selecting = Selecting::new(options);
    let several = match source {
        Source::Heredoc { name, body } => {
            selecting.heredoc(name, body);
            false
        }
        Source::Fetched { name, file } => {
            selecting.fetched(name, file);
            false
        }
        Source::Context { directory, .. } => {
            let tree = ContextTree { directory, sees_all: false };
            selecting.find_all(&source, &tree, words)?
        }
        Source::Stack { view, .. } => selecting.find_all(&source, &StackTree(view), words)?,
    };
    if let Source::Context { directory, known } = source {
        let mut wanted = vec![false; selecting.load.files.len()];
        for landing in &selecting.landings {
            note_wanted(&landing.root, &mut wanted);
        }
        let files = Wanted { files: &selecting.load.files, wanted };
        let hashes = hash_all(directory, known, &files, options.threads)?;
        for landing in &mut selecting.landings {
            set_hashes(&mut landing.root, &hashes);
        }
    }
    selecting.finish(source, several)
}

/// Finds what lies at one path, in which nothing is a wildcard, and hashes it.
///
/// # Errors
/// Where nothing is there, or the tree cannot be read.
pub fn select_path<'a>(
    source: Source<'a>,
    path: &str,
    threads: usize,
) -> Result<Selection<'a>, CopyError> {
    let mut word = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            word.push('\\');
        }
        word.push(character);
    }
    let selection = select(
        source,
        &[word],
        SelectOptions { unpack: false, threads, parents: false, exclude: None },
    )?;
    if selection.sources.is_empty() {
        let tree = source.name().to_owned();
        return Err(CopyError::Missing { path: path.to_owned(), tree, ignored: false });
    }
    Ok(selection)
}

/// A selection under way.
struct Selecting<'o> {
    options: SelectOptions<'o>,
    load: Load,
    sources: Vec<Lands>,
    landings: Vec<Landed>,
}

/// A [`Part`] under way.
struct Landed {
    root: Node<Note>,
    states_root: bool,
    is_file: bool,
    conflict: Option<Conflict>,
}

impl Landed {
    fn new(is_file: bool) -> Self {
        Self { root: Node::implicit(), states_root: false, is_file, conflict: None }
    }
}

impl<'o> Selecting<'o> {
    fn new(options: SelectOptions<'o>) -> Self {
        Self { options, load: Load::default(), sources: Vec::new(), landings: Vec::new() }
    }

    /// Reads all that the words mean; returns whether the destination must be a directory.
    fn find_all(
        &mut self,
        source: &Source<'_>,
        tree: &dyn Origin,
        words: &[String],
    ) -> Result<bool, CopyError> {
        if self.options.parents {
            self.find_with_parents(source, tree, words)?;
            return Ok(true);
        }
        let mut found = Vec::new();
        for word in words {
            found.extend(words::find(tree, source, word)?);
        }
        let several = words.len() > 1 || found.len() > 1;
        for Found { path, name } in found {
            self.load.source = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
            let Some(mut node) = tree.load(&path, &mut self.load)? else { continue };
            let is_directory = node.is_directory();
            if !is_directory && self.is_excluded(&name) {
                continue;
            }
            self.exclude(&mut node);
            let at = if is_directory { EntryPath::root() } else { EntryPath::root().join(&name) };
            self.sources.push(Lands { from: path, at });
            if is_directory {
                self.directory(node);
            } else {
                self.file(&name, node, several);
            }
        }
        Ok(several)
    }

    /// The same, with the directories above what is found.
    fn find_with_parents(
        &mut self,
        source: &Source<'_>,
        tree: &dyn Origin,
        words: &[String],
    ) -> Result<(), CopyError> {
        for word in words {
            let pivoted = Pivoted::parse(word);
            let mut is_found = false;
            for base in words::find(tree, source, &pivoted.base)? {
                self.load.source = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
                let found = pivoted.load(tree, &base.path, &mut self.load)?;
                let Some(mut node) = found.filter(Node::is_directory) else { continue };
                is_found = true;
                self.exclude(&mut node);
                self.sources.push(Lands { from: base.path, at: EntryPath::root() });
                self.directory(node);
                // The destination is made as any other that is missing.
                self.landing(false).states_root = false;
            }
            if pivoted.is_required && !is_found {
                return Err(narrow::missing(source, word));
            }
        }
        Ok(())
    }

    fn is_excluded(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        self.options.exclude.is_some_and(|patterns| patterns.matches(&name, false))
    }

    fn exclude(&self, node: &mut Node<Note>) {
        if let Some(patterns) = self.options.exclude {
            narrow::exclude(node, patterns);
        }
    }

    fn directory(&mut self, node: Node<Note>) {
        let landing = self.landing(false);
        let children = std::mem::take(&mut landing.root.children);
        // Of several, the last says what the destination looks like.
        let merged = Node { children, xattrs: None, ..node.clone_bare() };
        landing.root = merged;
        landing.states_root = true;
        for (name, child) in node.children {
            let path = EntryPath::root().join(&name);
            merge(&mut landing.root, name, child, &path, &mut landing.conflict);
        }
    }

    fn file(&mut self, name: &[u8], node: Node<Note>, several: bool) {
        let may_unpack = self.options.unpack && node.what == What::File;
        let landing = self.landing(may_unpack || !several);
        let path = EntryPath::root().join(name);
        merge(&mut landing.root, name.into(), node, &path, &mut landing.conflict);
    }

    /// Returns where the next source lands: with those before it, unless it may be unpacked.
    fn landing(&mut self, is_file: bool) -> &mut Landed {
        if is_file || self.landings.last().is_none_or(|last| last.is_file) {
            self.landings.push(Landed::new(is_file));
        }
        self.landings.last_mut().expect("one was pushed if there was none")
    }

    fn fetched(&mut self, name: &str, file: &FetchedFile) {
        if self.is_excluded(name.as_bytes()) {
            return;
        }
        let mut node = Node::new(What::File, FETCHED_MODE);
        node.size = file.size;
        node.content = file.content;
        node.seconds = file.modified.map_or(0, jiff::Timestamp::as_second);
        let at = EntryPath::root().join(name.as_bytes());
        self.sources.push(Lands { from: at.clone(), at });
        self.file(name.as_bytes(), node, false);
    }

    fn heredoc(&mut self, name: &str, body: &[u8]) {
        let name = name.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("EOF");
        let mut node = Node::new(What::File, HEREDOC_MODE);
        node.size = body.len() as u64;
        node.content = *blake3::hash(body).as_bytes();
        self.sources.push(Lands {
            from: EntryPath::root().join(name.as_bytes()),
            at: EntryPath::root().join(name.as_bytes()),
        });
        self.file(name.as_bytes(), node, false);
    }

    fn finish(self, source: Source<'_>, several: bool) -> Result<Selection<'_>, CopyError> {
        let mut parts = Vec::with_capacity(self.landings.len());
        for landing in self.landings {
            let beside = Beside { states_root: landing.states_root, ..Beside::default() };
            let (table, notes) = freeze(landing.root, &beside).map_err(CopyError::Table)?;
            let (is_file, conflict) = (landing.is_file, landing.conflict);
            parts.push(Part { table, notes, is_file, conflict });
        }
        let merged = if parts.len() == 1 { None } else { Some(merge_tables(&parts)?) };
        let (sources, unpack) = (self.sources, self.options.unpack);
        Ok(Selection { source, parts, sources, several, unpack, merged })
    }
}

fn merge_tables(parts: &[Part]) -> Result<Table, CopyError> {
    let mut recorder = Recorder::default();
    for part in parts {
        recorder.add_table(&part.table).map_err(CopyError::Table)?;
    }
    recorder.finish().map_err(CopyError::Table)
}

/// Puts a node under a name, above what landed there before.
fn merge(
    directory: &mut Node<Note>,
    name: Box<[u8]>,
    node: Node<Note>,
    path: &EntryPath,
    conflict: &mut Option<Conflict>,
) {
    let Some(there) = directory.children.get_mut(&name) else {
        directory.children.insert(name, node);
        return;
    };
    let clash = |what, there| Conflict { what, path: path.clone(), there };
    match (node.is_directory(), there.is_directory()) {
        (true, false) => {
            conflict.get_or_insert_with(|| clash("a directory", "not a directory"));
        }
        (false, true) => {
            conflict.get_or_insert_with(|| clash("a file", "a directory"));
        }
        (false, false) => *there = node,
        (true, true) => {
            let mut xattrs = there.xattrs.take().unwrap_or_default();
            xattrs.extend(node.xattrs.clone().into_iter().flat_map(|xattrs| *xattrs));
            let children = std::mem::take(&mut there.children);
            let xattrs = Some(xattrs).filter(|xattrs| !xattrs.is_empty());
            *there = Node { children, xattrs, ..node.clone_bare() };
            for (name, child) in node.children {
                let path = path.join(&name);
                merge(there, name, child, &path, conflict);
            }
        }
    }
}

fn set_hashes(node: &mut Node<Note>, hashes: &[[u8; 32]]) {
    if let Some(hash) = (node.note.to_hash as usize).checked_sub(1).and_then(|at| hashes.get(at)) {
        node.content = *hash;
    }
    node.children.values_mut().for_each(|child| set_hashes(child, hashes));
}

/// Files that were met, of which some are left out by now.
struct Wanted<'a> {
    files: &'a [ToHash],
    wanted: Vec<bool>,
}

fn note_wanted(node: &Node<Note>, wanted: &mut [bool]) {
    let number = (node.note.to_hash as usize).checked_sub(1);
    if let Some(wanted) = number.and_then(|number| wanted.get_mut(number)) {
        *wanted = true;
    }
    node.children.values().for_each(|child| note_wanted(child, wanted));
}

/// Returns the hashes of a context's files, in their order; zeros for those that nobody wants.
fn hash_all(
    context: &Directory,
    known: &StatCache,
    Wanted { files, wanted }: &Wanted<'_>,
    threads: usize,
) -> Result<Vec<[u8; 32]>, CopyError> {
    let mut hashes = vec![[0; 32]; files.len()];
    let mut unknown = Vec::new();
    for (at, file) in files.iter().enumerate().filter(|(at, _)| wanted[*at]) {
        match known.find(&file.stat) {
            Some(hash) => hashes[at] = hash,
            None => unknown.push(at),
        }
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None::<(usize, CopyError)>));
    let work = || {
        let mut done = Vec::new();
        while let Some(at) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
            match hash(context, known, &files[*at]) {
                Ok(hash) => done.push((*at, hash)),
                Err(error) => {
                    // The first in the order of the walk is told, whichever thread met it.
                    let mut failed =
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(first, _)| at < first) {
                        *failed = Some((*at, error));
                    }
                    next.store(unknown.len(), Ordering::Relaxed);
                }
            }
        }
        done
    };
    let threads = threads.clamp(1, unknown.len().max(1));
    let done: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().filter_map(|other| other.join().ok()).chain([own]).flatten().collect()
    });
    if let Some((_, error)) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        return Err(error);
    }
    for (at, hash) in done {
        hashes[at] = hash;
    }
    Ok(hashes)
}

/// Hashes a file that must look as it did when it was found, before and after.
fn hash(context: &Directory, known: &StatCache, file: &ToHash) -> Result<[u8; 32], CopyError> {
    let path = text(&file.path);
    let changed = || CopyError::Changed { path: path.to_string_lossy().into_owned() };
    let looked_at = SystemTime::now();
    let opened = open_file_in_context(context, &file.path).at("read", path)?;
    if !same(&fstat(&opened).at("look at", path)?, &file.stat) {
        return Err(changed());
    }
    let size = u64::try_from(file.stat.st_size).unwrap_or_default();
    let hash = hash_exactly(&opened, size).at("read", path)?.ok_or_else(changed)?;
    if !same(&fstat(&opened).at("look at", path)?, &file.stat) {
        return Err(changed());
    }
    known.learn(&file.stat, &hash, looked_at);
    Ok(hash)
}

fn same(one: &Stat, other: &Stat) -> bool {
    let key = |stat: &Stat| {
        let times = (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mode, times)
    };
    key(one) == key(other)
}
