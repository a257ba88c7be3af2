//! What every mode is: a machine that turns events into bytes.

use std::time::{Duration, Instant};

use boatyard_builder::progress::{FailedCommand, StepEnd, StepId, Stream};
use jiff::Timestamp;

use super::Summary;

/// What a build told: the calls of `Progress`, as values.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step begins.
    Begin { step: StepId, name: &'a str },
    /// A step wrote something.
    Output { step: StepId, stream: Stream, bytes: &'a [u8] },
    /// A step says what it is doing.
    Status { step: StepId, text: &'a str },
    /// The command of a step failed.
    Failed { step: StepId, command: &'a FailedCommand },
    /// A step ended.
    End { step: StepId, end: &'a StepEnd, took: Duration },
    /// Something should be known.
    Warning { text: &'a str },
}

/// When something happened.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time since the build began; never goes back.
    pub elapsed: Duration,
    /// The time of day.
    pub wall: Timestamp,
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Returns this moment.
    fn now(&self) -> Moment;
}

/// The clock of the system.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
}

impl SystemClock {
    /// Returns a clock by which the build begins now.
    pub fn start() -> SystemClock {
        SystemClock { began: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment { elapsed: self.began.elapsed(), wall: Timestamp::now() }
    }
}

/// Turns what a build tells into bytes for standard error, appended to `out`.
///
/// One thread at a time calls it. [`tell`](Renderer::tell) and [`tick`](Renderer::tick) come in
/// any order, with moments that never go back; [`finish`](Renderer::finish) comes once, last.
/// Events of steps that did not begin, or ended already, are no error and may be dropped.
pub trait Renderer: Send {
    /// Takes an event. What is appended is written by the thread that told it, so a mode that
    /// must not block the build appends nothing here.
    fn tell(&mut self, event: &Event<'_>, now: Moment, out: &mut Vec<u8>);

    /// Takes note that time went by; called about ten times a second if [`Renderer::ticks`].
    fn tick(&mut self, _now: Moment, _out: &mut Vec<u8>) {}

    /// Returns whether time alone changes what is shown.
    fn ticks(&self) -> bool {
        false
    }

    /// Prints what is left. Without a summary the build was abandoned, as by a panic.
    fn finish(&mut self, summary: Option<&Summary>, now: Moment, out: &mut Vec<u8>);
}

#[cfg(test)]
pub mod testing {
    //! A renderer and its time, for stories.

    use super::*;

    /// Drives a renderer by hand: each call says when it happens, in milliseconds.
    pub struct Stage<R> {
        pub renderer: R,
        pub out: Vec<u8>,
    }

    /// Returns the moment so many milliseconds after the beginning, which was at noon.
    pub fn moment(ms: u64) -> Moment {
        let noon: Timestamp = "2024-05-01T12:00:00Z".parse().unwrap();
        let elapsed = Duration::from_millis(ms);
        Moment { elapsed, wall: noon + elapsed }
    }

    impl<R: Renderer> Stage<R> {
        pub fn new(renderer: R) -> Stage<R> {
            Stage { renderer, out: Vec::new() }
        }

        pub fn tell(&mut self, ms: u64, event: Event<'_>) {
            self.renderer.tell(&event, moment(ms), &mut self.out);
        }

        pub fn begin(&mut self, ms: u64, step: u32, name: &str) {
            self.tell(ms, Event::Begin { step: StepId(step), name });
        }

        pub fn stdout(&mut self, ms: u64, step: u32, bytes: impl AsRef<[u8]>) {
            let (stream, bytes) = (Stream::Stdout, bytes.as_ref());
            self.tell(ms, Event::Output { step: StepId(step), stream, bytes });
        }

        pub fn stderr(&mut self, ms: u64, step: u32, bytes: impl AsRef<[u8]>) {
            let (stream, bytes) = (Stream::Stderr, bytes.as_ref());
            self.tell(ms, Event::Output { step: StepId(step), stream, bytes });
        }

        pub fn status(&mut self, ms: u64, step: u32, text: &str) {
            self.tell(ms, Event::Status { step: StepId(step), text });
        }

        /// Ends a step, which took `took_ms`.
        pub fn end(&mut self, ms: u64, step: u32, end: &StepEnd, took_ms: u64) {
            let took = Duration::from_millis(took_ms);
            self.tell(ms, Event::End { step: StepId(step), end, took });
        }

        pub fn tick(&mut self, ms: u64) {
            self.renderer.tick(moment(ms), &mut self.out);
        }

        pub fn finish(&mut self, ms: u64, summary: &Summary) {
            self.renderer.finish(Some(summary), moment(ms), &mut self.out);
        }

        /// Takes what was printed since the last call.
        pub fn printed(&mut self) -> String {
            String::from_utf8(std::mem::take(&mut self.out)).unwrap()
        }
    }

    /// Returns a summary.
    pub fn summary(ending: super::super::Ending, text: &str) -> Summary {
        Summary { ending, text: text.into() }
    }
}
