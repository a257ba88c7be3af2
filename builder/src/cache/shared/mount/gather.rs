//! Reading a cache mount into packs.

use std::collections::HashMap;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use boatyard_content::{Expected, Ingest, IngestKey, Landed, Lease, Root, StoreError};
use boatyard_oci::{Descriptor, MediaType};
use jiff::Timestamp;

use super::{
    FILES_BYTES_MAX, File, FileKind, FileList, MountError, PACK_BYTES, PACKS_MAX, PIECE_BYTES,
    Piece, SharedMount, VERSION, ZSTD_LEVEL, failed, refused,
};
use crate::cache::mounts::{CONTENT, CacheId};
use crate::cache::shared::{FILES, PACK};
use crate::layer::EntryPath;
use crate::layer::dir::{Dir, ObjectKind};

/// Shorter values than this stand in many files by chance.
const SECRET_BYTES_MIN: usize = 6;
/// How deep directories may lie.
const DEPTH_MAX: usize = 128;

/// How a cache is read.
pub struct Gathering<'a> {
    /// Where packs land.
    pub root: &'a Root,
    /// Holds them.
    pub lease: &'a Lease,
    /// What travelled before, and where.
    pub earlier: Option<(&'a SharedMount, &'a FileList)>,
    /// The values of the build's secrets: files that hold one stay here.
    pub secrets: &'a [Vec<u8>],
    /// The time.
    pub now: Timestamp,
}

/// A cache that was read.
#[derive(Debug)]
pub struct Gathered {
    /// What travels.
    pub mount: SharedMount,
    /// Files that stay here, since a secret stands in them.
    pub left_out: Vec<String>,
    /// The bytes that no earlier pack had.
    pub new_bytes: u64,
}

/// A pack being written.
struct Pack {
    encoder: zstd::stream::write::Encoder<'static, Ingest>,
    bytes: u64,
}

/// The state of reading.
struct Walk<'a, 'b> {
    gathering: &'a Gathering<'b>,
    /// What earlier lists say of a path: to tell what did not change.
    before: HashMap<&'a str, &'a File>,
    /// Where pieces are, by hash and size.
    known: HashMap<(String, u64), (usize, u64)>,
    packs: Vec<(u64, Option<Descriptor>)>,
    open: Option<Pack>,
    files: Vec<File>,
    left_out: Vec<String>,
    all_bytes: u64,
    new_bytes: u64,
}

