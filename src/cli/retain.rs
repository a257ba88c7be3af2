//! `boatyard retain`

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::SystemTime;

use boatyard_access::{Access, Action, Audit, Caller, Entry, Verdict as Allowed};
use boatyard_content::Root;
use boatyard_content::repository::{Repository, RepositoryError};
use boatyard_oci::{Digest, RepositoryName};
use boatyard_registry::RetentionRule;
use boatyard_registry::retention::{self, Evaluated, Removed, Retirer, Verdict};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::format::FormatArgs;
use crate::isolation;
use crate::output;
use crate::policies;
use crate::report::{Context as _, Failure, Result};
use crate::world::World;

/// Remove the tags and manifests of the registry that no rule of retention keeps.
///
/// The rules are the configuration's (`[[retention]]`); `serve` keeps to them by itself, before each
/// collection. What is pushed or pulled meanwhile stays. The space is given back by `boatyard gc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove nothing, and list what would go, what stays, and which rule says so
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// Evaluates the rules.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    isolation::become_root()?;
    let rules = policies::retention(&world.config)?;
    if rules.is_empty() {
        return Err(Failure::usage("there is no [[retention]] in the configuration")
            .hint("write one: docs/retention.md has examples"));
    }
    let root = world.open_root()?;
    let immutable = policies::immutable(&world.config);
    let log = Log(Audit::new(root.path()));
    let who = format!("uid:{}", rustix::process::getuid().as_raw());
    let by = Retirer { access: &log, who: &who, uses: None };
    let mut rows = Vec::new();
    let mut removed = Removed::default();
    let mut each = |repository: &Repository, evaluated: Evaluated| {
        rows.extend(list(&root, repository, &evaluated, &rules)?);
        if !args.dry_run {
            let one = retention::apply(repository, &evaluated, &rules, by)?;
            removed.tags += one.tags;
            removed.manifests += one.manifests;
            removed.spared += one.spared;
        }
        Ok(())
    };
    let now = SystemTime::now();
    let done = retention::evaluate(&root, &rules, &immutable, now, &mut each);
    log.0.sync();
    done.context("cannot keep to the rules of retention")?;
    if args.format.is_json() {
        rows.iter().try_for_each(output::json_line)?;
    } else {
        print(&rows, args.dry_run, removed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The audit log of what is done without a server.
#[derive(Debug)]
struct Log(Audit);

impl Access for Log {
    fn decide(&self, _: &Caller, _: Action, _: Option<&RepositoryName>) -> Allowed {
        Allowed::Allowed
    }

    fn record(&self, entry: &Entry) {
        self.0.record(entry);
    }
}

/// A tag, or a manifest to which none leads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    repository: String,
    tag: Option<String>,
    digest: String,
    /// The manifest with all that it needs, shared or not.
    bytes: u64,
    pushed_at: Option<Timestamp>,
    pulled_at: Option<Timestamp>,
    action: &'static str,
    rule: Option<String>,
    reason: Option<String>,
}

fn list(
    root: &Root,
    repository: &Repository,
    evaluated: &Evaluated,
    rules: &[RetentionRule],
) -> std::result::Result<Vec<Row>, RepositoryError> {
    let title = |rule: usize| rules.get(rule).map(|of| of.title(rule));
    let mut rows = Vec::new();
    let mut tagged = BTreeSet::new();
    for tag in &evaluated.plan.tags {
        let (action, rule, reason) = match tag.verdict {
            Verdict::Uncovered => continue,
            Verdict::Kept { rule, why } => ("keep", title(rule), Some(why.to_string())),
            Verdict::Immutable { rule } => ("keep", title(rule), Some("immutable".to_owned())),
            Verdict::Follows => ("keep", None, Some("follows its subject".to_owned())),
            Verdict::Removed { rule } => ("remove", title(rule), None),
        };
        tagged.insert(&tag.seen.digest);
        rows.push(Row {
            repository: evaluated.repository.to_string(),
            tag: Some(tag.seen.tag.to_string()),
            digest: tag.seen.digest.to_string(),
            bytes: size(root, repository, &tag.seen.digest)?,
            pushed_at: Timestamp::try_from(tag.seen.pushed).ok(),
            pulled_at: tag.pulled.and_then(|pulled| Timestamp::try_from(pulled).ok()),
            action,
            rule,
            reason,
        });
    }
    let untagged = |digest: &Digest| !tagged.contains(digest);
    for manifest in evaluated.plan.manifests.iter().filter(|one| untagged(&one.digest)) {
        rows.push(Row {
            repository: evaluated.repository.to_string(),
            tag: None,
            digest: manifest.digest.to_string(),
            bytes: size(root, repository, &manifest.digest)?,
            pushed_at: Timestamp::try_from(manifest.seen.pushed).ok(),
            pulled_at: manifest.seen.used.and_then(|used| Timestamp::try_from(used).ok()),
            action: "remove",
            rule: title(manifest.rule),
            reason: None,
        });
    }
    Ok(rows)
}

/// Returns the bytes of a manifest with all that it needs.
fn size(
    root: &Root,
    repository: &Repository,
    manifest: &Digest,
) -> std::result::Result<u64, RepositoryError> {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![manifest.clone()];
    let mut bytes = 0;
    while let Some(next) = waiting.pop() {
        if seen.contains(&next) {
            continue;
        }
        bytes += root.store().stat_blocking(&next)?.map_or(0, |blob| blob.size);
        waiting.extend(repository.refs(&next)?);
        seen.insert(next);
    }
    Ok(bytes)
}

fn print(rows: &[Row], dry_run: bool, removed: Removed) -> Result<()> {
    let now = Timestamp::now();
    let listed = rows.iter().filter(|row| dry_run || row.action == "remove");
    let cells = |row: &Row| {
        let ago = |at: Option<Timestamp>| match at {
            Some(at) => output::ago(Some(at), now),
            None => "-".to_owned(),
        };
        let why = [row.rule.as_deref(), row.reason.as_deref()];
        let why: Vec<&str> = why.into_iter().flatten().collect();
        [
            row.action.to_owned(),
            row.repository.clone(),
            row.tag.clone().unwrap_or_else(|| "-".to_owned()),
            row.digest.clone(),
            output::size(row.bytes),
            ago(row.pushed_at),
            ago(row.pulled_at),
            why.join(": "),
        ]
    };
    let cells: Vec<_> = listed.map(cells).collect();
    if !cells.is_empty() {
        let head = ["ACTION", "REPOSITORY", "TAG", "DIGEST", "SIZE", "PUSHED", "PULLED", "RULE"];
        output::table(head, &cells)?;
    }
    if dry_run {
        return Ok(());
    }
    let tags = output::count(removed.tags, "tag");
    let manifests = output::count(removed.manifests, "manifest");
    output::line(&format!("{tags} and {manifests} were removed"))?;
    if removed.spared > 0 {
        output::line(&format!(
            "{} stay after all: they were pushed or pulled meanwhile, or something needs them",
            removed.spared
        ))?;
    }
    Ok(())
}
