//! `boatyard user`

use std::process::ExitCode;

use boatyard_access::{Cost, Deed, Name, PasswordHash, UsersError, UsersFile};
use boatyard_content::Root;
use serde::Serialize;

use crate::cli::format::Format;
use crate::password::new_password;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;
use crate::{access, output};

/// Say who may log in to the registry.
///
/// A server that runs on the same root follows at once. What users may do is said by the [[rule]]
/// tables of the configuration.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add a user
    Add(Password),
    /// Change a user's password; tokens that were issued for the old one are good no more
    Passwd(Password),
    /// Remove a user, who is out at once, with all their tokens
    Remove {
        /// The user
        name: Name,
    },
    /// List the users
    List {
        /// Print a table for people, or an object on each line for programs
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Debug, clap::Args)]
struct Password {
    /// The user
    name: Name,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Does what was asked for.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let users = UsersFile::new(root.layout().access());
    match &args.command {
        Command::Add(password) => {
            // Before somebody thinks of a password for nothing.
            if users.read().map_err(failure)?.contains_key(&password.name) {
                return Err(failure(UsersError::Exists(password.name.clone())));
            }
            let hash = hash(password)?;
            users.add(&password.name, hash).map_err(failure)?;
            told(&root, Deed::UserAdded, &password.name)?;
            output::line(&format!("added user {}", password.name))?;
            if world.config.rules.is_empty() {
                output::line(
                    "note: there is no [[rule]] in the configuration yet; docs/access.md says how \
                     to let users push",
                )?;
            }
        }
        Command::Passwd(password) => {
            if !users.read().map_err(failure)?.contains_key(&password.name) {
                return Err(failure(UsersError::Unknown(password.name.clone())));
            }
            let hash = hash(password)?;
            users.set(&password.name, hash).map_err(failure)?;
            told(&root, Deed::PasswordChanged, &password.name)?;
            output::line(&format!("changed the password of {}", password.name))?;
        }
        Command::Remove { name } => {
            users.remove(name).map_err(failure)?;
            told(&root, Deed::UserRemoved, name)?;
            output::line(&format!("removed user {name}"))?;
        }
        Command::List { format } => list(&users, *format)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(users: &UsersFile, format: Format) -> Result<()> {
    #[derive(Serialize)]
    struct Row<'a> {
        name: &'a Name,
    }
    let users = users.read().map_err(failure)?;
    if format == Format::Json {
        return users.keys().try_for_each(|name| output::json_line(&Row { name }));
    }
    let rows: Vec<[String; 1]> = users.keys().map(|name| [name.to_string()]).collect();
    output::table(["NAME"], &rows)
}

fn hash(password: &Password) -> Result<PasswordHash> {
    let text = new_password(password.password_stdin)?;
    PasswordHash::of(&text, Cost::default()).context("cannot use this password")
}

fn told(root: &Root, deed: Deed, name: &Name) -> Result<()> {
    access::note(root, deed, name.as_str(), None)
}

fn failure(error: UsersError) -> Failure {
    let hint = match &error {
        UsersError::Exists(_) => "`boatyard user passwd` gives them another password",
        UsersError::Unknown(_) => "`boatyard user list` shows all",
        _ => return Failure::new("cannot change the users").because(error),
    };
    Failure::new(error).hint(hint)
}
