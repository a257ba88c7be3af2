//! The signals that `boatyard run` gets are meant for the command.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use boatyard_builder::execute::CancelHandle;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::report::{Context as _, Result};
use crate::terminal;

/// Who asks so often wants the command to end, whatever it makes of the signals.
const REQUESTS_MAX: u32 = 3;

/// What is passed on, and whether it asks for the command's end.
const FORWARDED: [(Signal, bool); 6] = [
    (Signal::INT, true),
    (Signal::TERM, true),
    (Signal::HUP, false),
    (Signal::QUIT, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
];

/// Passes signals on, once it is told to whom.
pub(super) struct Forward {
    command: Arc<OnceLock<OwnedFd>>,
    terminal: Arc<OnceLock<Arc<OwnedFd>>>,
}

impl Forward {
    /// Begins with the first process of the command.
    pub(super) fn begin(&self, first_process: OwnedFd) {
        let _ = self.command.set(first_process);
    }

    /// Keeps a command's terminal as large as ours.
    pub(super) fn resize(&self, far: Arc<OwnedFd>) {
        let _ = self.terminal.set(far);
    }
}

/// Begins to wait for signals. What comes before there is a command ends it before it starts.
pub(super) fn forward(runtime: &Runtime, cancel: &CancelHandle) -> Result<Forward> {
    let target = Arc::new(OnceLock::<OwnedFd>::new());
    let _inside = runtime.enter();
    for (number, asks_to_end) in FORWARDED {
        let kind = SignalKind::from_raw(number.as_raw());
        let mut signals = signal(kind).context("cannot wait for signals")?;
        let (target, cancel) = (Arc::clone(&target), cancel.clone());
        runtime.spawn(async move {
            let mut requests = 0;
            while signals.recv().await.is_some() {
                requests += u32::from(asks_to_end);
                match target.get() {
                    // It may have ended meanwhile.
                    Some(process) if requests < REQUESTS_MAX => {
                        let _ = pidfd_send_signal(process, number);
                    }
                    _ => cancel.cancel(),
                }
            }
        });
    }
    let terminal = Arc::new(OnceLock::<Arc<OwnedFd>>::new());
    let mut resized = signal(SignalKind::window_change()).context("cannot wait for signals")?;
    let resizing = Arc::clone(&terminal);
    runtime.spawn(async move {
        while resized.recv().await.is_some() {
            resizing.get().into_iter().for_each(|far| terminal::follow_size(far));
        }
    });
    Ok(Forward { command: target, terminal })
}
