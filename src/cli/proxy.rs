//! `boatyard proxy`

mod import;
mod packages;
mod purge;
mod search;
mod stats;
mod why;

use std::process::ExitCode;

use crate::report::Result;
use crate::world::World;

/// Look at what the cache proxy keeps and served, give some of it up, or take in what others keep.
///
/// The cache proxy is a part of `serve`; these commands read and change its files, whether it runs
/// or not.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Stats(stats::Args),
    Search(search::Args),
    Why(why::Args),
    Purge(purge::Args),
    Import(import::Args),
    Packages(packages::Args),
}

/// Does what was asked for.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    match &args.command {
        Command::Stats(args) => stats::run(args, world),
        Command::Search(args) => search::run(args, world),
        Command::Why(args) => why::run(args, world),
        Command::Purge(args) => purge::run(args, world),
        Command::Import(args) => import::run(args, world),
        Command::Packages(args) => packages::run(args, world),
    }
}
