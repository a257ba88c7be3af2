//! Lines for a log, as `docker build --progress=plain` prints them.
//!
//! ```text
//! #5 [build 2/4] RUN make
//! #5 0.123 cc -c main.c
//! #5 ...
//!
//! #6 [assets 2/2] RUN npm ci
//! #6 CACHED
//!
//! #5 [build 2/4] RUN make
//! #5 1.830 ld main.o
//! #5 DONE 1.9s
//! ```
//!
//! A line has the time since its step began. Steps that run at once take turns: what one says
//! during another's turn is held until that one ends, falls silent, or has had its time; so a log
//! of two noisy steps can be read. The end of a step is printed at once.

use std::collections::BTreeMap;
use std::time::Duration;

use boatyard_builder::progress::{StepEnd, StepId};

use super::Summary;
use super::log::{Controls, FailedLog, StepLog};
use super::renderer::{Event, Moment, Renderer};
use super::text;

/// How long a step that has something to say waits for another one that keeps talking.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this time without a word the turn is anybody's.
const SILENCE: Duration = Duration::from_millis(500);
/// How many bytes a step can hold back before it is given the turn.
const HELD_MAX: usize = 64 * 1024;

/// Renders lines for a log.
#[derive(Debug, Default)]
pub struct Plain {
    running: BTreeMap<StepId, Step>,
    failed: Vec<FailedLog>,
    /// Whose turn it is.
    current: Option<StepId>,
    /// When the current step last said something.
    spoke: Duration,
    /// Something was printed, so the next step is set off by an empty line.
    printed: bool,
}

#[derive(Debug)]
struct Step {
    name: String,
    began: Duration,
    log: StepLog,
    status: String,
    /// Lines that wait for the step's turn.
    held: Vec<u8>,
    /// Since when it has something to say: lines, or that it began.
    waits_since: Option<Duration>,
}

impl Renderer for Plain {
    fn tell(&mut self, event: &Event<'_>, now: Moment, out: &mut Vec<u8>) {
        let now = now.elapsed;
        match *event {
            Event::Begin { step, name } => self.begin(step, name, now),
            Event::Output { step, stream, bytes } => self.with(step, now, |running, held| {
                let at = now.saturating_sub(running.began);
                let each = &mut |line: &[u8]| push_line(held, step, at, line);
                running.log.push(stream, bytes, at, each);
            }),
            Event::Status { step, text } => self.with(step, now, |running, held| {
                let text = text::one_line(text);
                if running.status != text {
                    push(held, format_args!("{step} {text}\n"));
                    running.status = text;
                }
            }),
            Event::Failed { .. } => {}
            Event::End { step, end, took } => self.end(step, end, took, now, out),
            Event::Warning { text } => {
                push(out, format_args!("{}\n", text.trim_end()));
                self.printed = true;
            }
        }
        self.take_turns(now, out);
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<u8>) {
        self.take_turns(now.elapsed, out);
    }

    fn ticks(&self) -> bool {
        true
    }

    fn finish(&mut self, summary: Option<&Summary>, now: Moment, out: &mut Vec<u8>) {
        let running: Vec<StepId> = self.running.keys().copied().collect();
        for step in running {
            self.close_log(step, now.elapsed);
            if self.running[&step].waits_since.is_some() {
                self.show(step, now.elapsed, out);
            }
        }
        for failed in &self.failed {
            failed.print(Controls::Kept, out);
        }
        if let Some(Summary { text, .. }) = summary
            && !text.is_empty()
        {
            let gap = if self.printed { "\n" } else { "" };
            push(out, format_args!("{gap}{}\n", text.trim_end()));
        }
    }
}

impl Plain {
    fn begin(&mut self, step: StepId, name: &str, now: Duration) {
        let begun = Step {
            name: text::one_line(name),
            began: now,
            log: StepLog::default(),
            status: String::new(),
            held: Vec::new(),
            waits_since: Some(now),
        };
        self.running.insert(step, begun);
    }

    /// Lets a step that runs say something: what `say` appends is held for its turn.
    fn with(&mut self, step: StepId, now: Duration, say: impl FnOnce(&mut Step, &mut Vec<u8>)) {
        if let Some(running) = self.running.get_mut(&step) {
            let mut held = std::mem::take(&mut running.held);
            say(running, &mut held);
            if !held.is_empty() {
                running.waits_since.get_or_insert(now);
            }
            running.held = held;
        }
    }

    /// Adds the lines that have no end.
    fn close_log(&mut self, step: StepId, now: Duration) {
        self.with(step, now, |running, held| {
            let at = now.saturating_sub(running.began);
            running.log.close(at, &mut |line| push_line(held, step, at, line));
        });
    }

