//! The log: what the libraries tell, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Begins to log. `BOATYARD_LOG` holds a filter such as `info` or `boatyard_registry=debug`.
pub fn start(default: &str) {
    let filter =
        EnvFilter::try_from_env("BOATYARD_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
