//! The log: what the libraries tell, on standard error; and traces, sent to a collector.

mod traces;

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::config::{Config, LogFormat};
use crate::report::{Failure, Result};

pub use traces::Traces;

/// Begins to log. `BOATYARD_LOG` holds a filter such as `info` or `boatyard_registry=debug`; the
/// configuration has another; `default` is that of the command.
///
/// Traces are sent as long as what is returned lives.
pub fn start(default: &str, config: &Config) -> Result<Option<Traces>> {
    let log = match config.log.format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let traces = Traces::start(&config.traces)?;
    // What is sent is every span of ours, whatever the log tells.
    let spans = Targets::new()
        .with_targets(
            ["boatyard", "boatyard_front", "boatyard_builder"].map(|part| (part, Level::INFO)),
        )
        .with_default(tracing_subscriber::filter::LevelFilter::OFF);
    let sent = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer().with_tracer(traces.tracer()).with_filter(spans)
    });
    Registry::default().with(log.with_filter(filter(default, config)?)).with(sent).init();
    Ok(traces)
}

/// Says what is wrong with a configuration.
pub fn check(config: &Config) -> Result<()> {
    filter("info", config)?;
    Traces::check(&config.traces)
}

fn filter(default: &str, config: &Config) -> Result<EnvFilter> {
    let access = if config.log.access { "" } else { ",boatyard::access=off" };
    if let Ok(filter) = EnvFilter::try_from_env("BOATYARD_LOG") {
        return Ok(filter);
    }
    let level = config.log.level.as_deref().unwrap_or(default);
    EnvFilter::try_new(format!("{level}{access}")).map_err(|error| {
        Failure::usage(format!("`{level}` of log.level is no filter"))
            .because(error)
            .hint("write `info`, `debug`, or `info,boatyard_registry=debug`")
    })
}
