//! What a build tells while it runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::execute::Outcome;

/// Names a step within one build: counted from 1, in the order in which steps begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One of the streams of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It did its work.
    Done,
    /// Its result was at hand.
    Cached,
    /// It was cancelled.
    Cancelled,
    /// It failed; the text is one line for a person.
    Failed(String),
}

/// How the command of a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCommand {
    /// The line of the Dockerfile on which its instruction begins.
    pub line: usize,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote last.
    pub last_lines: Vec<String>,
    /// Where all that it wrote is.
    pub log: Option<PathBuf>,
}

/// Takes what a build tells. Calls come from several threads at once, for different steps.
pub trait Progress: Send + Sync {
    /// A step begins. `name` is as people know it: `[build 2/5] RUN make`.
    fn begin(&self, step: StepId, name: &str);
    /// A step wrote something: bytes as they came, lines may be cut anywhere.
    fn output(&self, step: StepId, stream: Stream, bytes: &[u8]);
    /// A step says what it is doing, such as `unpacking sha256:0123...`.
    fn status(&self, step: StepId, text: &str);
    /// The command of a step failed; the step's end follows.
    fn failed(&self, _step: StepId, _command: &FailedCommand) {}
    /// A step ended, after this time.
    fn end(&self, step: StepId, end: &StepEnd, took: Duration);
    /// Something should be known, but stops nothing; rendered, perhaps with marked lines.
    fn warning(&self, text: &str);
}

/// A failure as the end of a step.
pub trait Ending: fmt::Display {
    /// Returns how the step ended.
    fn ending(&self) -> StepEnd {
        StepEnd::Failed(self.to_string())
    }
}

/// Counts the steps of a build, and tells how each goes.
pub struct Steps<'a> {
    progress: &'a dyn Progress,
    begun: AtomicU32,
}

impl<'a> Steps<'a> {
    /// Returns a counter that stands at zero.
    pub fn new(progress: &'a dyn Progress) -> Steps<'a> {
        Steps { progress, begun: AtomicU32::new(0) }
    }

    /// Does something as a step that people see.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T, E: Ending>(
        &self,
        name: &str,
        work: impl FnOnce(StepId) -> Result<T, E>,
    ) -> Result<T, E> {
        self.solve(name, |step| work(step).map(|value| (value, StepEnd::Done)))
    }

    /// Does something as a step that people see, and that says itself how it ended well.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn solve<T, E: Ending>(
        &self,
        name: &str,
        work: impl FnOnce(StepId) -> Result<(T, StepEnd), E>,
    ) -> Result<T, E> {
        let step = StepId(self.begun.fetch_add(1, Ordering::Relaxed) + 1);
        let began = Instant::now();
        self.progress.begin(step, name);
        let (result, end) = match work(step) {
            Ok((value, end)) => (Ok(value), end),
            Err(error) => {
                let end = error.ending();
                (Err(error), end)
            }
        };
        self.progress.end(step, &end, began.elapsed());
        result
    }

    /// Returns who is told.
    pub fn progress(&self) -> &'a dyn Progress {
        self.progress
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _step: StepId, _name: &str) {}
    fn output(&self, _step: StepId, _stream: Stream, _bytes: &[u8]) {}
    fn status(&self, _step: StepId, _text: &str) {}
    fn end(&self, _step: StepId, _end: &StepEnd, _took: Duration) {}
    fn warning(&self, _text: &str) {}
}
