//! `boatyard token`

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use boatyard_access::{Deed, Name, Right, Scope, Token, Tokens, TokensError};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::cli::format::Format;
use crate::quantity::parse_duration;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;
use crate::{access, output};

/// Make and revoke tokens for programs: a password that may do less, and ends.
///
/// A token is shown once, when it is made. It is good as the password of any user name, and as
/// `Authorization: Bearer`. A server that runs on the same root follows at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    /// Revoke a token, which is good no more at once
    Revoke {
        /// What it is called
        name: Name,
    },
    /// List the tokens: what they are for, and when they were last used
    List {
        /// Print a table for people, or an object on each line for programs
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

/// Make a token, and print it: it cannot be shown again
///
/// The rules of the configuration say what it may do (`token:NAME`, or its user); a scope can only
/// take from that.
#[derive(Debug, clap::Args)]
struct Create {
    /// What it is called, in rules and logs
    name: Name,
    /// Whose it is: it may do what they may, and is gone when they are
    #[arg(long, value_name = "NAME", conflicts_with = "rescue")]
    user: Option<Name>,
    /// Limit it to some repositories and rights, such as `team/**:pull,push`; may be repeated
    #[arg(long = "scope", value_name = "PATTERN:RIGHTS")]
    scopes: Vec<AskedScope>,
    /// After what time it is good no more: 12h, 90d, or `never`
    #[arg(long, value_name = "TIME", default_value = "90d")]
    expires: Expires,
    /// What it is for, in words of your own
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Let it do everything, whatever the rules say: the way back in when they lock everybody out
    #[arg(long)]
    rescue: bool,
}

#[derive(Clone, Debug)]
struct AskedScope(Scope);

impl FromStr for AskedScope {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<AskedScope, String> {
        let (repositories, rights) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("`{text}` is no scope: write it as team/**:pull,push"))?;
        let allow = rights.split(',').map(Right::from_str).collect::<std::result::Result<_, _>>();
        Ok(AskedScope(Scope {
            repositories: repositories.parse().map_err(|problem| format!("{problem}"))?,
            allow: allow.map_err(|problem| problem.to_string())?,
        }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Expires(Option<Duration>);

impl FromStr for Expires {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Expires, String> {
        if text == "never" {
            return Ok(Expires(None));
        }
        match parse_duration(text)? {
            Duration::ZERO => Err("a token that ends at once is none".to_owned()),
            time => Ok(Expires(Some(time))),
        }
    }
}

/// Does what was asked for.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let tokens = Tokens::new(root.layout().access());
    match &args.command {
        Command::Create(create) => {
            let token = create.token()?;
            let text = tokens.create(&token).map_err(failure)?;
            let detail = token.rescue.then(|| "rescue".to_owned());
            access::note(&root, Deed::TokenCreated, token.name.as_str(), detail)?;
            output::line(&text)?;
        }
        Command::Revoke { name } => {
            tokens.revoke(name).map_err(failure)?;
            access::note(&root, Deed::TokenRevoked, name.as_str(), None)?;
            output::line(&format!("revoked token {name}"))?;
        }
        Command::List { format } => list(&tokens, *format)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Create {
    fn token(&self) -> Result<Token> {
        let created = Timestamp::now();
        let expires = match self.expires.0 {
            None => None,
            Some(time) => {
                let time = SignedDuration::try_from(time).context("it is good for too long")?;
                Some(created.checked_add(time).context("it is good for too long")?)
            }
        };
        let scopes: Vec<Scope> =
            self.scopes.iter().map(|AskedScope(scope)| scope.clone()).collect();
        Ok(Token {
            name: self.name.clone(),
            user: self.user.clone(),
            scopes: (!scopes.is_empty()).then_some(scopes),
            created,
            expires,
            note: self.note.clone(),
            rescue: self.rescue,
        })
    }
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    token: &'a Token,
    expired: bool,
    last_used: Option<Timestamp>,
}

fn list(tokens: &Tokens, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let kept = tokens.list().map_err(failure)?;
    let rows = kept.iter().map(|(id, token)| Row {
        token,
        expired: token.is_expired(now),
        last_used: tokens.last_used(id),
    });
    if format == Format::Json {
        return rows.into_iter().try_for_each(|row| output::json_line(&row));
    }
    let rows: Vec<[String; 6]> = rows
        .map(|row| {
            let user = row.token.user.as_ref().map_or_else(|| "-".to_owned(), Name::to_string);
            let expires = match row.token.expires {
                _ if row.expired => "expired".to_owned(),
                None => "never".to_owned(),
                Some(at) => at.strftime("%Y-%m-%d %H:%M").to_string(),
            };
            let used =
                row.last_used.map_or_else(|| "never".to_owned(), |at| output::ago(Some(at), now));
            let note = output::one_line(&row.token.note);
            [row.token.name.to_string(), user, scope_text(row.token), expires, used, note]
        })
        .collect();
    output::table(["NAME", "USER", "SCOPE", "EXPIRES", "USED", "NOTE"], &rows)
}

fn scope_text(token: &Token) -> String {
    let Some(scopes) = &token.scopes else {
        return if token.rescue { "everything (rescue)" } else { "as the rules say" }.to_owned();
    };
    let text = |scope: &Scope| {
        let rights: Vec<&str> = scope.allow.iter().map(|right| right.as_str()).collect();
        format!("{}:{}", scope.repositories, rights.join(","))
    };
    scopes.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn failure(error: TokensError) -> Failure {
    let hint = match &error {
        TokensError::Exists(_) => "`boatyard token revoke` removes it",
        TokensError::Unknown(_) => "`boatyard token list` shows all",
        _ => return Failure::new("cannot change the tokens").because(error),
    };
    Failure::new(error).hint(hint)
}
