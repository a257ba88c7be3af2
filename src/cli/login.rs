//! `boatyard login`

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::process::ExitCode;

use boatyard_upstream::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::runtime;
use crate::output;
use crate::remote;
use crate::report::{self, Context as _, Failure, Result};
use crate::world::World;

/// Longer ones are no passwords: tokens have a few thousand bytes.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

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

/// Reads all of standard input, without the line's end that `echo` adds.
fn password_from_input() -> Result<String> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .context("cannot read the password from standard input")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks a person, who must be at a terminal.
fn ask(question: &str, hidden: bool) -> Result<String> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is nobody to ask: standard input is no terminal")
            .hint("give the user with -u and the password with --password-stdin"));
    }
    report::prompt(question);
    let quiet = if hidden { Some(Quiet::new()?) } else { None };
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if quiet.is_some() {
        report::note("");
    }
    read.context("cannot read the answer")?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn new() -> Result<Quiet> {
        let before = tcgetattr(io::stdin()).context("cannot hide what is typed")?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet)
            .context("cannot hide what is typed")?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
