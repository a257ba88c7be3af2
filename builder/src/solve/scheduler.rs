//! Which stages run when: all that can, at once.
//!
//! Stages are taken up in the order of the Dockerfile, each on a thread. One waits for another
//! where it needs it and not before: at its FROM, or at the COPY that copies from it. A stage needs
//! earlier ones only, and those were taken up before it, so however few threads there are, nobody
//! waits for a stage that nobody builds.
//!
//! The first failure ends the build and is the one that is reported: what runs elsewhere is
//! cancelled, and what waits stops waiting. Nothing is left running when [`run`] returns.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::build::BuildError;
use crate::execute::CancelHandle;
use crate::plan::{Plan, PlannedStage};
use crate::stage::StageState;

/// The stages that may be under way at once, most of them waiting for others.
const STAGES_AT_ONCE_MAX: usize = 32;

/// The build was ended by a failure elsewhere, or by somebody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// The stages of a build while it runs.
#[derive(Debug)]
pub(crate) struct Stages {
    cancel: CancelHandle,
    board: Mutex<Board>,
    changed: Condvar,
    stopped: AtomicBool,
    /// Stages go on that need none that failed.
    goes_on: bool,
}

#[derive(Debug, Default)]
struct Board {
    built: HashMap<usize, StageState>,
    failed: HashSet<usize>,
    failure: Option<BuildError>,
}

impl Stages {
    /// Waits until a stage is built, and returns its state.
    pub(crate) fn wait(&self, index: usize) -> Result<StageState, Stopped> {
        let mut board = self.board();
        loop {
            if let Some(state) = board.built.get(&index) {
                return Ok(state.clone());
            }
            if self.is_stopped() || board.failed.contains(&index) {
                return Err(Stopped);
            }
            board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says whether the build has failed, or was cancelled.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, index: usize, result: Result<StageState, BuildError>) {
        let mut board = self.board();
        match result {
            Ok(state) => drop(board.built.insert(index, state)),
            Err(failure) => {
                board.failure.get_or_insert(failure);
                board.failed.insert(index);
                if !self.goes_on {
                    self.stop();
                }
            }
        }
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.cancel.cancel();
    }
}

/// Ends the build where a stage panics: the others must not wait for it.
struct Panicking<'a>(&'a Stages);

impl Drop for Panicking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
            self.0.changed.notify_all();
        }
    }
}

/// Builds the stages of a plan, and returns the target's state. A failure uses up `cancel`, unless
/// others go on.
///
/// # Errors
/// The first failure of a stage.
pub(crate) fn run(
    plan: &Plan,
    cancel: &CancelHandle,
    goes_on: bool,
    build: impl Fn(&PlannedStage, &Stages) -> Result<StageState, BuildError> + Sync,
) -> Result<StageState, BuildError> {
    let stages = Stages {
        cancel: cancel.clone(),
        board: Mutex::default(),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
        goes_on,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let _panicking = Panicking(&stages);
        while let Some(stage) = plan.stages.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stages.is_stopped() {
                break;
            }
            stages.end(stage.index, build(stage, &stages));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..plan.stages.len().min(STAGES_AT_ONCE_MAX) {
            scope.spawn(work);
        }
        work();
    });
    let board = stages.board.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Board { mut built, failure, .. } = board;
    match (failure, plan.stages.last().and_then(|target| built.remove(&target.index))) {
        (None, Some(state)) => Ok(state),
        (failure, _) => Err(failure.unwrap_or(BuildError::Cancelled)),
    }
}

/// How much is done at once: each step that works has a permit, and none that waits.
#[derive(Debug)]
pub(crate) struct Cores {
    free: Mutex<usize>,
    given: Condvar,
}

/// The right to work. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Cores);

impl Cores {
    /// Returns permits for this many steps.
    pub(crate) fn new(count: usize) -> Cores {
        Cores { free: Mutex::new(count), given: Condvar::new() }
    }

    /// Waits for a permit.
    pub(crate) fn take(&self) -> Permit<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.given.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given.notify_one();
    }
}