    fn end(
        &mut self,
        step: StepId,
        end: &StepEnd,
        took: Duration,
        now: Duration,
        out: &mut Vec<u8>,
    ) {
        self.close_log(step, now);
        self.with(step, now, |_, held| match end {
            StepEnd::Done => push(held, format_args!("{step} DONE {}\n", text::took(took))),
            StepEnd::Cached => push(held, format_args!("{step} CACHED\n")),
            StepEnd::Cancelled => push(held, format_args!("{step} CANCELED\n")),
            StepEnd::Failed(error) => {
                push(held, format_args!("{step} ERROR: {}\n", text::one_line(error)));
            }
        });
        self.show(step, now, out);
        let Some(ended) = self.running.remove(&step) else { return };
        self.current = None;
        if matches!(end, StepEnd::Failed(_)) {
            self.failed.push(ended.log.into_failed(&ended.name));
        }
    }

    /// Prints what the current step says, then what others have waited to say for too long.
    fn take_turns(&mut self, now: Duration, out: &mut Vec<u8>) {
        if let Some(current) = self.current
            && self.running.get(&current).is_some_and(|step| step.waits_since.is_some())
        {
            self.show(current, now, out);
        }
        while let Some(next) = self.next(now) {
            self.show(next, now, out);
        }
    }

    /// Returns the step that should have the turn, if it is not the one that has it.
    fn next(&self, now: Duration) -> Option<StepId> {
        let anybodys = self.current.is_none() || now.saturating_sub(self.spoke) >= SILENCE;
        let waiting = self.running.iter().filter_map(|(&id, step)| Some((step.waits_since?, id)));
        let is_due = |&(since, id): &(Duration, StepId)| {
            anybodys
                || now.saturating_sub(since) >= PATIENCE
                || self.running[&id].held.len() > HELD_MAX
        };
        waiting.filter(is_due).min().map(|(_, id)| id)
    }

    /// Gives a step the turn and prints what it holds.
    fn show(&mut self, step: StepId, now: Duration, out: &mut Vec<u8>) {
        let Some(running) = self.running.get_mut(&step) else { return };
        if self.current != Some(step) {
            if let Some(other) = self.current.replace(step) {
                push(out, format_args!("{other} ...\n"));
            }
            let gap = if self.printed { "\n" } else { "" };
            push(out, format_args!("{gap}{step} {}\n", running.name));
        }
        out.append(&mut running.held);
        running.waits_since = None;
        self.spoke = now;
        self.printed = true;
    }
}

