//! `boatyard images`

use std::process::ExitCode;

use boatyard_builder::image::Image;
use boatyard_content::Root;
use boatyard_oci::{Digest, ImageName};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::format::Format;
use crate::images::{self, Listed};
use crate::output;
use crate::report::Result;
use crate::world::World;

/// List the images of this machine: what was built, pulled or loaded here.
///
/// The newest come first. SIZE is what an image's blobs take on disk, compressed as they are;
/// what several images share is counted for each. Images that lost their name to a newer one are
/// shown as <none>.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only images of this name, with or without a tag; `*` stands for any text
    filter: Option<String>,
    /// Print a table for people, or an object on each line for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Show the digests of the manifests too
    #[arg(long)]
    digests: bool,
    /// Do not shorten image IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print only image IDs
    #[arg(short, long, conflicts_with_all = ["digests", "format"])]
    quiet: bool,
}

/// One line, with the words of docker's `--format json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    repository: String,
    tag: String,
    digest: Digest,
    #[serde(rename = "ID")]
    id: String,
    created_at: Option<Timestamp>,
    created_since: String,
    size: String,
    bytes: u64,
}

/// Prints the list.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let root = world.open_root()?;
    let now = Timestamp::now();
    let filter = args.filter.as_deref();
    let mut rows = Vec::new();
    for listed in images::list(&root)? {
        // What an index lists is part of it.
        if !(listed.is_listed && listed.tags.is_empty()) {
            rows.extend(rows_of(&root, &listed, now, filter));
        }
    }
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.repository.clone(), row.tag.clone());
        b.created_at.cmp(&a.created_at).then_with(|| key(a).cmp(&key(b)))
    });
    print(args, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn rows_of(root: &Root, listed: &Listed, now: Timestamp, filter: Option<&str>) -> Vec<Row> {
    let image = Image::open(&root.store(), &listed.target, None).ok();
    let created_at = image.as_ref().and_then(|image| image.config.value().created);
    let bytes = image.as_ref().map_or(listed.target.size, Image::size);
    let repository = listed.familiar();
    let row = |tag: String| Row {
        repository: repository.clone(),
        tag,
        digest: listed.target.digest.clone(),
        // An index without an image for this machine has no configuration to go by.
        id: image.as_ref().map_or(&listed.target.digest, Image::id).to_string(),
        created_at,
        created_since: output::ago(created_at, now),
        size: output::size(bytes),
        bytes,
    };
    let tagged = |name: &ImageName| {
        filter
            .is_none_or(|filter| matches(filter, &repository, &name.reference.to_string()))
            .then(|| row(name.reference.to_string()))
    };
    if listed.tags.is_empty() {
        let shown = filter.is_none_or(|filter| matches(filter, &repository, "<none>"));
        return shown.then(|| row("<none>".to_owned())).into_iter().collect();
    }
    listed.tags.iter().filter_map(tagged).collect()
}

/// Says whether a filter means an image. A filter without a tag means all tags.
fn matches(filter: &str, repository: &str, tag: &str) -> bool {
    let bare = filter.strip_prefix("docker.io/").unwrap_or(filter);
    let bare = bare.strip_prefix("library/").unwrap_or(bare);
    glob(bare, repository) || glob(bare, &format!("{repository}:{tag}"))
}

/// Matches a pattern in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| glob(rest, &text[at..]))
}

fn print(args: &Args, rows: &[Row]) -> Result<()> {
    let id = |row: &Row| match args.no_trunc {
        true => row.id.clone(),
        false => row.id.split(':').next_back().unwrap_or_default().chars().take(12).collect(),
    };
    if args.quiet {
        return rows.iter().try_for_each(|row| output::line(&id(row)));
    }
    if args.format == Format::Json {
        return rows.iter().try_for_each(output::json_line);
    }
    if args.digests {
        let rows = rows.iter().map(|row| {
            let Row { repository, tag, digest, created_since, size, .. } = row;
            let (repository, tag) = (repository.clone(), tag.clone());
            [repository, tag, digest.to_string(), id(row), created_since.clone(), size.clone()]
        });
        let rows: Vec<_> = rows.collect();
        return output::table(
            ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"],
            &rows,
        );
    }
    let rows = rows.iter().map(|row| {
        let Row { repository, tag, created_since, size, .. } = row;
        [repository.clone(), tag.clone(), id(row), created_since.clone(), size.clone()]
    });
    let rows: Vec<_> = rows.collect();
    output::table(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_mean_repositories_tags_and_patterns() {
        for (filter, expected) in [
            ("app", true),
            ("app:1", true),
            ("app:2", false),
            ("ap", false),
            ("a*", true),
            ("*:1", true),
            ("docker.io/library/app", true),
        ] {
            assert_eq!(matches(filter, "app", "1"), expected, "{filter}");
        }
    }
}
