//! The live view: a picture that is drawn again in its own place.
//!
//! A frame moves the cursor up to the picture's first row, draws each row and erases the rest of
//! its line, and leaves the cursor below. Within a frame, and only there, the cursor is hidden and
//! lines do not wrap: between frames the terminal is as it was, also if this process is killed.
//! Warnings are printed above. At the end the view gives way to the whole list of steps, then the
//! logs of those that failed.
//!
//! What steps print is shown without its control sequences: it must not move what it stands in.

use boatyard_builder::progress::{StepEnd, StepId};

use super::log::{Controls, FailedLog, StepLog};
use super::picture::{self, Paint, Row, Size, Step};
use super::renderer::{Event, Moment, Renderer};
use super::{Ending, Summary, text};

/// DECTCEM and DECAWM off: no cursor, no wrapping.
const FRAME_BEGINS: &str = "\x1b[?25l\x1b[?7l";
/// Both on again.
const FRAME_ENDS: &str = "\x1b[?7h\x1b[?25h";
/// EL: erases the rest of the line.
const ERASE_LINE: &str = "\x1b[K";
/// ED: erases all below.
const ERASE_BELOW: &str = "\x1b[J";

/// Renders a live view.
pub struct Tty {
    size: Box<dyn Fn() -> Size + Send>,
    colors: bool,
    steps: Vec<Step>,
    failed: Vec<FailedLog>,
    /// To be printed above the next frame.
    warnings: Vec<String>,
    /// What the last frame showed.
    shown: Vec<Row>,
}

impl Tty {
    /// Returns a view on a terminal that has this size at any time.
    pub fn new(colors: bool, size: Box<dyn Fn() -> Size + Send>) -> Tty {
        Tty {
            size,
            colors,
            steps: Vec::new(),
            failed: Vec::new(),
            warnings: Vec::new(),
            shown: Vec::new(),
        }
    }

    /// Returns a step that runs. The newest talk the most.
    fn running(&mut self, id: StepId) -> Option<&mut Step> {
        self.steps.iter_mut().rev().find(|step| step.id == id && step.end.is_none())
    }

    fn end(&mut self, id: StepId, end: &StepEnd, took: std::time::Duration) {
        let Some(step) = self.running(id) else { return };
        step.status = None;
        step.end = Some((end.clone(), took));
        let mut log = std::mem::take(&mut step.log);
        if matches!(end, StepEnd::Failed(_)) {
            log.close(took, &mut |_| {});
            let failed = log.into_failed(&step.name);
            self.failed.push(failed);
        }
    }

    /// Returns what moves the cursor to the first row of the view.
    fn rewind(&self) -> String {
        match self.shown.len() {
            0 => String::new(),
            rows => format!("\r\x1b[{rows}A"),
        }
    }

    /// Returns the warnings that were not printed yet.
    fn take_warnings(&mut self) -> String {
        self.warnings.drain(..).map(|warning| warning + "\n").collect()
    }

    fn paint(&self, row: &Row) -> String {
        let code = match row.paint {
            Paint::Usual => return row.text.clone(),
            _ if !self.colors => return row.text.clone(),
            Paint::Dim => "2",
            Paint::Blue => "34",
            Paint::Red => "31",
            Paint::Yellow => "33",
        };
        format!("\x1b[{code}m{}\x1b[0m", row.text)
    }
}

impl Renderer for Tty {
    fn tell(&mut self, event: &Event<'_>, now: Moment, _out: &mut Vec<u8>) {
        match *event {
            Event::Begin { step: id, name } => self.steps.push(Step {
                id,
                name: text::one_line(name),
                began: now.elapsed,
                status: None,
                log: StepLog::default(),
                end: None,
            }),
            Event::Output { step, stream, bytes } => {
                if let Some(step) = self.running(step) {
                    let at = now.elapsed.saturating_sub(step.began);
                    step.log.push(stream, bytes, at, &mut |_| {});
                }
            }
            Event::Status { step, text } => {
                if let Some(step) = self.running(step) {
                    step.status = Some(text::one_line(text));
                }
            }
            Event::Failed { .. } => {}
            Event::End { step, end, took } => self.end(step, end, took),
            Event::Warning { text } => self.warnings.push(text.trim_end().to_owned()),
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<u8>) {
        let rows = match self.steps.is_empty() {
            true => Vec::new(),
            false => picture::live(&self.steps, now.elapsed, (self.size)()),
        };
        if rows == self.shown && self.warnings.is_empty() {
            return;
        }
        let mut frame = self.rewind();
        if !self.warnings.is_empty() {
            frame += ERASE_BELOW;
            frame += &self.take_warnings();
        }
        frame += FRAME_BEGINS;
        for row in &rows {
            frame += &format!("{}{ERASE_LINE}\n", self.paint(row));
        }
        frame += ERASE_BELOW;
        frame += FRAME_ENDS;
        out.extend_from_slice(frame.as_bytes());
        self.shown = rows;
    }

    fn ticks(&self) -> bool {
        true
    }

    fn finish(&mut self, summary: Option<&Summary>, now: Moment, out: &mut Vec<u8>) {
        let word = summary.map(|summary| match summary.ending {
            Ending::Done => "FINISHED",
            Ending::Failed => "FAILED",
            Ending::Cancelled => "CANCELED",
        });
        let mut text = self.rewind();
        if !text.is_empty() {
            text += ERASE_BELOW;
        }
        text += &self.take_warnings();
        if !self.steps.is_empty() {
            let columns = (self.size)().columns;
            for row in picture::whole(&self.steps, now.elapsed, columns, word) {
                text += &format!("{}\n", self.paint(&row));
            }
        }
        out.extend_from_slice(text.as_bytes());
        for failed in &self.failed {
            failed.print(Controls::Dropped, out);
        }
        if let Some(Summary { text, .. }) = summary
            && !text.is_empty()
        {
            out.extend_from_slice(format!("{}\n", text.trim_end()).as_bytes());
        }
        self.shown.clear();
    }
}

#[cfg(test)]
mod tests;
