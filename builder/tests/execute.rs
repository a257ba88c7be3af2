//! Runs real steps, as root, in images made of a static busybox.
//!
//! The binary is its own helper: called with the argument `init` it becomes what
//! `boatyard init` is. That has to happen before a thread exists, so it has a `main` of its own,
//! which speaks as much of the test harness's language as cargo and nextest do.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy sees tests only where libtest's harness runs them"
)]

#[path = "execute/cves.rs"]
mod cves;
#[path = "execute/harness.rs"]
mod harness;
#[path = "execute/hostile.rs"]
mod hostile;
#[path = "execute/isolation.rs"]
mod isolation;
#[path = "execute/life.rs"]
mod life;
#[path = "execute/limits.rs"]
mod limits;
#[path = "execute/oracle.rs"]
mod oracle;
#[path = "execute/rights.rs"]
mod rights;
#[path = "execute/rooms.rs"]
mod rooms;
#[path = "execute/traces.rs"]
mod traces;
#[path = "execute/world.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "init") {
        return boatyard_builder::execute::init::main();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == life::BUILDER) {
        return life::builder();
    }
    let groups = [
        life::TESTS,
        rooms::TESTS,
        rights::TESTS,
        traces::TESTS,
        hostile::TESTS,
        isolation::TESTS,
        cves::TESTS,
        limits::TESTS,
        oracle::TESTS,
    ];
    harness::main(&groups.concat())
}
