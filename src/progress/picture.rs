//! The picture of a build: its steps as rows that fit a terminal.
//!
//! ```text
//! [+] Building 3.2s (2/3)
//!  => CACHED [build 1/3] FROM docker.io/library/alpine                      0.0s
//!  => [build 2/3] RUN make                                                  1.2s
//!  => => # cc -c main.c
//!  => => # cc -c other.c
//! ```
//!
//! Where rows are short, the steps that run come first, then those that failed, then what the
//! running ones say, then those that ended last.

use std::time::Duration;

use boatyard_builder::progress::{StepEnd, StepId};

use super::log::StepLog;
use super::text;

/// How many lines of its output a running step shows.
const OUTPUT_ROWS: usize = 6;
/// A name with fewer columns says nothing: then the time is left out.
const NAME_COLUMNS_MIN: usize = 12;

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
}

/// A step of the build.
#[derive(Debug)]
pub struct Step {
    pub id: StepId,
    pub name: String,
    pub began: Duration,
    pub status: Option<String>,
    pub log: StepLog,
    /// How and after what time it ended; then it has no status and an empty log.
    pub end: Option<(StepEnd, Duration)>,
}

/// A row, as text of a known width and a way to draw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub text: String,
    pub paint: Paint,
}

/// How a row is drawn. The colours are BuildKit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As text is: what runs.
    Usual,
    /// What a running step says.
    Dim,
    /// Done, or cached.
    Blue,
    /// Failed.
    Red,
    /// Cancelled.
    Yellow,
}

/// Returns the rows to show now, fewer than the terminal has: the cursor stands below them.
pub fn live(steps: &[Step], now: Duration, size: Size) -> Vec<Row> {
    let Some(room) = size.rows.checked_sub(2) else { return Vec::new() };
    let mut rows = vec![header(steps, now, None, Some(size.columns))];
    for (step, below) in steps.iter().zip(share_rows(steps, room)) {
        if let Some(below) = below {
            rows.push(step_row(step, now, Some(size.columns)));
            rows.extend(says(step, below, size.columns));
        }
    }
    rows
}

/// Returns all steps, to be printed once at the end; names are not cut, but times stand in line
/// where they can. `word` says how the build ended, such as `FINISHED`.
pub fn whole(steps: &[Step], now: Duration, columns: usize, word: Option<&str>) -> Vec<Row> {
    let mut rows = vec![header(steps, now, word, None)];
    rows.extend(steps.iter().map(|step| {
        let mut row = step_row(step, now, None);
        if text::columns(&row.text) < columns {
            row = step_row(step, now, Some(columns));
        }
        row
    }));
    rows
}

/// Returns how many rows each step has below its own, or None if it is not shown.
fn share_rows(steps: &[Step], mut room: usize) -> Vec<Option<usize>> {
    let mut shares = vec![None; steps.len()];
    let is_running = |step: &Step| step.end.is_none();
    let has_failed = |step: &Step| matches!(step.end, Some((StepEnd::Failed(_), _)));
    let show = |shares: &mut [Option<usize>], room: &mut usize, which: &dyn Fn(&Step) -> bool| {
        // The newest first: an early one may take minutes, but was seen.
        for at in (0..steps.len()).rev().filter(|&at| which(&steps[at])) {
            if *room > 0 && shares[at].is_none() {
                shares[at] = Some(0);
                *room -= 1;
            }
        }
    };
    show(&mut shares, &mut room, &is_running);
    show(&mut shares, &mut room, &has_failed);
    share_what_is_said(steps, &mut shares, &mut room);
    show(&mut shares, &mut room, &|_| true);
    shares
}

/// Gives the rows that are left to what running steps say, one each in turn.
fn share_what_is_said(steps: &[Step], shares: &mut [Option<usize>], room: &mut usize) {
    let wants: Vec<usize> = steps.iter().map(rows_wanted).collect();
    let mut given = true;
    while given {
        given = false;
        for (share, &wanted) in shares.iter_mut().zip(&wants) {
            if let Some(share) = share
                && *share < wanted
                && *room > 0
            {
                *share += 1;
                *room -= 1;
                given = true;
            }
        }
    }
}

fn rows_wanted(step: &Step) -> usize {
    if step.end.is_some() {
        return 0;
    }
    usize::from(step.status.is_some()) + step.log.recent(OUTPUT_ROWS).len()
}

/// Returns what a step says: its status, then its last lines.
fn says(step: &Step, rows: usize, columns: usize) -> Vec<Row> {
    let status = step.status.iter().take(rows).map(|status| format!(" => => {status}"));
    let rows = rows - status.len();
    let output = step.log.recent(rows.min(OUTPUT_ROWS));
    let output = output.into_iter().map(|line| format!(" => => # {line}"));
    status
        .chain(output)
        .map(|text| Row { text: text::cut(&text, columns).to_owned(), paint: Paint::Dim })
        .collect()
}

fn header(steps: &[Step], now: Duration, word: Option<&str>, columns: Option<usize>) -> Row {
    let began = steps.first().map_or(now, |step| step.began);
    let took = text::took(now.saturating_sub(began));
    let ended = steps.iter().filter(|step| step.end.is_some()).count();
    let space = if word.is_some() { " " } else { "" };
    let word = word.unwrap_or_default();
    let mut text = format!("[+] Building {took} ({ended}/{}){space}{word}", steps.len());
    if let Some(columns) = columns {
        text.truncate(columns);
    }
    Row { text, paint: Paint::Usual }
}

/// Returns the row of a step: name and time, cut and filled up to the columns if they are given.
fn step_row(step: &Step, now: Duration, columns: Option<usize>) -> Row {
    let (word, paint) = match &step.end {
        None => ("", Paint::Usual),
        Some((StepEnd::Done, _)) => ("", Paint::Blue),
        Some((StepEnd::Cached, _)) => ("CACHED ", Paint::Blue),
        Some((StepEnd::Failed(_), _)) => ("ERROR ", Paint::Red),
        Some((StepEnd::Cancelled, _)) => ("CANCELED ", Paint::Yellow),
    };
    let took = step.end.as_ref().map_or(now.saturating_sub(step.began), |(_, took)| *took);
    let took = text::took(took);
    let name = format!(" => {word}{}", step.name);
    let text = match columns {
        None => format!("{name} {took}"),
        Some(columns) => match columns.checked_sub(took.len() + 1) {
            Some(room) if room >= NAME_COLUMNS_MIN => {
                let name = text::cut(&name, room);
                let gap = room - text::columns(name);
                format!("{name}{:gap$} {took}", "")
            }
            _ => text::cut(&name, columns).to_owned(),
        },
    };
    Row { text, paint }
}
