//! Reading a blob again, from the disk.

use std::io::{self, Read as _};

use boatyard_oci::{Digest, Hasher};
use rustix::fs::{Advice, fadvise};

use super::Onlooker;
use crate::local::Root;
use crate::store::FileIdentity;

/// How much is read at once.
const BUFFER_LEN: usize = 1 << 20;

/// What came of reading a blob.
#[derive(Debug)]
pub(super) enum Reading {
    /// Its bytes are what its name says.
    Whole,
    /// They are not: what they are is `None` where they cannot be read.
    Wrong {
        /// The digest of what is there.
        got: Option<Digest>,
        /// Which file it was.
        file: FileIdentity,
        /// How long that is.
        size: u64,
    },
    /// It is not there: the collector took it.
    Gone,
    /// It is there, and nobody may open it.
    Closed,
    /// It was not read to its end.
    Stopped,
}

/// Reads and hashes a blob.
pub(super) fn read(root: &Root, digest: &Digest, onlooker: &mut dyn Onlooker) -> Reading {
    let blob = match root.store().open_blocking(digest) {
        Ok(Some(blob)) => blob,
        Ok(None) => return Reading::Gone,
        Err(_) => return Reading::Closed,
    };
    let (file, size) = (blob.identity(), blob.size());
    // What is in memory says nothing of what is on the disk; and a check is not to fill the memory
    // with what nobody asked for. Where the kernel will not, the check is as good as its memory.
    let _ = fadvise(blob.file(), 0, None, Advice::DontNeed);
    let hashed = hash(blob.file(), digest, onlooker);
    let _ = fadvise(blob.file(), 0, None, Advice::DontNeed);
    match hashed {
        Ok(Some(got)) if got == *digest => Reading::Whole,
        Ok(None) => Reading::Stopped,
        Ok(got) => Reading::Wrong { got, file, size },
        Err(_) => Reading::Wrong { got: None, file, size },
    }
}

fn hash(
    mut file: &std::fs::File,
    digest: &Digest,
    onlooker: &mut dyn Onlooker,
) -> io::Result<Option<Digest>> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                onlooker.read(read as u64);
                if !onlooker.goes_on() {
                    return Ok(None);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
