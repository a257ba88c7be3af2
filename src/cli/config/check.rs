//! `boatyard config check`

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::serve;
use crate::output;
use crate::proxy;
use crate::report::{Context as _, Result};
use crate::serving::Services;
use crate::telemetry;
use crate::world::World;

/// Look for mistakes in a configuration, before a server reads it.
///
/// It is read as `serve` reads it, with the files that it names: certificates, keys, passwords.
/// Nothing is asked of upstreams, and nothing is changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file [default: as for every command]
    file: Option<PathBuf>,
}

/// Reads it, and makes of it what a server would.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let world = match &args.file {
        Some(file) => world.with_config(file)?,
        None => world.clone(),
    };
    let scratch = tempfile::Builder::new().prefix("boatyard-config-").tempdir();
    let scratch = scratch.context("cannot make a directory to work in")?;
    let trial = world.with_root(scratch.path().join("root"));
    let addresses = trial.config.serve.listen.clone();
    let services = Services::new(&trial, trial.open_root()?, addresses)?;
    // What a server would answer with: only that it can be made matters.
    drop(services.answers(&trial)?);
    let remarks = proxy::check(&trial, &services)?;
    telemetry::check(&trial.config)?;
    serve::tls(&trial.config.serve)?;
    let what = match world.config_file() {
        Some(file) => format!("{} can be used", file.display()),
        None => "there is no configuration file: the defaults are in force".to_owned(),
    };
    output::line(&what)?;
    for remark in remarks {
        output::line(&format!("note: {remark}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
