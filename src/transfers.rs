//! What a pull or push shows while it runs: a bar for each blob on a terminal, a line elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boatyard_oci::{Descriptor, Digest};
use boatyard_upstream::{Outcome, TransferProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;
use crate::report;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this machine.
    Pull,
    /// To a registry.
    Push,
}

/// Shows transfers to a person.
#[derive(Debug)]
pub struct Transfers {
    direction: Direction,
    form: Form,
    blobs: Mutex<HashMap<Digest, Blob>>,
}

#[derive(Debug)]
enum Form {
    Nothing,
    Lines,
    Bars(MultiProgress),
}

#[derive(Debug)]
struct Blob {
    size: u64,
    bar: Option<ProgressBar>,
}

/// Begins to show transfers on standard error; quietly, nothing.
pub fn open(direction: Direction, quiet: bool) -> Transfers {
    let form = match quiet {
        true => Form::Nothing,
        false if std::io::stderr().is_terminal() => Form::Bars(MultiProgress::new()),
        false => Form::Lines,
    };
    Transfers { direction, form, blobs: Mutex::default() }
}

impl Transfers {
    /// Returns what the client tells.
    pub fn as_progress(&self) -> &dyn TransferProgress {
        self
    }

    /// Ends the show; what is on the screen stays there.
    pub fn finish(&self) {
        self.blobs().clear();
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Blob>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a blob came to where it should be.
    fn deed(&self, outcome: Outcome) -> &'static str {
        match (outcome, self.direction) {
            (Outcome::Transferred, Direction::Pull) => "pulled",
            (Outcome::Transferred, Direction::Push) => "pushed",
            (Outcome::AlreadyThere, Direction::Pull) => "already here",
            (Outcome::AlreadyThere, Direction::Push) => "already there",
            (Outcome::Mounted, _) => "mounted from another repository",
        }
    }
}

impl TransferProgress for Transfers {
    fn started(&self, blob: &Descriptor) {
        let bar = match &self.form {
            Form::Bars(bars) => Some(bars.add(bar(blob))),
            Form::Nothing | Form::Lines => None,
        };
        self.blobs().insert(blob.digest.clone(), Blob { size: blob.size, bar });
    }

    fn advanced(&self, digest: &Digest, bytes: u64) {
        if let Some(Blob { bar: Some(bar), .. }) = self.blobs().get(digest) {
            bar.inc(bytes);
        }
    }

    fn finished(&self, digest: &Digest, outcome: Outcome) {
        let blob = self.blobs().remove(digest);
        let deed = self.deed(outcome);
        match (&self.form, blob) {
            (Form::Bars(_), Some(Blob { bar: Some(bar), .. })) => {
                bar.set_style(style("{prefix}  {msg}"));
                bar.finish_with_message(deed);
            }
            (Form::Lines, Some(Blob { size, .. })) => {
                report::note(&format!("{}: {deed}, {}", digest.short(), output::size(size)));
            }
            _ => {}
        }
    }
}

fn bar(blob: &Descriptor) -> ProgressBar {
    ProgressBar::new(blob.size).with_prefix(blob.digest.short().to_owned()).with_style(style(
        "{prefix}  [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
    ))
}

/// The templates are constants that are known to be some.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