impl Gathering<'_> {
    /// Reads the cache in a directory that somebody holds the lock of. `None` where it is empty.
    ///
    /// # Errors
    /// Where it cannot be read, or packs cannot be written.
    pub fn gather(&self, id: &CacheId, directory: &Path) -> Result<Option<Gathered>, MountError> {
        let content = directory.join(CONTENT);
        let top = match Dir::open(&content) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            top => top.map_err(refused("open", "."))?,
        };
        let mut walk = Walk::new(self);
        walk.directory(&top, "", 0)?;
        if walk.files.is_empty() {
            return Ok(None);
        }
        walk.close()?;
        walk.finish(id).map(Some)
    }
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(gathering: &'a Gathering<'b>) -> Walk<'a, 'b> {
        let mut walk = Walk {
            gathering,
            before: HashMap::new(),
            known: HashMap::new(),
            packs: Vec::new(),
            open: None,
            files: Vec::new(),
            left_out: Vec::new(),
            all_bytes: 0,
            new_bytes: 0,
        };
        let Some((mount, list)) = gathering.earlier else { return walk };
        let mut live = vec![0_u64; list.packs.len()];
        for file in &list.files {
            let FileKind::File { pieces, .. } = &file.kind else { continue };
            pieces.iter().for_each(|piece| live[piece.pack] += piece.size);
        }
        // A piece that several files share counts for each: such a pack is kept rather too long.
        let is_kept = |pack: usize| {
            pack < mount.packs.len() && live[pack].saturating_mul(2) >= list.packs[pack]
        };
        let packs = list.packs.iter().enumerate();
        walk.packs.extend(packs.map(|(at, size)| (*size, mount.packs.get(at).cloned())));
        for file in &list.files {
            let FileKind::File { pieces, .. } = &file.kind else { continue };
            let kept = pieces.iter().filter(|piece| is_kept(piece.pack));
            walk.known.extend(
                kept.map(|piece| ((piece.hash.clone(), piece.size), (piece.pack, piece.offset))),
            );
            if pieces.iter().all(|piece| is_kept(piece.pack)) {
                walk.before.insert(&file.path, file);
            }
        }
        walk
    }

    fn directory(&mut self, directory: &Dir, prefix: &str, depth: usize) -> Result<(), MountError> {
        if depth > DEPTH_MAX {
            return Err(MountError::TooLarge(format!("`{prefix}` lies too deep")));
        }
        for name in directory.names().map_err(refused("list", prefix))? {
            // What is no text, or no path of an archive, stays here.
            let Ok(text) = std::str::from_utf8(&name) else { continue };
            let path = if prefix.is_empty() { text.to_owned() } else { format!("{prefix}/{text}") };
            if EntryPath::parse(path.as_bytes()).is_err() {
                continue;
            }
            let Some(object) = directory.stat(&name).map_err(refused("look at", &path))? else {
                continue;
            };
            let kind = match object.kind {
                ObjectKind::Directory => FileKind::Directory,
                ObjectKind::Symlink => {
                    let target = directory.read_link(&name).map_err(refused("read", &path))?;
                    let Ok(target) = String::from_utf8(target) else { continue };
                    FileKind::Symlink { target }
                }
                ObjectKind::File => FileKind::File { size: object.size, pieces: Vec::new() },
                _ => continue,
            };
            let is_directory = kind == FileKind::Directory;
            let file = File {
                path: path.clone(),
                mode: object.mode & 0o7777,
                uid: object.uid,
                gid: object.gid,
                mtime: (object.mtime.seconds, object.mtime.nanoseconds),
                kind,
            };
            self.file(directory, &name, file)?;
            if is_directory {
                let below = directory.subdir(&name).map_err(refused("open", &path))?;
                self.directory(&below, &path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Adds a file, with its pieces.
    fn file(&mut self, directory: &Dir, name: &[u8], mut file: File) -> Result<(), MountError> {
        let FileKind::File { size, .. } = file.kind else {
            self.files.push(file);
            return Ok(());
        };
        if let Some(before) = self.before.get(file.path.as_str())
            && before.mtime == file.mtime
            && let FileKind::File { size: earlier, pieces } = &before.kind
            && *earlier == size
        {
            file.kind = FileKind::File { size, pieces: pieces.clone() };
        } else {
            let mut open = directory.open_file(name).map_err(refused("open", &file.path))?;
            if self.holds_secret(&mut open).map_err(failed("read", &file.path))? {
                self.left_out.push(file.path);
                return Ok(());
            }
            open.seek(SeekFrom::Start(0)).map_err(failed("read", &file.path))?;
            let pieces = self.pieces(&mut open, &file.path)?;
            let size = pieces.iter().map(|piece| piece.size).sum();
            file.kind = FileKind::File { size, pieces };
        }
        self.all_bytes = self.all_bytes.saturating_add(size);
        if self.all_bytes > FILES_BYTES_MAX {
            return Err(MountError::TooLarge(format!("more than {FILES_BYTES_MAX} bytes")));
        }
        self.files.push(file);
        Ok(())
    }

    /// Says whether a secret of the build stands in a file.
    fn holds_secret(&self, file: &mut impl Read) -> io::Result<bool> {
        let wanted: Vec<&[u8]> = self
            .gathering
            .secrets
            .iter()
            .map(|secret| secret.trim_ascii())
            .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
            .collect();
        let Some(longest) = wanted.iter().map(|secret| secret.len()).max() else {
            return Ok(false);
        };
        let mut window = Vec::new();
        loop {
            let kept = window.len().min(longest - 1);
            window.drain(..window.len() - kept);
            if file.by_ref().take(PIECE_BYTES).read_to_end(&mut window)? == 0 {
                return Ok(false);
            }
            if wanted.iter().any(|secret| contains(&window, secret)) {
                return Ok(true);
            }
        }
    }

    /// Reads the pieces of a file, and packs those that no pack has.
    fn pieces(&mut self, file: &mut impl Read, path: &str) -> Result<Vec<Piece>, MountError> {
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        loop {
            bytes.clear();
            let read = file.by_ref().take(PIECE_BYTES).read_to_end(&mut bytes);
            if read.map_err(failed("read", path))? == 0 {
                return Ok(pieces);
            }
            let (hash, size) = (blake3::hash(&bytes).to_hex().to_string(), bytes.len() as u64);
            let place = (hash.clone(), size);
            let (pack, offset) = match self.known.get(&place) {
                Some(known) => *known,
                None => {
                    let packed = self.pack(&bytes)?;
                    *self.known.entry(place).or_insert(packed)
                }
            };
            pieces.push(Piece { hash, size, pack, offset });
        }
    }

    /// Writes a piece into the pack that is open, and returns where it is.
    fn pack(&mut self, bytes: &[u8]) -> Result<(usize, u64), MountError> {
        let mut pack = match self.open.take() {
            Some(pack) => pack,
            None => self.begin()?,
        };
        let offset = pack.bytes;
        let write = |source| MountError::Blob { doing: "write a pack", source };
        pack.encoder.write_all(bytes).map_err(write)?;
        pack.bytes += bytes.len() as u64;
        self.new_bytes += bytes.len() as u64;
        let at = self.packs.len();
        let is_full = pack.bytes >= PACK_BYTES;
        self.open = Some(pack);
        if is_full {
            self.close()?;
        }
        Ok((at, offset))
    }

    fn begin(&self) -> Result<Pack, MountError> {
        if self.packs.len() >= PACKS_MAX {
            return Err(MountError::TooLarge(format!("more than {PACKS_MAX} packs")));
        }
        let Gathering { root, lease, .. } = self.gathering;
        let ingest = root.store().ingest_blocking(&IngestKey::fleeting(), lease);
        let ingest = ingest.map_err(store("begin a pack"))?;
        let encoder = zstd::stream::write::Encoder::new(ingest, ZSTD_LEVEL);
        let encoder =
            encoder.map_err(|source| MountError::Blob { doing: "begin a pack", source })?;
        Ok(Pack { encoder, bytes: 0 })
    }

    /// Lets the pack land that is open.
    fn close(&mut self) -> Result<(), MountError> {
        let Some(pack) = self.open.take() else { return Ok(()) };
        let write = |source| MountError::Blob { doing: "write a pack", source };
        let ingest = pack.encoder.finish().map_err(write)?;
        let blob = land(ingest, PACK)?;
        self.packs.push((pack.bytes, Some(blob)));
        Ok(())
    }

    /// Writes the list, of the packs that are needed.
    fn finish(mut self, id: &CacheId) -> Result<Gathered, MountError> {
        let mut needed: Vec<usize> = Vec::new();
        for file in &self.files {
            if let FileKind::File { pieces, .. } = &file.kind {
                needed.extend(pieces.iter().map(|piece| piece.pack));
            }
        }
        needed.sort_unstable();
        needed.dedup();
        for file in &mut self.files {
            let FileKind::File { pieces, .. } = &mut file.kind else { continue };
            for piece in pieces {
                piece.pack = needed.binary_search(&piece.pack).unwrap_or_default();
            }
        }
        let missing = || MountError::List("a pack is not there".to_owned());
        let mut packs = Vec::with_capacity(needed.len());
        for at in &needed {
            packs.push(self.packs[*at].1.clone().ok_or_else(missing)?);
        }
        let sizes = needed.iter().map(|at| self.packs[*at].0).collect();
        let list = FileList { version: VERSION, packs: sizes, files: self.files };
        let Gathering { root, lease, now, .. } = self.gathering;
        let mut ingest = root
            .store()
            .ingest_blocking(&IngestKey::fleeting(), lease)
            .map_err(store("begin the list of files"))?;
        let write = |source| MountError::Blob { doing: "write the list of files", source };
        ingest.write_all(&list.to_bytes()).map_err(write)?;
        let files = land(ingest, FILES)?;
        let mount = SharedMount { id: id.clone(), used: *now, files, packs };
        Ok(Gathered { mount, left_out: self.left_out, new_bytes: self.new_bytes })
    }
}

/// Lets a blob land.
fn land(ingest: Ingest, media_type: &'static str) -> Result<Descriptor, MountError> {
    let landed = ingest.commit_blocking(&Expected::any()).map_err(store("store a blob"))?;
    let (Landed::New(blob) | Landed::AlreadyPresent(blob)) = landed;
    Ok(Descriptor::new(MediaType::new(media_type), blob.digest, blob.size))
}

fn store(doing: &'static str) -> impl Fn(StoreError) -> MountError {
    move |source| MountError::Store { doing, source }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
