//! Diff IDs and chain IDs: the identities of a layer's content and of a stack of layers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

/// The digest of a layer's *uncompressed* tar.
///
/// > "A layer DiffID is the digest over the layer's uncompressed tar archive" (image-spec,
/// > config.md). Not the digest of the blob, unless the blob is not compressed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(Digest);

impl DiffId {
    /// Says that `digest` is that of an uncompressed tar.
    pub fn new(digest: Digest) -> DiffId {
        DiffId(digest)
    }

    /// Returns the digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DiffId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(DiffId)
    }
}

/// The identity of a stack of layers, bottom first.
///
/// > `ChainID(L₀) = DiffID(L₀)`, `ChainID(L₀|...|Lₙ) = Digest(ChainID(L₀|...|Lₙ₋₁) + " " +
/// > DiffID(Lₙ))` (image-spec, config.md, "Layer ChainID").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(Digest);

impl ChainId {
    /// Returns the chain ID of `layers`, or `None` where there are none.
    pub fn of(layers: &[DiffId]) -> Option<ChainId> {
        let (first, rest) = layers.split_first()?;
        Some(rest.iter().fold(ChainId(first.0.clone()), |chain, layer| chain.push(layer)))
    }

    /// Returns the chain ID of this stack with `layer` put on top.
    #[must_use]
    pub fn push(&self, layer: &DiffId) -> ChainId {
        ChainId(Digest::sha256(format!("{} {layer}", self.0).as_bytes()))
    }

    /// Returns the digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_as_the_specification_says() {
        let a = DiffId::new(Digest::sha256(b"a"));
        let b = DiffId::new(Digest::sha256(b"b"));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(std::slice::from_ref(&a)).unwrap().digest(), a.digest());
        let expected = Digest::sha256(format!("{a} {b}").as_bytes());
        assert_eq!(ChainId::of(&[a, b]).unwrap().digest(), &expected);
    }
}
