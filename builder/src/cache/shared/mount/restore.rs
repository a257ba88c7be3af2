//! Laying out a cache mount that another machine left.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use boatyard_oci::Descriptor;

use super::{File, FileKind, FileList, MountError, Piece, SharedMount, failed, refused};
use crate::layer::EntryPath;
use crate::layer::dir::Dir;

const BUFFER_BYTES: usize = 256 << 10;

/// A piece that a pack is read for.
struct Wanted<'a> {
    file: &'a File,
    piece: &'a Piece,
    /// Where it lies in the file.
    at: u64,
}

impl SharedMount {
    /// Lays the files out in an empty directory. `open` returns a blob's file. Where it fails, the
    /// directory is empty again.
    ///
    /// # Errors
    /// Where a blob cannot be had or is not what it should be, or the file system refuses.
    pub fn lay_out(
        &self,
        into: &Path,
        open: &mut dyn FnMut(&Descriptor) -> Result<fs::File, MountError>,
    ) -> Result<(), MountError> {
        let top = Dir::open(into).map_err(refused("open", "."))?;
        let laid = self.lay_out_in(&top, open);
        if laid.is_err() {
            top.remove_content().map_err(refused("empty", "."))?;
        }
        laid
    }

    fn lay_out_in(
        &self,
        top: &Dir,
        open: &mut dyn FnMut(&Descriptor) -> Result<fs::File, MountError>,
    ) -> Result<(), MountError> {
        let mut bytes = Vec::new();
        let read = |source| MountError::Blob { doing: "read the list of files", source };
        open(&self.files)?.read_to_end(&mut bytes).map_err(read)?;
        let list = FileList::from_bytes(&bytes)?;
        if list.packs.len() != self.packs.len() {
            return Err(MountError::List("its packs are not those of the ledger".to_owned()));
        }
        list.files.iter().try_for_each(|file| make(top, file))?;
        let mut wanted: Vec<Vec<Wanted<'_>>> = self.packs.iter().map(|_| Vec::new()).collect();
        for file in &list.files {
            let FileKind::File { pieces, .. } = &file.kind else { continue };
            let mut at = 0;
            for piece in pieces {
                wanted[piece.pack].push(Wanted { file, piece, at });
                at += piece.size;
            }
        }
        for (pack, mut wanted) in self.packs.iter().zip(wanted) {
            wanted.sort_by_key(|wanted| wanted.piece.offset);
            unpack(top, open(pack)?, &wanted)?;
        }
        // From the bottom, for what is made in a directory changes its time.
        list.files.iter().rev().try_for_each(|file| finish(top, file))
    }
}

/// Makes a file, with nothing in it.
fn make(top: &Dir, file: &File) -> Result<(), MountError> {
    let (directory, name) = place(top, file)?;
    let made = match &file.kind {
        FileKind::Directory => directory.make_dir(&name),
        FileKind::Symlink { target } => directory.make_symlink(&name, target.as_bytes()),
        FileKind::File { .. } => directory.create_file(&name).map(drop),
    };
    made.map_err(refused("make", &file.path))
}

/// Gives a file its owner, mode and time.
fn finish(top: &Dir, file: &File) -> Result<(), MountError> {
    let refused = refused("finish", &file.path);
    let (directory, name) = place(top, file)?;
    directory.set_owner(&name, file.uid, file.gid).map_err(&refused)?;
    if !matches!(file.kind, FileKind::Symlink { .. }) {
        directory.set_mode(&name, file.mode).map_err(&refused)?;
    }
    directory.set_mtime(&name, file.mtime()).map_err(&refused)
}

/// Returns the directory of a file, and its name there. No path leads out of the cache.
fn place(top: &Dir, file: &File) -> Result<(Dir, Vec<u8>), MountError> {
    let wrong = || MountError::List(format!("`{}` is no path", file.path.escape_debug()));
    let path = EntryPath::parse(file.path.as_bytes()).map_err(|_| wrong())?;
    let name = path.name().ok_or_else(wrong)?.to_vec();
    let parent = &path.as_bytes()[..path.as_bytes().len() - name.len()];
    let parent = EntryPath::parse(parent).map_err(|_| wrong())?;
    Ok((top.descend(&parent).map_err(refused("open the directory of", &file.path))?, name))
}

/// Reads a pack from its beginning, and writes the pieces where they belong.
fn unpack(top: &Dir, pack: fs::File, wanted: &[Wanted<'_>]) -> Result<(), MountError> {
    let damaged = |source| MountError::Blob { doing: "unpack a pack", source };
    let mut plain = zstd::stream::read::Decoder::new(pack).map_err(damaged)?;
    let (mut at, mut piece_bytes) = (0_u64, Vec::new());
    let mut last: Option<(u64, u64)> = None;
    for Wanted { file, piece, at: begins } in wanted {
        // Files that are the same share a piece.
        if last != Some((piece.offset, piece.size)) {
            let Some(skipped) = piece.offset.checked_sub(at) else {
                return Err(MountError::List("its pieces overlap".to_owned()));
            };
            skip(&mut plain, skipped).map_err(damaged)?;
            piece_bytes.clear();
            let read = (&mut plain).take(piece.size).read_to_end(&mut piece_bytes);
            if read.map_err(damaged)? as u64 != piece.size {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            if blake3::hash(&piece_bytes).to_hex().as_str() != piece.hash {
                return Err(MountError::List("a piece is not what its hash says".to_owned()));
            }
            at = piece.offset + piece.size;
            last = Some((piece.offset, piece.size));
        }
        let (directory, name) = place(top, file)?;
        let open = directory.open_to_write(&name).map_err(refused("open", &file.path))?;
        open.write_all_at(&piece_bytes, *begins).map_err(failed("write", &file.path))?;
    }
    Ok(())
}

fn skip(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    let mut buffer = vec![0; BUFFER_BYTES];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    Ok(())
}
