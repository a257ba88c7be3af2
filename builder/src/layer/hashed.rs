//! Content that is hashed while it is read.

use std::io::{self, Read};

/// The bytes of a file, and their BLAKE3 once they were read.
pub trait Content: Read {
    /// Returns the BLAKE3 of what was read so far.
    fn digest(&self) -> [u8; 32];
}

/// Hashes what passes.
pub(crate) struct HashedRead<'a> {
    inner: &'a mut dyn Read,
    hasher: blake3::Hasher,
}

impl<'a> HashedRead<'a> {
    pub(crate) fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, hasher: blake3::Hasher::new() }
    }
}

impl Read for HashedRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl Content for HashedRead<'_> {
    fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// Keeps a copy of what is read.
pub(crate) struct Keeping<'a> {
    inner: &'a mut dyn Content,
    bytes: Vec<u8>,
}

impl<'a> Keeping<'a> {
    pub(crate) fn new(inner: &'a mut dyn Content) -> Self {
        Self { inner, bytes: Vec::new() }
    }

    /// Returns the content itself, of which nothing is kept.
    pub(crate) fn inner(&mut self) -> &mut dyn Content {
        self.inner
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Read for Keeping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

impl Content for Keeping<'_> {
    fn digest(&self) -> [u8; 32] {
        self.inner.digest()
    }
}
