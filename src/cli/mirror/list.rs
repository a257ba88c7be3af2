//! `boatyard mirror list`

use std::process::ExitCode;

use boatyard_oci::Digest;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::format::Format;
use crate::report::{Context as _, Result};
use crate::world::World;
use crate::{mirrors, output};

/// List the tags that are kept, with when the upstream last confirmed them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those of this mirror
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print a table for people, or an object on each line for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Row {
    mirror: String,
    repository: String,
    tag: String,
    digest: Digest,
    confirmed: Option<Timestamp>,
}

/// Prints the list.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let mirrors = mirrors::open(world, &root, &mirrors::transfers(&root))?;
    let mut rows = Vec::new();
    let wanted = |name: &str| args.name.as_deref().is_none_or(|wanted| wanted == name);
    for mirror in mirrors.all().iter().filter(|mirror| wanted(mirror.name())) {
        let failed = || format!("cannot list what is kept of {}", mirror.host());
        let repositories = root.repositories();
        for name in repositories.names(&mirror.space(), None, usize::MAX).context(failed())? {
            let kept = mirror.kept(&name);
            for tag in kept.tags(None, usize::MAX).context(failed())? {
                let Some(digest) = kept.tag(&tag).context(failed())? else { continue };
                let confirmed = kept.tag_confirmed(&tag).context(failed())?;
                rows.push(Row {
                    mirror: mirror.name().to_owned(),
                    repository: name.to_string(),
                    tag: tag.to_string(),
                    digest,
                    confirmed: confirmed.and_then(|at| Timestamp::try_from(at).ok()),
                });
            }
        }
    }
    print(args.format, &rows)
}

fn print(format: Format, rows: &[Row]) -> Result<ExitCode> {
    if format == Format::Json {
        rows.iter().try_for_each(output::json_line)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let rows: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let digest = row.digest.to_string().chars().take(19).collect();
            let (mirror, repository) = (row.mirror.clone(), row.repository.clone());
            [mirror, repository, row.tag.clone(), digest, output::ago(row.confirmed, now)]
        })
        .collect();
    output::table(["MIRROR", "REPOSITORY", "TAG", "DIGEST", "CONFIRMED"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
