//! `boatyard config reference`

use std::process::ExitCode;

use crate::config::reference;
use crate::output;
use crate::report::Result;

/// Print what can be configured, key by key.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON schema, with which editors complete and check
    #[arg(long)]
    schema: bool,
}

/// Prints it.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.schema {
        output::json(&reference::schema())?;
    } else {
        output::bytes(reference::page().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}
