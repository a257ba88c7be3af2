//! Writing a layer of ours again: the same entries, with other times.

use std::io::{BufReader, Read, Write};

use thiserror::Error;

use super::tar::TarError;
use super::whiteout::{self, Meaning, WhiteoutError};
use super::{Archive, LayerWriter, Limits, WriteError, WriteOptions, Written};
use crate::contents::Table;

const READ_BYTES: usize = 256 << 10;

/// Why a layer cannot be written again.
#[derive(Debug, Error)]
pub enum RewriteError {
    /// Its archive cannot be read.
    #[error("cannot read the layer's archive")]
    Read(#[from] TarError),
    /// It has a whiteout that means nothing.
    #[error("cannot read a whiteout of the layer")]
    Whiteout(#[from] WhiteoutError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes the entries of an archive of ours, not packed, with the times that `options` say.
///
/// # Errors
/// Fails if the archive is damaged or none of ours, and if the sink fails.
pub fn rewrite<W: Write>(
    archive: impl Read,
    sink: W,
    options: WriteOptions,
) -> Result<(W, Written, Option<Table>), RewriteError> {
    let buffered = BufReader::with_capacity(READ_BYTES, archive);
    let mut archive = Archive::new(buffered, Limits::default());
    let mut writer = LayerWriter::new(sink, options);
    while let Some(entry) = archive.next_entry()? {
        if let Meaning::Entry(entry) = whiteout::interpret(entry)? {
            writer.append(entry, &mut archive.content())?;
        }
    }
    Ok(writer.finish_with_table()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::testing::path;
    use crate::layer::{ContentTimes, Entry, Kind, Mtime, Restamp};

    fn entries() -> Vec<(Entry, &'static str)> {
        let at = |name: &str, kind, seconds| {
            let mut entry = Entry::new(path(name), kind, 0o755);
            entry.mtime = Mtime::from_seconds(seconds);
            entry
        };
        let mut file = at("d/b", Kind::File, 1002);
        file.size = 4;
        file.xattrs.insert(b"user.x".to_vec(), b"1".to_vec());
        vec![
            (at("d", Kind::Directory, 1003), ""),
            (at("d", Kind::OpaqueWhiteout, 7), ""),
            (at("d/gone", Kind::Whiteout, 7), ""),
            (file, "body"),
            (at("d/c", Kind::HardLink { target: path("d/b") }, 1002), ""),
            (at("old", Kind::Symlink { target: b"t".to_vec() }, 3), ""),
            (at("soon", Kind::Directory, 9000), ""),
        ]
    }

    fn write(restamp: Restamp) -> (Vec<u8>, Written) {
        let times = ContentTimes::Outside(1000..=1010);
        let mut writer = LayerWriter::new(Vec::new(), WriteOptions { times, restamp });
        for (entry, content) in entries() {
            writer.append(entry, &mut content.as_bytes()).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn a_layer_written_again_is_what_its_step_would_have_made() {
        let policies = [Restamp::AS_MADE, Restamp::epoch(500), Restamp::epoch(2)];
        for from in policies {
            let (archive, written) = write(from);
            for to in [Restamp::epoch(500), Restamp::epoch(2), Restamp::epoch(100_000)] {
                let times = ContentTimes::Noted(written.chosen.clone());
                let options = WriteOptions { times, restamp: to };
                let (again, rewritten, _) =
                    rewrite(archive.as_slice(), Vec::new(), options).unwrap();
                assert_eq!((again, rewritten), write(to), "{from:?} {to:?}");
            }
        }
    }
}
