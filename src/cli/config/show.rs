//! `boatyard config show`

use std::process::ExitCode;

use crate::config::Config;
use crate::output;
use crate::report::{Context as _, Result};
use crate::world::World;

/// Print the configuration that is in force, with what is not written in the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what would be in force without a file
    #[arg(long)]
    defaults: bool,
    /// Print JSON instead of TOML
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub fn run(args: &Args, world: &World) -> Result<ExitCode> {
    let mut config = if args.defaults { Config::default() } else { world.config.clone() };
    if !args.defaults {
        config.root = Some(world.root_path().to_path_buf());
    }
    if args.json {
        output::json(&config)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = toml::to_string_pretty(&config).context("cannot write the configuration")?;
    match world.config_file().filter(|_| !args.defaults) {
        Some(file) => output::line(&format!("# {}", file.display()))?,
        None => output::line("# no file: the defaults")?,
    }
    output::bytes(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
