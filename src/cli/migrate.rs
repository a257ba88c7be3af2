//! `boatyard migrate`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boatyard_content::local::adopt::Sharing;
use boatyard_oci::RegistryHost;

use crate::cli::backup::many;
use crate::cli::runtime;
use crate::migration::directory::Directory;
use crate::migration::registry::Source;
use crate::migration::{Selection, Skipped, Summary, Target};
use crate::report::{Context as _, FAILED, Failure, Result};
use crate::transfers::{self, Direction};
use crate::world::World;
use crate::{output, remote};

/// Take over the repositories of another registry: from its storage directory, or by its API.
///
/// Digests stay. What is here already is not brought again, so a run that was interrupted is run
/// again, and one before the switch leaves little for the one at the switch. Ends with 1 where
/// something could not be taken over.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["from", "from_directory"]))]
pub struct Args {
    /// The registry: https://old.example:5000, or http:// where it speaks plain HTTP
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The storage directory of a docker-registry, such as /var/lib/registry
    #[arg(long, value_name = "DIR")]
    from_directory: Option<PathBuf>,
    /// Only repositories of these names, or patterns such as team/**; names alone need no catalog
    #[arg(long, value_name = "PATTERN")]
    repository: Vec<String>,
    /// Only tags of this pattern, in which * is any text
    #[arg(long, value_name = "PATTERN")]
    tags: Option<String>,
    /// Also manifests without a tag, from a directory
    #[arg(long, requires = "from_directory")]
    all: bool,
    /// Move tags that point elsewhere here
    #[arg(long)]
    overwrite: bool,
    /// Share bytes with the directory by hard links where the file system has no reflinks: for a
    /// registry that never runs again
    #[arg(long, requires = "from_directory")]
    hard_link: bool,
    /// Take nothing over, and say what would be
    #[arg(long)]
    dry_run: bool,
    /// Print the summary alone
    #[arg(short, long)]
    quiet: bool,
}

/// Migrates.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let mut repositories = Vec::new();
    for pattern in &args.repository {
        let parsed = pattern.parse::<boatyard_access::RepositoryPattern>();
        repositories.push(parsed.map_err(|error| {
            Failure::usage(format!("cannot use --repository {pattern}")).because(error)
        })?);
    }
    let selection = Selection {
        repositories,
        tags: args.tags.clone(),
        untagged: args.all,
        overwrite: args.overwrite,
    };
    match (&args.from_directory, &args.from) {
        (Some(directory), _) => from_directory(args, world, directory, &selection),
        (None, Some(url)) => from_registry(args, world, url, &selection),
        (None, None) => Err(Failure::usage("name a registry with --from or --from-directory")),
    }
}

