//! The command line: one file per command.

mod audit;
mod build;
mod cache;
mod client_config;
mod completions;
mod config;
mod df;
mod doctor;
mod format;
mod fsck;
mod gc;
mod history;
mod images;
mod import;
mod inspect;
mod limits;
mod lint;
mod load;
mod login;
mod logout;
mod mirror;
mod proxy;
mod pull;
mod push;
mod quickstart;
mod retain;
mod rmi;
mod run;
mod save;
mod serve;
mod tag;
mod token;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::isolation::Snapshots;
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
    /// How the file systems of build steps are made
    #[arg(
        long,
        global = true,
        value_name = "KIND",
        default_value = "auto",
        env = "BOATYARD_SNAPSHOTS"
    )]
    snapshots: Snapshots,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all of it in a minute
    Quickstart(quickstart::Args),
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    Lint(lint::Args),
    Run(Box<run::Args>),
    Pull(pull::Args),
    Push(push::Args),
    Login(login::Args),
    Logout(logout::Args),
    Tag(tag::Args),
    Images(images::Args),
    Inspect(inspect::Args),
    History(history::Args),
    Rmi(rmi::Args),
    Save(save::Args),
    Load(load::Args),
    Import(import::Args),
    Cache(cache::Args),
    Df(df::Args),
    Gc(gc::Args),
    Retain(retain::Args),
    Fsck(fsck::Args),
    Doctor(doctor::Args),
    /// Run the registry
    Serve(serve::Args),
    User(user::Args),
    Token(token::Args),
    Audit(audit::Args),
    Mirror(mirror::Args),
    Proxy(proxy::Args),
    ClientConfig(client_config::Args),
    Config(config::Args),
    /// Print a script that completes commands and options in a shell
    Completions(completions::Args),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> Result<ExitCode> {
        // Traces are sent until the command ends.
        let mut traces = None;
        let mut world = |command, level| {
            let world =
                World::new(self.global.root.as_deref(), self.global.config.as_deref(), command)?;
            traces = telemetry::start(level, &world.config)?;
            Ok(world.with_snapshots(self.global.snapshots))
        };
        let mut logged = |command| world(command, "warn");
        match self.command {
            Command::Quickstart(args) => {
                let given = self.global.root.is_some();
                quickstart::run(&logged("boatyard quickstart")?, &args, given)
            }
            Command::Build(args) => build::run(&logged("boatyard build")?, &args),
            Command::Lint(args) => lint::run(&args, &logged("boatyard lint")?),
            Command::Serve(args) => serve::run(&world("boatyard serve", "info")?, &args),
            Command::Run(args) => run::run(&logged("boatyard run")?, &args),
            Command::Pull(args) => pull::run(&args, &logged("boatyard pull")?),
            Command::Push(args) => push::run(&args, &logged("boatyard push")?),
            Command::Login(args) => login::run(&args, &logged("boatyard login")?),
            Command::Logout(args) => logout::run(&args, &logged("boatyard logout")?),
            Command::Tag(args) => tag::run(&args, &logged("boatyard tag")?),
            Command::Images(args) => images::run(&args, &logged("boatyard images")?),
            Command::Inspect(args) => inspect::run(&args, &logged("boatyard inspect")?),
            Command::History(args) => history::run(&args, &logged("boatyard history")?),
            Command::Rmi(args) => rmi::run(&args, &logged("boatyard rmi")?),
            Command::Save(args) => save::run(&args, &logged("boatyard save")?),
            Command::Load(args) => load::run(&args, &logged("boatyard load")?),
            Command::Import(args) => import::run(&args, &logged("boatyard import")?),
            Command::Cache(args) => cache::run(&args, &logged("boatyard cache")?),
            Command::Df(args) => df::run(&args, &logged("boatyard df")?),
            Command::Retain(args) => retain::run(&args, &logged("boatyard retain")?),
            Command::Gc(args) => gc::run(&args, &logged("boatyard gc")?),
            Command::Fsck(args) => fsck::run(&args, &logged("boatyard fsck")?),
            Command::Doctor(args) => doctor::run(&args, &logged("boatyard doctor")?),
            Command::User(args) => user::run(&args, &logged("boatyard user")?),
            Command::Token(args) => token::run(&args, &logged("boatyard token")?),
            Command::Audit(args) => audit::run(&args, &logged("boatyard audit")?),
            Command::Mirror(args) => mirror::run(&args, &logged("boatyard mirror")?),
            Command::Proxy(args) => proxy::run(&args, &logged("boatyard proxy")?),
            Command::ClientConfig(args) => {
                client_config::run(&args, &logged("boatyard client-config")?)
            }
            Command::Config(args) => config::run(&args, || logged("boatyard config")),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn no_option_means_two_things() {
        super::Cli::command().debug_assert();
    }
}
