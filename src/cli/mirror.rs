//! `boatyard mirror`

mod fetch;
mod list;
mod status;

use std::process::ExitCode;

use crate::report::Result;
use crate::world::World;

/// Look at what is mirrored, and fetch images ahead.
///
/// The mirrors are the [[mirror]] tables of the configuration; `serve` answers for them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Fetch(fetch::Args),
    List(list::Args),
    Status(status::Args),
}

/// Does what was asked for.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    match &args.command {
        Command::Fetch(args) => fetch::run(args, world),
        Command::List(args) => list::run(args, world),
        Command::Status(args) => status::run(args, world),
    }
}
