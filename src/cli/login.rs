//! `boatyard login`

use std::process::ExitCode;

use boatyard_upstream::Secret;

use crate::cli::runtime;
use crate::output;
use crate::password::{ask, password_from_input};
use crate::remote;
use crate::report::{self, Failure, Result};
use crate::world::World;

/// Keep the credentials for a registry, once it has accepted them.
///
/// They are kept in a file of this user's that nobody else can read, or in the credential helper
/// that this file names. What docker and podman keep is used too, and left alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry, with its port where it is not the usual one
    #[arg(default_value = "docker.io")]
    host: String,
    /// The user [default: asked for]
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password, or an access token, from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Tries the credentials and keeps them.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let host = remote::parse_host(&args.host)?;
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::usage("--password-stdin needs a user").hint("name one with -u"));
    }
    let client = remote::client(world)?;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ", false)?,
    };
    let password =
        if args.password_stdin { password_from_input()? } else { ask("Password: ", true)? };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::usage("a login needs a user and a password"));
    }
    let login = client.login(&host, &user, Secret::new(password));
    let login = runtime()?
        .block_on(login)
        .map_err(|error| remote::failure(format!("cannot log in to {host}"), &host, error))?;
    if !login.checked {
        report::warn(&format!("{host} asks nobody for credentials, so nothing checked these"));
    }
    output::line(&format!("Login succeeded; the credentials are in {}", login.kept))?;
    Ok(ExitCode::SUCCESS)
}
