//! What a push or pull shows while it runs.

use boatyard_upstream::{NoProgress, TransferProgress};

/// Shows transfers.
pub struct Transfers;

/// Begins to show transfers; quietly, nothing.
pub fn open(_quiet: bool) -> Transfers {
    Transfers
}

impl Transfers {
    /// Returns what the client tells.
    pub fn as_progress(&self) -> &dyn TransferProgress {
        &NoProgress
    }

    /// Ends the show.
    pub fn finish(&self) {}
}