fn from_directory(
    args: &Args,
    world: &World,
    path: &Path,
    selection: &Selection,
) -> Result<ExitCode> {
    let directory = Directory::open(path)?;
    let found = directory.repositories(selection)?;
    if args.dry_run {
        let mut seen = BTreeSet::new();
        let rows: Vec<[String; 4]> = found
            .iter()
            .map(|found| {
                let tags = found.tags.keys().filter(|tag| selection.takes_tag(tag)).count();
                let (manifests, bytes) = (found.manifests.len(), directory.bytes(found, &mut seen));
                let name = found.name.to_string();
                [name, tags.to_string(), manifests.to_string(), output::size(bytes)]
            })
            .collect();
        // A blob of several repositories counts with the first of them.
        output::table(["REPOSITORY", "TAGS", "MANIFESTS", "SIZE"], &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let root = world.open_root()?;
    let sharing = if args.hard_link { Sharing::Links } else { Sharing::Reflinks };
    let mut summary = Summary::default();
    for found in &found {
        let lease = root.lease().context("cannot begin a lease")?;
        let target = Target { root: &root, lease: &lease };
        directory.take(found, selection, sharing, &target, &mut summary)?;
    }
    tell(&summary)
}

fn from_registry(args: &Args, world: &World, url: &str, selection: &Selection) -> Result<ExitCode> {
    let (is_plain, host) = parse(url)?;
    let client = match is_plain {
        true => remote::client_in_the_clear(world, &host)?,
        false => remote::client(world)?,
    };
    let source = Source { client: &client, host };
    let runtime = runtime()?;
    let names = runtime.block_on(source.repositories(selection, &args.repository))?;
    if args.dry_run {
        let mut rows = Vec::new();
        for name in names {
            let tags = runtime.block_on(source.tags(&name, selection));
            let tags = tags.map_err(|error| {
                remote::failure(format!("cannot list the tags of {name}"), &source.host, error)
            })?;
            rows.push([name.to_string(), tags.len().to_string()]);
        }
        output::table(["REPOSITORY", "TAGS"], &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let root = world.open_root()?;
    let progress = transfers::open(Direction::Pull, args.quiet);
    let mut summary = Summary::default();
    for name in &names {
        let lease = root.lease().context("cannot begin a lease")?;
        let target = Target { root: &root, lease: &lease };
        runtime.block_on(source.take(
            name,
            selection,
            &target,
            progress.as_progress(),
            &mut summary,
        ))?;
    }
    progress.finish();
    tell(&summary)
}

/// Reads `https://old.example:5000`, `http://old.example` or a host.
fn parse(url: &str) -> Result<(bool, RegistryHost)> {
    let (is_plain, rest) = match url.split_once("://") {
        Some(("http", rest)) => (true, rest),
        Some(("https", rest)) => (false, rest),
        None => (false, url),
        Some(_) => {
            return Err(Failure::usage(format!("`{url}` is no registry"))
                .hint("write https://HOST or http://HOST"));
        }
    };
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/v2").unwrap_or(rest);
    if rest.contains('@') {
        return Err(Failure::usage("credentials do not belong into the URL")
            .hint("log in with `boatyard login`"));
    }
    if rest.contains('/') {
        return Err(Failure::usage(format!("`{url}` is more than a registry"))
            .hint("name repositories with --repository, such as --repository 'team/**'"));
    }
    let host = rest.parse().map_err(|error: boatyard_oci::name::NameError| {
        Failure::usage(format!("`{url}` is no registry")).because(error)
    })?;
    Ok((is_plain, host))
}

fn tell(summary: &Summary) -> Result<ExitCode> {
    for Skipped { what, why } in &summary.skipped {
        output::line(&format!("skipped: {what}: {why}"))?;
    }
    for Skipped { what, why } in &summary.failed {
        output::line(&format!("failed: {what}: {why}"))?;
    }
    output::line(&format!(
        "{}: {} and {} came, with {} in {}; {} here before, {} skipped, {} failed",
        many(summary.repositories, "repository", "repositories"),
        output::count(summary.tags, "tag"),
        output::count(summary.manifests, "manifest"),
        output::size(summary.bytes),
        output::count(summary.blobs, "blob"),
        if summary.already == 1 {
            "1 tag was".to_owned()
        } else {
            format!("{} tags were", summary.already)
        },
        summary.skipped.len(),
        summary.failed.len(),
    ))?;
    if summary.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    output::line("Run it again for what failed: what has come does not come again.")?;
    Ok(ExitCode::from(FAILED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_as_people_write_them() {
        let read = |url: &str| parse(url).map(|(plain, host)| (plain, host.to_string())).ok();
        let is = |plain, host: &str| Some((plain, host.to_owned()));
        assert_eq!(read("https://old.example:5000/v2/"), is(false, "old.example:5000"));
        assert_eq!(read("http://old.example"), is(true, "old.example"));
        assert_eq!(read("old.example:5000"), is(false, "old.example:5000"));
        for bad in ["ftp://x.example", "https://me:secret@x.example", "https://x.example/team", ""]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
