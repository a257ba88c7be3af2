//! `boatyard config`

mod check;
mod init;
mod reference;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use crate::report::Result;
use crate::world::World;

/// Look at the configuration: whether it can be used, what is in force, what there is; or begin one.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Init(init::Args),
    Show(show::Args),
    Reference(reference::Args),
}

/// Does what was asked for.
pub fn run(args: &Args, world: impl FnOnce() -> Result<World>) -> Result<ExitCode> {
    match &args.command {
        Command::Check(args) => check::run(args, &world()?),
        Command::Init(args) => init::run(args),
        Command::Show(args) => show::run(args, &world()?),
        Command::Reference(args) => reference::run(args),
    }
}
