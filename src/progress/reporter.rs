//! The reporter: joins a renderer to a clock, a stream and a thread.
//!
//! Two locks, taken in this order: the renderer's and the stream's. The stream's is taken before
//! the renderer's is let go, so what was rendered first is written first; and the renderer's is
//! free while bytes are written, so a terminal that stands still (Ctrl-S) holds up only those who
//! have something to write. The live view writes from the ticking thread alone.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use boatyard_builder::progress::{FailedCommand, Progress, StepEnd, StepId, Stream};

use super::Summary;
use super::renderer::{Clock, Event, Renderer};

/// How often time alone changes what is shown.
const TICK: Duration = Duration::from_millis(100);

/// Shows one build. Dropped without [`Reporter::finish`] it prints what it still holds.
pub struct Reporter {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    clock: Box<dyn Clock>,
    /// None once the build is finished: what comes later is dropped.
    renderer: Mutex<Option<Box<dyn Renderer>>>,
    /// None once it could not be written to: a closed pipe stops no build.
    out: Mutex<Option<Box<dyn Write + Send>>>,
    finished: Condvar,
}

impl Reporter {
    /// Returns a reporter that writes to `out`.
    pub(super) fn new(
        renderer: Box<dyn Renderer>,
        out: Box<dyn Write + Send>,
        clock: Box<dyn Clock>,
    ) -> Reporter {
        let ticks = renderer.ticks();
        let shared = Arc::new(Shared {
            clock,
            renderer: Mutex::new(Some(renderer)),
            out: Mutex::new(Some(out)),
            finished: Condvar::new(),
        });
        // Without its thread the view is late, not wrong: finish prints everything.
        let ticker = ticks.then(|| spawn_ticker(Arc::clone(&shared))).and_then(Result::ok);
        Reporter { shared, ticker: Mutex::new(ticker) }
    }

    /// Prints what is left, then the summary, and leaves the terminal as it was. What is told
    /// later is dropped, and so is a second summary.
    pub fn finish(&self, summary: &Summary) {
        self.close(Some(summary));
    }

    fn close(&self, summary: Option<&Summary>) {
        let mut renderer = lock(&self.shared.renderer);
        if let Some(mut ended) = renderer.take() {
            let mut bytes = Vec::new();
            ended.finish(summary, self.shared.clock.now(), &mut bytes);
            self.shared.write(renderer, &bytes);
        } else {
            drop(renderer);
        }
        self.shared.finished.notify_all();
        let ticker = lock(&self.ticker).take();
        if let Some(ticker) = ticker {
            // It cannot be told to anyone if it panicked: the panic was printed by its thread.
            let _ = ticker.join();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.close(None);
    }
}

impl Progress for Reporter {
    fn begin(&self, step: StepId, name: &str) {
        self.shared.tell(&Event::Begin { step, name });
    }

    fn output(&self, step: StepId, stream: Stream, bytes: &[u8]) {
        self.shared.tell(&Event::Output { step, stream, bytes });
    }

    fn status(&self, step: StepId, text: &str) {
        self.shared.tell(&Event::Status { step, text });
    }

    fn failed(&self, step: StepId, command: &FailedCommand) {
        self.shared.tell(&Event::Failed { step, command });
    }

    fn end(&self, step: StepId, end: &StepEnd, took: Duration) {
        self.shared.tell(&Event::End { step, end, took });
    }

    fn warning(&self, text: &str) {
        self.shared.tell(&Event::Warning { text });
    }
}

impl Shared {
    fn tell(&self, event: &Event<'_>) {
        let mut renderer = lock(&self.renderer);
        if let Some(active) = renderer.as_mut() {
            let mut bytes = Vec::new();
            // The clock is read under the lock, so that moments never go back.
            active.tell(event, self.clock.now(), &mut bytes);
            self.write(renderer, &bytes);
        }
    }

    /// Writes what was rendered under the lock that is given, and gives the lock back early.
    fn write(&self, rendered: MutexGuard<'_, Option<Box<dyn Renderer>>>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut out = lock(&self.out);
        drop(rendered);
        let written =
            out.as_mut().map_or(Ok(()), |out| out.write_all(bytes).and_then(|()| out.flush()));
        if written.is_err() {
            *out = None;
        }
    }

    /// Ticks until the build is finished.
    fn run_ticker(&self) {
        let mut renderer = lock(&self.renderer);
        while renderer.is_some() {
            let waited = self.finished.wait_timeout(renderer, TICK);
            renderer = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(active) = renderer.as_mut() {
                let mut bytes = Vec::new();
                active.tick(self.clock.now(), &mut bytes);
                self.write(renderer, &bytes);
                renderer = lock(&self.renderer);
            }
        }
    }
}

fn spawn_ticker(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("progress".into()).spawn(move || shared.run_ticker())
}

/// Locks, also after a panic of another thread: what it left is good enough to be shown.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::super::renderer::Moment;
    use super::super::renderer::testing::{moment, summary};
    use super::super::{Ending, plain, tty};
    use super::*;
    use crate::progress::picture::Size;

    /// A clock that stands at the beginning.
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Moment {
            moment(0)
        }
    }

    /// A stream that others can look at.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.0).clone()).unwrap()
        }
    }

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn plain_to(out: Box<dyn Write + Send>) -> Reporter {
        Reporter::new(Box::new(plain::Plain::default()), out, Box::new(Still))
    }

    #[test]
    fn prints_until_it_is_finished() {
        let out = Buffer::default();
        let reporter = plain_to(Box::new(out.clone()));
        reporter.begin(StepId(1), "[1/1] RUN make");
        reporter.end(StepId(1), &StepEnd::Done, Duration::from_millis(1234));
        reporter.finish(&summary(Ending::Done, "built app"));
        reporter.finish(&summary(Ending::Done, "said twice"));
        reporter.begin(StepId(2), "too late");
        assert_eq!(out.text(), "#1 [1/1] RUN make\n#1 DONE 1.2s\n\nbuilt app\n");
    }

    #[test]
    fn prints_what_it_holds_when_it_is_dropped() {
        let out = Buffer::default();
        let reporter = plain_to(Box::new(out.clone()));
        reporter.begin(StepId(1), "[1/1] RUN make");
        reporter.output(StepId(1), Stream::Stdout, b"no newline");
        drop(reporter);
        assert_eq!(out.text(), "#1 [1/1] RUN make\n#1 0.000 no newline\n");
    }

    #[test]
    fn a_closed_pipe_stops_no_build() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let reporter = plain_to(Box::new(Closed));
        reporter.begin(StepId(1), "[1/1] RUN make");
        reporter.output(StepId(1), Stream::Stdout, b"line\n");
        reporter.finish(&summary(Ending::Done, ""));
    }

    #[test]
    fn a_terminal_that_stands_still_does_not_hold_up_the_build() {
        /// Says that it was reached, then waits until it may go on.
        struct Stopped(mpsc::Sender<()>, mpsc::Receiver<()>);
        impl Write for Stopped {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                // An error means that the test let everything go.
                let _ = self.1.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (reached, is_reached) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let view = tty::Tty::new(true, Box::new(|| Size { rows: 24, columns: 80 }));
        let out = Box::new(Stopped(reached, may_go_on));
        let reporter = Reporter::new(Box::new(view), out, Box::new(Still));
        reporter.begin(StepId(1), "[1/1] RUN yes");
        is_reached.recv().unwrap();
        for _ in 0..10_000 {
            reporter.output(StepId(1), Stream::Stdout, b"y\n");
        }
        drop(go_on);
        reporter.finish(&summary(Ending::Done, ""));
    }
}
