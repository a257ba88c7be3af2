//! What identifies a stack of layers in a key.
//!
//! ```text
//! "boatyard stack 1\n" "scratch"
//! "boatyard stack 1\n" "image " and the chain ID of the image's configuration
//! "boatyard stack 1\n" "layer " the identity of what lies below (32 bytes)  content ID (32 bytes)
//! ```
//!
//! So no layer is fetched to compute a key, and a step that runs again and yields the same content
//! changes nothing for those above it. The golden vectors below fix the format: where one changes,
//! every cache in the world is lost.

use std::fmt;

use boatyard_oci::ChainId;

use crate::layer::ContentId;

const FORMAT: &[u8] = b"boatyard stack 1\n";

/// Identifies a stack of layers by what it began with and what each step changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StackId([u8; 32]);

impl StackId {
    /// Returns the identity of a stack without layers.
    pub fn scratch() -> StackId {
        StackId::of(&[b"scratch"])
    }

    /// Returns the identity of an image's stack.
    pub fn image(chain: &ChainId) -> StackId {
        StackId::of(&[b"image ", chain.to_string().as_bytes()])
    }

    /// Returns the identity of this stack with a layer on top.
    #[must_use]
    pub fn push(&self, layer: &ContentId) -> StackId {
        StackId::of(&[b"layer ", &self.0, layer.as_bytes()])
    }

    fn of(words: &[&[u8]]) -> StackId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT);
        for word in words {
            hasher.update(word);
        }
        StackId(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for StackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for StackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use boatyard_oci::{DiffId, Digest};

    use super::*;

    fn content(byte: &str) -> ContentId {
        byte.repeat(32).parse().unwrap()
    }

    fn image(bytes: &[u8]) -> StackId {
        let diff_id = DiffId::new(Digest::sha256(bytes));
        StackId::image(&ChainId::of(&[diff_id]).unwrap())
    }

    #[test]
    fn golden_vectors() {
        let ids = [
            StackId::scratch(),
            image(b"a"),
            StackId::scratch().push(&content("ab")),
            image(b"a").push(&content("ab")).push(&content("cd")),
        ];
        let expected = [
            "8b832bef4d66c02b89323fadf63bc932d066cf0ed99d5face202d0cd3d7a5cf5",
            "59ac195c912eac826b7487e6afd69018814c306839bbf68a93be80b215e68dc2",
            "a22421c7c6725fbffb61f1d72a9ac9df8d7469b6642b8ad9b1d3ebb80ef5b8d2",
            "58a0997632716bcd049b7e322b2fc68be62ecb8c6548369b0918ae67856ff2fc",
        ];
        assert_eq!(ids.map(|id| id.to_string()), expected);
    }

    #[test]
    fn order_counts_and_so_does_the_ground() {
        let scratch = StackId::scratch();
        let (one, two) = (content("01"), content("02"));
        assert_ne!(scratch.push(&one).push(&two), scratch.push(&two).push(&one));
        assert_ne!(scratch.push(&one), image(b"a").push(&one));
        assert_ne!(image(b"a"), image(b"b"));
    }
}
