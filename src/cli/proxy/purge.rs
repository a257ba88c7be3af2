//! `boatyard proxy purge`

use std::process::ExitCode;

use boatyard_cache_proxy::catalogue::{self, Pattern};
use boatyard_content::gc::{self, GcError, GcOptions};

use crate::output;
use crate::proxy;
use crate::report::{Context as _, Result};
use crate::world::World;

/// Give up what is kept: the next request fetches it anew.
///
/// The pattern is one of `proxy search`, or a whole address. What a kept generation of an archive
/// needs stays on the disk, and what a client is reading is read to its end. A server that runs
/// notices at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address, or the pattern
    #[arg(value_name = "PATTERN|URL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pattern: String,
    /// Give up nothing, and say what would be
    #[arg(long)]
    dry_run: bool,
}

/// Purges.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let failed = "cannot purge what the cache proxy keeps";
    let root = world.open_root()?;
    // An address of a further server of an upstream means what is kept below its first one.
    let target = proxy::target_of(world, &args.pattern)?;
    let found = match target.and_then(|(target, _)| catalogue::of(&root, &target)) {
        Some(listed) => vec![listed],
        None => catalogue::find(&root, &Pattern::new(&args.pattern)).context(failed)?,
    };
    let mut blobs = Vec::new();
    for listed in &found {
        let size = output::size(listed.bytes());
        output::line(&format!("{}   {size}", output::one_line(listed.target.as_str())))?;
        if !args.dry_run {
            root.entries().remove(&listed.key).context(failed)?;
        }
        blobs.extend(listed.entries.iter().map(|entry| entry.blob.clone()));
    }
    let count = match found.len() {
        1 => "1 address".to_owned(),
        many => format!("{many} addresses"),
    };
    if args.dry_run {
        output::line(&format!("Would give up {count}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let grace = world.config.gc.grace();
    let options = GcOptions { grace, ..GcOptions::default() };
    let freed = match gc::collect_only(&root, &blobs, &options) {
        Ok(report) => report.freed_bytes(),
        // It deletes them, too.
        Err(GcError::Running) => 0,
        Err(error) => return Err(error).context(failed),
    };
    output::line(&format!("Gave up {count}, freed {}", output::size(freed)))?;
    if freed == 0 && !found.is_empty() {
        let grace = output::span(grace).to_lowercase();
        output::line(&format!(
            "The bytes stay while something else holds them, and for {grace} after their last use"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