/// Appends a line of a step's output: its bytes are not ours to change.
fn push_line(out: &mut Vec<u8>, step: StepId, at: Duration, line: &[u8]) {
    push(out, format_args!("{step} {} ", text::stamp(at)));
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    // Memory takes everything.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::super::renderer::testing::{Stage, summary};
    use super::*;

    fn stage() -> Stage<Plain> {
        Stage::new(Plain::default())
    }

    #[test]
    fn tells_a_build() {
        let mut stage = stage();
        stage.begin(0, 1, "[internal] load build definition from Dockerfile");
        stage.end(10, 1, &StepEnd::Done, 10);
        stage.begin(20, 2, "[build 1/3] FROM docker.io/library/alpine");
        stage.status(30, 2, "resolve docker.io/library/alpine");
        stage.status(40, 2, "resolve docker.io/library/alpine");
        stage.end(50, 2, &StepEnd::Cached, 30);
        stage.begin(60, 3, "[build 2/3] RUN make");
        stage.stdout(183, 3, "cc -c main.c\ncc -c ");
        stage.stderr(200, 3, "main.c:1: warning\n");
        stage.stdout(12_405, 3, "other.c\n");
        stage.end(12_460, 3, &StepEnd::Done, 12_400);
        stage.begin(12_470, 4, "[build 3/3] RUN sleep 1000");
        stage.end(13_000, 4, &StepEnd::Cancelled, 530);
        stage.finish(13_000, &summary(Ending::Done, "built app\n"));
        assert_eq!(
            stage.printed(),
            "#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s

#2 [build 1/3] FROM docker.io/library/alpine
#2 resolve docker.io/library/alpine
#2 CACHED

#3 [build 2/3] RUN make
#3 0.123 cc -c main.c
#3 0.140 main.c:1: warning
#3 12.35 cc -c other.c
#3 DONE 12.4s

#4 [build 3/3] RUN sleep 1000
#4 CANCELED

built app
"
        );
    }

    #[test]
    fn steps_that_run_at_once_take_turns() {
        let mut stage = stage();
        stage.begin(0, 1, "[a 1/1] RUN a");
        stage.begin(0, 2, "[b 1/1] RUN b");
        stage.begin(0, 3, "[c 1/1] COPY c /");
        for ms in (100..=3200).step_by(100) {
            stage.stdout(ms, 1, if ms % 800 == 0 { format!("a at {ms}\n") } else { ".".into() });
            if ms % 400 == 0 {
                stage.stdout(ms, 2, format!("b at {ms}\n"));
            }
            if ms == 300 {
                stage.end(ms, 3, &StepEnd::Cached, 300);
            }
        }
        stage.end(3300, 1, &StepEnd::Done, 3300);
        stage.end(3400, 2, &StepEnd::Done, 3400);
        assert_eq!(
            stage.printed(),
            "#1 [a 1/1] RUN a
#1 ...

#3 [c 1/1] COPY c /
#3 CACHED

#2 [b 1/1] RUN b
#2 0.400 b at 400
#2 0.800 b at 800
#2 1.200 b at 1200
#2 1.600 b at 1600
#2 2.000 b at 2000
#2 2.400 b at 2400
#2 ...

#1 [a 1/1] RUN a
#1 0.800 .......a at 800
#1 1.600 .......a at 1600
#1 2.400 .......a at 2400
#1 3.200 .......a at 3200
#1 DONE 3.3s

#2 [b 1/1] RUN b
#2 2.800 b at 2800
#2 3.200 b at 3200
#2 DONE 3.4s
"
        );
    }

    #[test]
    fn what_is_held_is_shown_when_time_goes_by() {
        let mut stage = stage();
        stage.begin(0, 1, "[a 1/1] RUN a");
        stage.begin(0, 2, "[b 1/1] RUN b");
        stage.stdout(100, 2, "said in time\n");
        stage.tick(400);
        assert_eq!(stage.printed(), "#1 [a 1/1] RUN a\n");
        stage.tick(500);
        assert_eq!(stage.printed(), "#1 ...\n\n#2 [b 1/1] RUN b\n#2 0.100 said in time\n");
        stage.tick(9000);
        assert_eq!(stage.printed(), "");
    }

    #[test]
    fn a_failure_is_told_again_at_the_end() {
        let mut stage = stage();
        stage.begin(0, 1, "[a 1/2] RUN make");
        stage.begin(0, 2, "[b 1/1] RUN sleep 9");
        stage.stderr(1000, 1, "make: *** no\nno newline");
        let error = "process \"/bin/sh -c make\" did not\ncomplete: exit code: 2";
        stage.end(1200, 1, &StepEnd::Failed(error.into()), 1200);
        stage.end(1300, 2, &StepEnd::Cancelled, 1300);
        stage.finish(1300, &summary(Ending::Failed, ""));
        assert_eq!(
            stage.printed(),
            "#1 [a 1/2] RUN make
#1 1.000 make: *** no
#1 1.200 no newline
#1 ERROR: process \"/bin/sh -c make\" did not complete: exit code: 2

#2 [b 1/1] RUN sleep 9
#2 CANCELED
------
 > [a 1/2] RUN make:
1.000 make: *** no
1.200 no newline
------
"
        );
    }

    #[test]
    fn progress_bars_do_not_flood() {
        let mut stage = stage();
        stage.begin(0, 1, "[1/1] RUN curl");
        for percent in 0..=100 {
            stage.stderr(percent, 1, format!("\r{percent}%"));
        }
        stage.stdout(110, 1, "\x1b[32mok\x1b[0m\r\n");
        stage.end(200, 1, &StepEnd::Done, 200);
        assert_eq!(
            stage.printed(),
            "#1 [1/1] RUN curl\n#1 0.110 \x1b[32mok\x1b[0m\n#1 0.200 100%\n#1 DONE 0.2s\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_pass() {
        let mut stage = stage();
        stage.begin(0, 1, "[1/1] RUN cat /bin/cat");
        stage.stdout(1, 1, b"caf\xe9\n\xff\xfe\x00");
        stage.end(2, 1, &StepEnd::Done, 2);
        let expected: &[u8] =
            b"#1 [1/1] RUN cat /bin/cat\n#1 0.001 caf\xe9\n#1 0.002 \xff\xfe\x00\n#1 DONE 0.0s\n";
        assert_eq!(stage.out, expected);
    }

    #[test]
    fn warnings_are_printed_as_they_come() {
        let mut stage = stage();
        stage.tell(0, Event::Warning { text: "warning: stage name is not lower case\n  --> 3\n" });
        stage.begin(0, 1, "[1/1] RUN make");
        assert_eq!(
            stage.printed(),
            "warning: stage name is not lower case\n  --> 3\n\n#1 [1/1] RUN make\n"
        );
    }

    #[test]
    fn steps_that_nobody_knows_are_ignored() {
        let mut stage = stage();
        stage.stdout(0, 7, "who?\n");
        stage.status(0, 7, "who?");
        stage.end(0, 7, &StepEnd::Done, 0);
        stage.finish(0, &summary(Ending::Done, ""));
        assert_eq!(stage.printed(), "");
    }

    #[test]
    fn a_storm_is_held_in_bounded_memory() {
        let mut stage = stage();
        stage.begin(0, 1, "[1/2] RUN yes");
        stage.begin(0, 2, "[2/2] RUN yes");
        let (mut held_max, mut printed, mut turns) = (0, 0, 0);
        let lines = "0123456789012345678901234567890\n".repeat(128);
        for _ in 0..1280 {
            for step in [1, 2] {
                stage.stdout(1, step, &lines);
                let held: usize = stage.renderer.running.values().map(|step| step.held.len()).sum();
                held_max = held_max.max(held);
                turns += usize::from(stage.out.starts_with(b"#1 ..."));
                printed += stage.out.len();
                stage.out.clear();
            }
        }
        assert!(held_max < HELD_MAX + 16 * lines.len(), "{held_max}");
        assert!(printed > 10 << 20);
        // The turn changes with every 64 KiB at most, not with every line.
        assert!((1..=printed / HELD_MAX).contains(&turns), "{turns}");
    }
}
