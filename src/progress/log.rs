//! The log of a step: its streams cut into lines, the last of which are kept in case it fails.

use std::collections::VecDeque;
use std::time::Duration;

use boatyard_builder::progress::Stream;

use super::lines::LineCutter;
use super::text;

/// How many lines of a log are kept. With `LINE_MAX` this bounds what a step costs: 400 KiB.
pub const LINES_KEPT: usize = 50;

/// The log of a step that runs.
#[derive(Debug, Default)]
pub struct StepLog {
    stdout: LineCutter,
    stderr: LineCutter,
    last: VecDeque<Line>,
    dropped: u64,
}

/// A line, and when it was written, counted from the step's beginning.
#[derive(Debug, Default)]
struct Line {
    at: Duration,
    bytes: Vec<u8>,
}

impl StepLog {
    /// Takes what a step wrote at this time since it began, and gives each line that is whole.
    pub fn push(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        at: Duration,
        each: &mut dyn FnMut(&[u8]),
    ) {
        let cutter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        cutter.push(bytes, &mut |line| {
            keep(&mut self.last, &mut self.dropped, at, line);
            each(line);
        });
    }

    /// Ends both streams, and gives the lines that have no end.
    pub fn close(&mut self, at: Duration, each: &mut dyn FnMut(&[u8])) {
        for cutter in [&mut self.stdout, &mut self.stderr] {
            cutter.close(&mut |line| {
                keep(&mut self.last, &mut self.dropped, at, line);
                each(line);
            });
        }
    }

    /// Returns up to `count` last lines that are not blank, as a terminal can show them; with
    /// those that have no end yet.
    pub fn recent(&self, count: usize) -> Vec<String> {
        let pending = [self.stderr.pending(), self.stdout.pending()];
        let whole = self.last.iter().rev().map(|line| line.bytes.as_slice());
        let mut recent: Vec<String> = (pending.into_iter().chain(whole))
            .map(text::visible)
            .filter(|line| !line.trim().is_empty())
            .take(count)
            .collect();
        recent.reverse();
        recent
    }

    /// Returns how many bytes of memory the lines take.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        let pending = self.stdout.pending().len() + self.stderr.pending().len();
        pending + self.last.iter().map(|line| line.bytes.capacity()).sum::<usize>()
    }

    /// Returns what is printed of a step that failed.
    pub fn into_failed(self, name: &str) -> FailedLog {
        FailedLog { name: name.to_owned(), last: self.last, dropped: self.dropped }
    }
}

/// Keeps a line, in the memory of the one that it displaces.
fn keep(last: &mut VecDeque<Line>, dropped: &mut u64, at: Duration, bytes: &[u8]) {
    let mut line = Line::default();
    if last.len() == LINES_KEPT {
        line = last.pop_front().unwrap_or_default();
        *dropped += 1;
    }
    line.at = at;
    line.bytes.clear();
    line.bytes.extend_from_slice(bytes);
    last.push_back(line);
}

/// The end of the log of a step that failed.
#[derive(Debug)]
pub struct FailedLog {
    name: String,
    last: VecDeque<Line>,
    dropped: u64,
}

/// What becomes of control sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controls {
    /// They are left alone, for a log.
    Kept,
    /// They are dropped, for a terminal that must stay as it is.
    Dropped,
}

impl FailedLog {
    /// Appends the log between lines of dashes; nothing if the step wrote nothing.
    pub fn print(&self, controls: Controls, out: &mut Vec<u8>) {
        if self.last.is_empty() {
            return;
        }
        out.extend_from_slice(format!("------\n > {}:\n", self.name).as_bytes());
        match self.dropped {
            0 => {}
            1 => out.extend_from_slice(b"(1 earlier line is left out)\n"),
            count => {
                out.extend_from_slice(format!("({count} earlier lines are left out)\n").as_bytes());
            }
        }
        for line in &self.last {
            out.extend_from_slice(text::stamp(line.at).as_bytes());
            out.push(b' ');
            match controls {
                Controls::Kept => out.extend_from_slice(&line.bytes),
                Controls::Dropped => out.extend_from_slice(text::visible(&line.bytes).as_bytes()),
            }
            out.push(b'\n');
        }
        out.extend_from_slice(b"------\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_counts_the_others() {
        let mut log = StepLog::default();
        for number in 0..LINES_KEPT + 7 {
            let at = Duration::from_millis(number as u64);
            log.push(Stream::Stdout, format!("line {number}\n").as_bytes(), at, &mut |_| {});
        }
        let mut out = Vec::new();
        log.into_failed("[2/2] RUN make").print(Controls::Kept, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with(
            "------\n > [2/2] RUN make:\n(7 earlier lines are left out)\n0.007 line 7\n"
        ));
        assert!(out.ends_with("0.056 line 56\n------\n"));
        assert_eq!(out.lines().count(), LINES_KEPT + 4);
    }

    #[test]
    fn recent_lines_have_those_without_end_and_no_blank_ones() {
        let mut log = StepLog::default();
        log.push(Stream::Stdout, b"one\n\ntwo\n \n50%\r60%", Duration::ZERO, &mut |_| {});
        assert_eq!(log.recent(6), ["one", "two", "60%"]);
        assert_eq!(log.recent(2), ["two", "60%"]);
    }

    #[test]
    fn a_log_without_lines_is_not_printed() {
        let mut out = Vec::new();
        StepLog::default().into_failed("x").print(Controls::Kept, &mut out);
        assert!(out.is_empty());
    }
}
