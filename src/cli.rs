//! The command line: one file per command.

mod build;
mod completions;
mod quickstart;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::{Context as _, Result};
use crate::telemetry;
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
    /// Show all of it in a minute
    Quickstart(quickstart::Args),
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Run the registry
    Serve(serve::Args),
    /// Print a script that completes commands and options in a shell
    Completions(completions::Args),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> Result<ExitCode> {
        let world = |command| {
            World::new(self.global.root.as_deref(), self.global.config.as_deref(), command)
        };
        match self.command {
            Command::Quickstart(args) => {
                telemetry::start("warn");
                let given = self.global.root.is_some();
                quickstart::run(&world("boatyard quickstart")?, &args, given)
            }
            Command::Build(args) => {
                telemetry::start("warn");
                build::run(&world("boatyard build")?, &args)
            }
            Command::Serve(args) => {
                telemetry::start("info");
                serve::run(&world("boatyard serve")?, &args)
            }
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
