//! `boatyard completions`

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::report::Result;

/// Prints a script that completes commands and options. For bash:
/// `boatyard completions bash > /etc/bash_completion.d/boatyard`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that the script is for
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> Result<ExitCode> {
    clap_complete::generate(args.shell, &mut Cli::command(), "boatyard", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
