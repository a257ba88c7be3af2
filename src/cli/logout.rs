//! `boatyard logout`

use std::process::ExitCode;

use crate::cli::runtime;
use crate::output;
use crate::remote;
use crate::report::{Context as _, Result};
use crate::world::World;

/// Forget the credentials that `boatyard login` kept for a registry.
///
/// Those that docker or podman keep are theirs: they stay, and go on to be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry
    #[arg(default_value = "docker.io")]
    host: String,
}

/// Forgets the credentials.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let host = remote::parse_host(&args.host)?;
    let client = remote::client(world)?;
    let forgotten = runtime()?.block_on(client.logout(&host));
    let forgotten = forgotten.context(format!("cannot forget the credentials for {host}"))?;
    output::line(&match forgotten {
        true => format!("The credentials for {host} are forgotten"),
        false => format!("There were no credentials of `boatyard login` for {host}"),
    })?;
    Ok(ExitCode::SUCCESS)
}
