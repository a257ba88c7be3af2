//! The command `boatyard`.
//!
//! This package wires the crates together and is the only one that reads the environment, prints,
//! and turns an error into text for a person ([`report`]).

#![forbid(unsafe_code)]
#![expect(unreachable_pub, reason = "here `pub` says what a module offers to the others")]

mod access;
mod cli;
mod config;
mod images;
mod isolation;
mod lazy_base;
mod metrics;
mod migration;
mod mirrors;
mod output;
mod password;
mod policies;
mod progress;
mod proxy;
mod quantity;
mod refill;
mod remote;
mod report;
mod serving;
mod shared_cache;
mod sources;
mod telemetry;
mod terminal;
mod transfers;
mod webhooks;
mod world;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ContextKind;

fn main() -> ExitCode {
    // The helper that runs steps must be a process with one thread: before anything else.
    if std::env::args_os().nth(1).is_some_and(|first| first == "init") {
        return boatyard_builder::execute::init::main();
    }
    boatyard_content::local::keep_buffers();
    let cli = cli::Cli::try_parse().unwrap_or_else(|mut error| {
        // "To pass it as a value, use '-- --option'" is not what anybody wants here.
        error.remove(ContextKind::Suggested);
        error.exit()
    });
    match cli.run() {
        Ok(code) => code,
        Err(failure) => report::failure(&failure),
    }
}
