//! `boatyard proxy packages`

use std::process::ExitCode;

use boatyard_access::Deed;
use boatyard_content::Root;
use boatyard_content::packages::{PackageFile, PackageRepository};
use jiff::Timestamp;
use serde::Serialize;

use crate::access;
use crate::output;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// List the private packages, withdraw a version of one, or remove it.
///
/// What is withdrawn (yanked) stays for those who name it exactly. What is removed is gone, and its
/// name stays taken. A server that runs notices at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// UPSTREAM/PACKAGE@VERSION, as the list has it; for the list, a part of it
    #[arg(value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Withdraw the version, and say why
    #[arg(long, value_name = "WHY", requires = "name", group = "change")]
    withdraw: Option<String>,
    /// Take a withdrawal back
    #[arg(long, requires = "name", group = "change")]
    reinstate: bool,
    /// Remove the version
    #[arg(long, requires = "name", group = "change")]
    remove: bool,
}

/// A file of a version, in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    name: String,
    ecosystem: String,
    file: String,
    size: u64,
    digest: String,
    published: Timestamp,
    by: String,
    withdrawn: Option<String>,
}

impl Row {
    fn of(repository: &PackageRepository, file: &PackageFile) -> Row {
        Row {
            name: format!("{}/{}@{}", repository.name(), file.package, file.version),
            ecosystem: repository.ecosystem().to_owned(),
            file: file.file.clone(),
            size: file.size,
            digest: file.blob.to_string(),
            published: file.published,
            by: file.by.clone(),
            withdrawn: file.withdrawn.clone(),
        }
    }
}

/// Lists, or changes.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    match &args.name {
        Some(name) if args.withdraw.is_some() || args.reinstate || args.remove => {
            change(args, &root, name)
        }
        part => list(args, &root, part.as_deref().unwrap_or_default()),
    }
}

fn list(args: &Args, root: &Root, part: &str) -> Result<ExitCode> {
    let failed = "cannot list the private packages";
    let mut rows = Vec::new();
    for repository in root.packages().all().context(failed)? {
        let listing = repository.listing().context(failed)?;
        let files = listing.packages().flat_map(|package| &package.files);
        rows.extend(files.map(|file| Row::of(&repository, file)));
    }
    rows.retain(|row| row.name.contains(part));
    if args.json {
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let rows: Vec<[String; 5]> = rows
        .into_iter()
        .map(|row| {
            let withdrawn = row.withdrawn.map(|why| format!("  withdrawn: {why}"));
            let file = format!("{}{}", row.file, withdrawn.unwrap_or_default());
            [
                output::one_line(&row.name),
                output::size(row.size),
                output::ago(Some(row.published), now),
                output::one_line(&row.by),
                output::one_line(&file),
            ]
        })
        .collect();
    output::table(["NAME", "SIZE", "PUBLISHED", "BY", "FILE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn change(args: &Args, root: &Root, name: &str) -> Result<ExitCode> {
    let failed = "cannot change the private packages";
    // `npm/@acme/widget@1.0`: the last `@` is before the version.
    let parts = name.split_once('/').and_then(|(upstream, rest)| {
        let (package, version) =
            rest.rsplit_once('@').filter(|(package, _)| !package.is_empty())?;
        Some((upstream, package, version))
    });
    let (upstream, package, version) = parts.ok_or_else(|| {
        Failure::usage(format!("`{name}` is no version of a package"))
            .hint("write UPSTREAM/PACKAGE@VERSION, as `boatyard proxy packages` lists it")
    })?;
    let by = format!("uid:{}", rustix::process::getuid().as_raw());
    let mut found = 0;
    for repository in root.packages().all().context(failed)? {
        if repository.name() != upstream {
            continue;
        }
        found += match &args.withdraw {
            _ if args.remove => repository.remove(package, version, None, &by, Timestamp::now()),
            why => repository.withdraw(package, version, None, why.as_deref()),
        }
        .context(failed)?;
    }
    if found == 0 {
        return Err(Failure::new(format!("`{name}` is not published here"))
            .hint("`boatyard proxy packages` lists what is"));
    }
    let what = match &args.withdraw {
        _ if args.remove => "removed",
        Some(_) => "withdrawn",
        None => "reinstated",
    };
    access::note(root, Deed::Delete, name, Some(what.to_owned()))?;
    output::line(&format!(
        "{what}: {}, {}",
        output::one_line(name),
        output::count(found as u64, "file")
    ))?;
    Ok(ExitCode::SUCCESS)
}
