//! What a pull or push tells while it runs.

use boatyard_oci::{Descriptor, Digest};

/// Told what happens to each blob and manifest. Called from several tasks at once; must not block.
pub trait TransferProgress: Send + Sync {
    /// A blob's turn has come.
    fn started(&self, blob: &Descriptor);

    /// So many further bytes are there. Bytes of an earlier attempt that are used count once, at
    /// its beginning; bytes that turn out useless are counted again.
    fn advanced(&self, digest: &Digest, bytes: u64);

    /// The blob is where it should be.
    fn finished(&self, digest: &Digest, outcome: Outcome);
}

/// How a blob came to where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its bytes were sent.
    Transferred,
    /// It was there.
    AlreadyThere,
    /// The registry took it from another repository of its own.
    Mounted,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl TransferProgress for NoProgress {
    fn started(&self, _blob: &Descriptor) {}
    fn advanced(&self, _digest: &Digest, _bytes: u64) {}
    fn finished(&self, _digest: &Digest, _outcome: Outcome) {}
}
