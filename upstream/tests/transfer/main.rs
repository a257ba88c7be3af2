//! Transfers with scripted sources: every fault that an upstream, a disk or a neighbour has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod limits;
mod processes;
mod readers;
mod resume;
mod support;
