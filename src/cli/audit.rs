//! `boatyard audit`

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use boatyard_access::{Audit, Entry, RepositoryPattern};
use jiff::{SignedDuration, Timestamp};

use crate::cli::format::Format;
use crate::output;
use crate::quantity::parse_duration;
use crate::report::{Context as _, Result};
use crate::world::World;

/// Show who pushed, deleted and overwrote what, who failed to log in, and what was changed about
/// users and tokens.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what they did: `user:alice`, `token:ci`, `anonymous`, `uid:1000`
    #[arg(long)]
    who: Option<String>,
    /// Only these deeds, such as push, overwrite, delete, denied, login-failed, user-added,
    /// token-revoked
    #[arg(long = "deed", value_name = "DEED", value_delimiter = ',')]
    deeds: Vec<String>,
    /// Only in these repositories, such as `team/**`
    #[arg(long, value_name = "PATTERN")]
    repository: Option<RepositoryPattern>,
    /// Only from this address
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Only what was done within this time: 30m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// At most so many, the newest
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1000)]
    last: usize,
    /// Print a table for people, or an object on each line for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Prints the log.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let since = args
        .since
        .and_then(|since| Timestamp::now().checked_sub(SignedDuration::try_from(since).ok()?).ok());
    let mut found: VecDeque<Entry> = VecDeque::new();
    let read = Audit::new(root.path()).read(|entry| {
        if args.wants(&entry, since) && args.last > 0 {
            if found.len() == args.last {
                found.pop_front();
            }
            found.push_back(entry);
        }
        true
    });
    read.context("cannot read the audit log")?;
    if args.format == Format::Json {
        found.iter().try_for_each(output::json_line)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 6]> = found.iter().map(row).collect();
    output::table(["TIME", "WHO", "DEED", "REPOSITORY", "TARGET", "FROM"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn wants(&self, entry: &Entry, since: Option<Timestamp>) -> bool {
        let matches = |pattern: &RepositoryPattern| {
            let name = entry.repository.as_deref().and_then(|name| name.parse().ok());
            name.is_some_and(|name| pattern.matches(&name))
        };
        since.is_none_or(|since| entry.time >= since)
            && self.who.as_deref().is_none_or(|who| entry.who == who)
            && self.from.as_deref().is_none_or(|from| entry.from.as_deref() == Some(from))
            && self.repository.as_ref().is_none_or(matches)
            && (self.deeds.is_empty() || self.deeds.iter().any(|deed| deed == entry.deed.as_str()))
    }
}

fn row(entry: &Entry) -> [String; 6] {
    let or_dash =
        |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), output::one_line);
    [
        entry.time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        output::one_line(&entry.who),
        entry.deed.as_str().to_owned(),
        or_dash(&entry.repository),
        or_dash(&entry.target.clone().or_else(|| entry.detail.clone())),
        or_dash(&entry.from),
    ]
}
