//! Hashing a file of a known size.

use std::fs::File;
use std::io::{self, Read as _};

/// Files are read in pieces of at most this size.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Returns the BLAKE3 of a file; `None` if it has not exactly `size` bytes.
pub(super) fn hash_exactly(mut file: &File, size: u64) -> io::Result<Option<[u8; 32]>> {
    let mut hasher = blake3::Hasher::new();
    let capacity = usize::try_from(size.saturating_add(1)).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
    let (mut buffer, mut read) = (vec![0; capacity], 0_u64);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                read += length as u64;
                if read > size {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((read == size).then(|| *hasher.finalize().as_bytes()))
}
