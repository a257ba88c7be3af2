//! Bytes kept beside what was read from them.

use bytes::Bytes;

use crate::digest::Digest;

/// A value together with the exact bytes that it was parsed from and their digest.
///
/// A digest names bytes, not meaning: serialising again would give other bytes. So whoever has to
/// store, push or serve a manifest or a configuration takes [`Raw::bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<T> {
    bytes: Bytes,
    digest: Digest,
    value: T,
}

impl<T> Raw<T> {
    /// Puts together a value, its bytes and the digest under which they are known.
    ///
    /// The caller vouches that `value` was parsed from `bytes` and that `digest` is theirs.
    pub(crate) fn new(bytes: Bytes, digest: Digest, value: T) -> Raw<T> {
        Raw { bytes, digest, value }
    }

    /// Returns the exact bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the digest of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the number of the bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns what was read from them.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Returns what was read from them, by value.
    pub fn into_value(self) -> T {
        self.value
    }
}
