//! The command line: one file per command.

mod completions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::{Context as _, Result};
use crate::world::World;

/// Builds container images from Dockerfiles, keeps them in a registry of your own, and pushes and
/// pulls them.
///
/// Everything is kept below one directory, the root, which several commands and servers can use
/// at the same time.
#[derive(Debug, Parser)]
#[command(name = "boatyard", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The directory in which everything is kept [default: /var/lib/boatyard for root,
    /// ~/.local/share/boatyard for others]
    #[arg(long, global = true, value_name = "DIR", env = "BOATYARD_ROOT")]
    root: Option<PathBuf>,
    /// The configuration file [default: ~/.config/boatyard/boatyard.toml, then
    /// /etc/boatyard/boatyard.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE", env = "BOATYARD_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a script that completes commands and options in a shell
    Completions(completions::Args),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> Result<ExitCode> {
        let _world = |command| {
            World::new(self.global.root.as_deref(), self.global.config.as_deref(), command)
        };
        match self.command {
            Command::Completions(args) => completions::run(&args),
        }
    }
}

/// Returns the runtime in which a command's sockets live.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads that the network needs")
}
