//! Runs real steps, as root, in images made of a static busybox: with namespaces, and once more,
//! where that makes sense, without.
//!
//! The binary is its own helper: called with the argument `init` it becomes what
//! `boatyard init` is. That has to happen before a thread exists, so it has a `main` of its own,
//! which speaks as much of the test harness's language as cargo and nextest do.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy sees tests only where libtest's harness runs them"
)]

#[path = "execute/chroot.rs"]
mod chroot;
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

use harness::Case;
use world::Way;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "init") {
        return boatyard_builder::execute::init::main();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == life::BUILDER) {
        return life::builder();
    }
    let tests = [life::TESTS, rooms::TESTS, rights::TESTS, traces::TESTS, hostile::TESTS].concat();
    let isolated = [isolation::TESTS, cves::TESTS, oracle::TESTS].concat();
    let namespaces = tests.iter().chain(&isolated);
    let mut cases: Vec<Case> = namespaces.map(|test| Case::new(test, Way::Namespaces)).collect();
    cases.extend(chroot::TESTS.iter().map(|test| Case::new(test, Way::Chroot)));
    cases.extend(chroot::of_both(&tests).map(|test| Case::new(test, Way::Chroot)));
    harness::main(&cases)
}
